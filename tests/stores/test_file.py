from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlauth import SecretReference, stores
from mlauth.errors import SecretNotFound, SecretUnusable, StoreError
from tests.stores.contract import CANARY, StoreContract


class TestFile(StoreContract):
    scheme = "file"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def put(self, value: str) -> str:
        (self.folder / "secret #1").write_bytes(value.encode())
        return f"file://{self.folder}/secret%20%231"

    def missing(self) -> str:
        return f"file://{self.folder}/missing"


def read(path: Path) -> str:
    reference = SecretReference.parse(f"file://{path}")
    return stores.new_store("file").read(reference, timeout=5).value.get_secret_value()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        ("a\r", "a\r"),
        (" a ", " a "),
        ("\na", "\na"),
    ],
)
def test_one_trailing_newline_is_dropped(tmp_path: Path, content: str, value: str) -> None:
    (tmp_path / "key").write_bytes(content.encode())
    assert read(tmp_path / "key") == value


def test_a_mounted_secret_is_read_through_its_links(tmp_path: Path) -> None:
    """Kubernetes mounts `key -> ..data/key`, `..data -> ..2026_11_20`."""
    (tmp_path / "..2026_11_20").mkdir()
    (tmp_path / "..2026_11_20" / "key").write_text(CANARY)
    (tmp_path / "..data").symlink_to("..2026_11_20")
    (tmp_path / "key").symlink_to("..data/key")
    assert read(tmp_path / "key") == CANARY


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"canary\xff")
    (tmp_path / "large").write_bytes(b"a" * (1024 * 1024 + 1))
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "binary": "not UTF-8",
        "large": "larger than 1 MiB",
        "pipe": "not a regular file",
    }.items():
        with pytest.raises(SecretUnusable, match=said) as caught:
            read(tmp_path / name)
        assert "canary" not in str(caught.value)
    with pytest.raises(StoreError, match="directory"):
        read(tmp_path)
    with pytest.raises(SecretNotFound, match="is the secret mounted"):
        read(tmp_path / "binary" / "below")


def test_a_file_that_this_user_may_not_read_says_who_may_not(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0)
    code = (
        "import os, sys\nfrom mlauth import SecretReference, stores\n"
        "reference, store = SecretReference.parse(sys.argv[1]), stores.new_store('file')\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"  # root may read everything
        "try: store.read(reference, timeout=5)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    for folder in [key, *key.parents][1:4]:
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, f"file://{key}"], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"SecretDenied file://{key} cannot be read: user "), done.stderr


def test_a_file_that_others_may_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    reference = SecretReference.parse(f"file://{tmp_path}/key")
    (tmp_path / "key").chmod(0o644)
    assert "mode 0644" in stores.new_store("file").describe(reference).notes[0]
    (tmp_path / "key").chmod(0o600)
    assert stores.new_store("file").describe(reference).notes == ()

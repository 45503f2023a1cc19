from __future__ import annotations

import ntpath
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from mlauth import SecretReference
from mlauth.errors import SecretNotFound, SecretUnusable, StoreError, StoreUnavailable
from mlauth.stores.file import local_path
from mlauth.storing import SecretStore
from mlauth.testing.stores import CANARY, WritableStoreContract


class TestFile(WritableStoreContract):
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
    return SecretStore("file").read(reference, timeout=5).value.get_secret_value()


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


@pytest.mark.parametrize("name", ["loop", "loop/key", "socket", "n" * 300, "n/" * 3000 + "n"])
def test_a_path_that_can_never_be_read_is_failed_not_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")  # a name of few characters: it has 107 at most
        with pytest.raises(SecretUnusable, match=r"cannot be read: .*; name the file itself"):
            read(tmp_path / name)


def test_a_limit_of_this_process_that_is_reached_is_a_transient_fault(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno(), limits[1]))
        try:
            with pytest.raises(StoreUnavailable, match="Too many open files"):
                read(tmp_path / "key")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.process
def test_a_name_that_the_locale_cannot_write(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mlauth import SecretReference\nfrom mlauth.storing import SecretStore\n"
        "reference = SecretReference.parse(sys.argv[1])\n"
        "try: SecretStore('file').read(reference, timeout=5)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, f"file://{tmp_path}/%C3%BC"],
        env={**os.environ, **ascii_only},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(f"SecretUnusable file://{tmp_path}/%C3%BC cannot be read: this")


@pytest.mark.parametrize(
    ("reference", "on_windows", "elsewhere"),
    [
        ("file:///run/secrets/key", r"\run\secrets\key", "/run/secrets/key"),
        ("file:///C:/secrets/key", r"C:\secrets\key", "/C:/secrets/key"),
        ("file:////C:/secrets/key", r"C:\secrets\key", "//C:/secrets/key"),
        ("file:///c%3A/a%20b/key", r"c:\a b\key", "/c:/a b/key"),
        ("file:////server/share/key", r"\\server\share\key", "//server/share/key"),
        ("file://///server/share/key", r"\\server\share\key", "///server/share/key"),
    ],
)
def test_the_path_that_a_reference_names(reference: str, on_windows: str, elsewhere: str) -> None:
    location = "/".join(SecretReference.parse(reference).place.parts)
    path = local_path(location, windows=True)
    assert ntpath.normpath(path) == on_windows
    assert ntpath.isabs(path) or path.startswith("/run")  # 3.13: on the current drive is relative
    assert local_path(location, windows=False) == elsewhere


def as_nobody(call: str, key: Path) -> str:
    """Call a function with a file as a user without rights; return the error."""
    code = (
        "import os, sys\nfrom pydantic import SecretStr\n"
        "from mlauth import SecretReference\nfrom mlauth.storing import SecretStore\n"
        "reference, store = SecretReference.parse(sys.argv[1]), SecretStore('file')\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"  # root may do everything
        f"try: {call}\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    for folder in [key, *key.parents][1:5]:
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, f"file://{key}"], capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    return done.stdout


@pytest.mark.process
def test_a_file_that_this_user_may_not_read_says_who_may_not(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0)
    done = as_nobody("store.read(reference, timeout=5)", key)
    assert done.startswith(f"SecretDenied file://{key} cannot be read: user ")


def test_a_file_that_others_may_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    reference = SecretReference.parse(f"file://{tmp_path}/key")
    (tmp_path / "key").chmod(0o644)
    assert "mode 0644" in SecretStore("file").describe(reference).notes[0]
    (tmp_path / "key").chmod(0o600)
    assert SecretStore("file").describe(reference).notes == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from pydantic import SecretStr
from mlauth import SecretReference
from mlauth.storing import SecretStore
from tests.test_lifetime import at_line

key = Path(sys.argv[1])
reference, store = SecretReference.parse(f"file://{key}"), SecretStore("file")
points = left = 0
while True:
    points += 1
    store.write(reference, SecretStr("old"), timeout=5)
    pid = os.fork()
    if pid == 0:
        with at_line(points, lambda: os.kill(os.getpid(), signal.SIGKILL), ("file.py",)):
            store.write(reference, SecretStr("canary"), timeout=5)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert key.read_text() in ("old", "canary")
    left += len(list(key.parent.iterdir())) - 1
    store.prove_writable(reference, timeout=5)  # as the next rotation does first
    assert list(key.parent.iterdir()) == [key], points
    if status == 0:
        break
print(points, left)
"""


class TestWriting:
    @pytest.fixture(autouse=True)
    def _key(self, tmp_path: Path) -> None:
        self.folder, self.key = tmp_path / "run", tmp_path / "run" / "key"
        self.folder.mkdir()

    def write(self, value: str = f"{CANARY}-new", path: Path | None = None) -> None:
        reference = SecretReference.parse(f"file://{path or self.key}")
        store = SecretStore("file")
        assert store.write(reference, SecretStr(value), timeout=5) is None

    def test_only_its_owner_may_read_a_new_file(self) -> None:
        umask = os.umask(0)
        try:
            self.write()
        finally:
            os.umask(umask)
        assert self.key.stat().st_mode & 0o777 == 0o600

    def test_mode_and_links_stay(self) -> None:
        (self.folder / "real").write_text("old")
        (self.folder / "real").chmod(0o640)
        self.key.symlink_to("real")
        self.write()
        assert self.key.is_symlink()
        assert (self.folder / "real").stat().st_mode & 0o777 == 0o640
        assert read(self.key) == f"{CANARY}-new"

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may do that")
    def test_the_owner_stays(self) -> None:
        self.key.write_text("old")
        os.chown(self.key, 65534, 65533)
        self.write()
        assert (self.key.stat().st_uid, self.key.stat().st_gid) == (65534, 65533)

    def test_whoever_reads_meanwhile_has_the_old_value_or_the_new_one(self) -> None:
        old, new = "old " * 100_000, "new " * 100_000
        self.write(old)
        seen, done = set(), threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.add(read(self.key))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(50):
            self.write(new)
            self.write(old)
        done.set()
        watcher.join()
        assert seen <= {old, new}
        assert seen
        assert [path.name for path in self.folder.iterdir()] == ["key"]

    def test_a_failed_write_says_why_and_changes_nothing(self) -> None:
        os.mkfifo(self.folder / "pipe")
        (self.folder / "file").write_text("old")
        for path, kind, said in (
            (self.folder, SecretUnusable, "not a regular file"),
            (self.folder / "pipe", SecretUnusable, "not a regular file"),
            (self.folder / "absent" / "key", SecretNotFound, "no directory for it"),
            (self.folder / "file" / "key", SecretNotFound, "no directory for it"),
            (self.folder / ("a" * 300), StoreUnavailable, "correct that, and write again"),
        ):
            with pytest.raises(kind, match=f"cannot be written: .*{said}") as caught:
                self.write(path=path)
            assert CANARY not in str(caught.value)
        assert {path.name for path in self.folder.iterdir()} == {"pipe", "file"}

    @pytest.mark.process
    def test_a_full_disk_leaves_the_old_value_and_no_piece_of_the_new_one(self) -> None:
        """In a process of its own, a limit on the size of files has the same effect."""
        self.key.write_text("old")
        code = (
            "import resource, signal, sys\n"
            "from pydantic import SecretStr\n"
            "from mlauth import SecretReference\nfrom mlauth.storing import SecretStore\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "reference, store = SecretReference.parse(sys.argv[1]), SecretStore('file')\n"
            "try: store.write(reference, SecretStr('canary' * 1000), timeout=5)\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"file://{self.key}"], capture_output=True, text=True
        )
        assert done.stdout.startswith("StoreUnavailable file://"), done.stderr
        assert "cannot be written: File too large; correct that" in done.stdout
        assert "canary" not in done.stdout
        assert self.key.read_text() == "old"
        assert [path.name for path in self.folder.iterdir()] == ["key"]

    @pytest.mark.process
    def test_the_next_write_removes_the_value_that_a_killed_process_left(
        self,
    ) -> None:
        """At each line of a write, one after the other; in processes of their own."""
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(self.key)],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        points, left = map(int, done.stdout.split())
        assert points > 20
        assert left > 5  # it was killed with its file there, too

    def test_what_another_process_is_writing_is_left_alone(self) -> None:
        writing, goes_on = threading.Event(), threading.Event()

        def wait() -> None:
            writing.set()
            goes_on.wait(20)

        reference, store = SecretReference.parse(f"file://{self.key}"), SecretStore("file")
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(store.write, reference, SecretStr("1"), timeout=30, before=wait)
            writing.wait(20)
            store.prove_writable(reference, timeout=5)
            self.write("2")
            goes_on.set()
            slow.result()
        assert read(self.key) == "1"
        assert [path.name for path in self.folder.iterdir()] == ["key"]

    @pytest.mark.process
    @pytest.mark.skipif(
        not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode != 0,
        reason="this user may not mount anything, not even in a name space of its own",
    )
    def test_a_file_that_is_mounted_is_not_called_writable(self) -> None:
        """Docker mounts single files, and such a file cannot be replaced."""
        (self.folder / "elsewhere").write_text("old")
        self.key.touch()
        code = (
            "import sys\n"
            "from mlauth import SecretReference\nfrom mlauth.storing import SecretStore\n"
            "reference, store = SecretReference.parse(sys.argv[1]), SecretStore('file')\n"
            "try: store.prove_writable(reference, timeout=5)\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        tried = [sys.executable, "-c", code, f"file://{self.key}"]
        mount = ["sh", "-ec", 'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh"]
        done = subprocess.run(
            ["unshare", "-rm", *mount, str(self.folder / "elsewhere"), str(self.key), *tried],
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith("StoreUnavailable file://"), done.stderr
        assert "it is mounted, and can only be changed at its origin" in done.stdout

    @pytest.mark.process
    @pytest.mark.parametrize(
        "call",
        [
            "write(reference, SecretStr('canary'), timeout=5)",
            "prove_writable(reference, timeout=5)",
        ],
    )
    def test_a_user_who_may_not_write_there_is_named(self, call: str) -> None:
        self.key.write_text("old")
        self.folder.chmod(0o755)
        done = as_nobody(f"store.{call}", self.key)
        assert done.startswith(f"SecretDenied file://{self.key} cannot be written: user ")
        assert "may not replace the file; give this user the right to write to its" in done
        assert self.key.read_text() == "old"

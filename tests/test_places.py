"""Commands run where something is missing; each ends in one line and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.profiles import write_profile
from tests.support.session import untraced
from tests.support.zenml_keys import api_key

ACTIVATE = ("exec", "-p", "p", "--no-verify", sys.executable, "-c", "print('ran')")


@pytest.fixture
def folder(clean_environment: Path) -> Path:
    """A folder with a key and a mlauth.toml, which any user may read."""
    folder = clean_environment / "project"
    folder.mkdir()
    (folder / "key").write_text(api_key("canary"))
    write_profile(folder, "p", env={"TOKEN": f"file://{folder}/key"})
    for each in [folder, *folder.parents]:
        if not each.stat().st_mode & 0o001:
            each.chmod(0o755)
    return folder


def with_zenml(folder: Path) -> None:
    """Exchange the profile for one that needs a private folder."""
    zenml = {"store_url": "https://zenml.example.com", "api_key": f"file://{folder}/key"}
    write_profile(folder, "p", zenml=zenml)


@pytest.fixture(autouse=True)
def _without_coverage() -> Iterator[None]:
    """Coverage of a child needs a place to write to, too."""
    with untraced():
        yield


def run(
    folder: Path, *arguments: str, before: str = "", redirect: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run mlauth in a folder, after a piece of Python and with redirections of a shell."""
    code = f"import os, sys\n{before}\nfrom mlauth.cli import main\nmain()"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr
    return done


IMPORTS_NOTHING = pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0),
    reason="Python 3.13.0 cannot import ssl in a working directory that was deleted",
)


@IMPORTS_NOTHING
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "-p", "p"), 2),
        (ACTIVATE, 125),
        (("rotate", "zenml", "-p", "p"), 2),
    ],
)
def test_a_working_directory_that_was_deleted(
    folder: Path, arguments: tuple[str, ...], code: int
) -> None:
    gone = "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    done = run(folder, *arguments, before=gone)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line == (
        "mlauth: there is no file mlauth.toml in the working directory, which was deleted: name it "
        "with --config, config= or MLAUTH_CONFIG"
    )


@IMPORTS_NOTHING
def test_a_deleted_working_directory_does_not_stop_a_run_with_an_absolute_config(
    folder: Path,
) -> None:
    gone = "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    with_zenml(folder)
    done = run(
        folder, *ACTIVATE, before=gone, MLAUTH_CONFIG=f"{folder}/mlauth.toml", ZENML_CONFIG_PATH="x"
    )
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr


def test_no_temporary_directory_that_can_be_written_to(folder: Path) -> None:
    """The root may be read-only; here, a limit on the size of files has the same effect."""
    read_only = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    done = run(folder, *ACTIVATE, before=read_only)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr  # it needs none
    with_zenml(folder)
    done = run(folder, *ACTIVATE, before=read_only)
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert line.startswith("mlauth: no private folder can be made for this run: No usable")
    assert line.endswith(
        "give the worker or the container a directory that this user may write to, and name it in "
        "TMPDIR"
    )


def test_a_temporary_directory_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with_zenml(folder)
    done = run(folder, *ACTIVATE, TMPDIR=str(tmp_path / "gone"), TEMP=str(tmp_path / "tmp"))
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    gone = f"import tempfile; tempfile.tempdir = {str(tmp_path / 'gone')!r}"
    done = run(folder, *ACTIVATE, before=gone)
    assert done.returncode == 125
    assert "for this run: No such file or directory: give the worker" in done.stderr


def test_a_temporary_directory_that_cannot_be_listed_will_do(folder: Path, tmp_path: Path) -> None:
    with_zenml(folder)
    (tmp_path / "tmp").chmod(0o333)
    code = (  # root may list everything; nobody else may import here, perhaps
        "import os, mlauth\n"
        "with mlauth.activate('p', verify=False): pass\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "with mlauth.activate('p', verify=False): print(os.environ['ZENML_CONFIG_PATH'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.startswith(f"{tmp_path}/tmp/mlauth-"), done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("redirect", [">&-", "2>&-"])
def test_closed_output_changes_no_exit_code(folder: Path, redirect: str) -> None:
    assert run(folder, "check", "-p", "p", redirect=redirect).returncode == 0
    assert run(folder, "check", "-p", "nope", redirect=redirect).returncode == 2
    command = ("exec", "-p", "p", "sh", "-c", "exit 7")
    assert run(folder, *command, redirect=redirect).returncode == 7


FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
NOBODY_READS = "ours, theirs = os.pipe(); os.close(ours); os.dup2(theirs, 1)"


@pytest.mark.parametrize(
    ("output", "arguments", "code"),
    [
        (FULL, ("check", "-p", "p"), 0),
        (FULL, ("explain", "env://NOT_THERE"), 1),
        (NOBODY_READS, ("check", "-p", "p", "--json"), 0),
        (NOBODY_READS, ("check",), 1),
    ],
)
def test_output_that_cannot_be_written_changes_no_exit_code(
    folder: Path, output: str, arguments: tuple[str, ...], code: int
) -> None:
    assert run(folder, *arguments, before=output).returncode == code


def test_characters_that_the_output_cannot_hold_change_no_exit_code(folder: Path) -> None:
    write_profile(folder, "東京", env={"TOKEN": f"file://{folder}/key"})
    done = run(folder, "check", "-p", "東京", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"Checking profile '\u6771\u4eac' of mlauth.toml")

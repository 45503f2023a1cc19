"""Virtual environments with pinned packages, each built once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import run

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))  # the pinned one, which make installs


@dataclass(frozen=True)
class Installed:
    """An environment that is there."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def run(
        self, *command: str, cwd: Path, env: Mapping[str, str], timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        program = str(self.folder / "bin" / command[0])
        return run([program, *command[1:]], cwd=cwd, env=env, timeout=timeout)


def build_wheel(project: Path, folder: Path) -> Path:
    """Build the wheel that a release of a project would have."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(project)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(pins: Path, folder: Path, *wheels: Path, python: str = sys.executable) -> Installed:
    """Make an environment, or use the one of an earlier run with the same pins.

    Args:
        pins: the file that names its packages, with their hashes.
        folder: of the environment.
        wheels: what is installed anew each time, without its dependencies.
        python: the interpreter that makes it.
    """
    installed, stamp = Installed(folder), folder / ".pins"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        _do(python, "-m", "venv", "--clear", "--without-pip", str(folder))
        _uv("install", installed, "--no-deps", "--require-hashes", "-r", str(pins))
        stamp.write_text(digest)
    if wheels:
        _uv("install", installed, "--no-deps", "--reinstall", *map(str, wheels))
    _uv("check", installed)
    return installed


def _uv(command: str, installed: Installed, *arguments: str) -> None:
    _do(UV, "pip", command, "--python", installed.python, *arguments)


def _do(*command: str) -> None:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

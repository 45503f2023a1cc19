"""Virtual environments with pinned packages and mlauth from its wheel."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import findpython

from tests.support.processes import run
from tests.versions.matrix import ROOT, Environment

FOLDER = ROOT / ".venv-matrix"
UV = str(Path(sys.executable).with_name("uv"))  # the pinned one, which make installs


@dataclass(frozen=True)
class Installed:
    """An environment that is there."""

    environment: Environment
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


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"  # the Python that runs the tests


def find_python(version: str) -> str | None:
    """Return a Python of this machine that can make environments, if there is one."""
    if version == HERE:
        return sys.executable
    for found in findpython.find_all(version):
        able = [str(found.executable), "-c", "import ensurepip, venv"]
        if subprocess.run(able, capture_output=True).returncode == 0:
            return str(found.executable)
    return None


def build_wheel(folder: Path) -> Path:
    """Build the wheel that a release would have."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(environment: Environment, version: str, python: str, wheel: Path) -> Installed:
    """Make an environment, or use the one of an earlier run with the same pins."""
    installed = Installed(environment, FOLDER / f"{environment.name}-{version}")
    digest = hashlib.sha256(environment.pins.read_bytes()).hexdigest()
    stamp = installed.folder / ".pins"
    if not stamp.exists() or stamp.read_text() != digest:
        _do(python, "-m", "venv", "--clear", str(installed.folder))
        hashed = ("--no-deps", "--require-hashes", "-r", str(environment.pins))
        _do(UV, "pip", "install", "--python", installed.python, *hashed)
        stamp.write_text(digest)
    again = ("--no-deps", "--reinstall-package", "mlauth", str(wheel))
    _do(UV, "pip", "install", "--python", installed.python, *again)
    _do(UV, "pip", "check", "--python", installed.python)
    return installed


def _do(*command: str) -> None:
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""The environments of the matrix, with the Pythons of this machine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import findpython

from tests.support import environments
from tests.versions.matrix import ROOT, Environment

FOLDER = ROOT / ".venv-matrix"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"  # the Python that runs the tests


@dataclass(frozen=True)
class Installed(environments.Installed):
    """An environment of the matrix that is there."""

    environment: Environment


def find_python(version: str) -> str | None:
    """Return a Python of this machine that can make environments, if there is one."""
    if version == HERE:
        return sys.executable
    for found in findpython.find_all(version):
        able = [str(found.executable), "-c", "import ensurepip, venv"]
        if subprocess.run(able, capture_output=True).returncode == 0:
            return str(found.executable)
    return None


def install(environment: Environment, version: str, python: str, wheel: Path) -> Installed:
    """Make an environment, or use the one of an earlier run with the same pins."""
    folder = FOLDER / f"{environment.name}-{version}"
    environments.install(environment.pins, folder, wheel, python=python)
    return Installed(folder, environment)

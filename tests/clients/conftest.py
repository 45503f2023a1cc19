"""Real clients that need an environment of their own: `make test-clients`.

The pins of each are a file in requirements/clients; `make lock` writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.environments import ROOT, Installed, build_wheel, install

FOLDER = ROOT / ".venv-clients"
PINS = ROOT / "requirements" / "clients"


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Installed]:
    """Make the environment of a client; a test module has a fixture of session scope for it."""

    def made(name: str, *projects: Path) -> Installed:
        """Install what requirements/clients/NAME.txt pins, and the wheels of projects of ours."""
        wheels = [build_wheel(each, tmp_path_factory.mktemp(each.name)) for each in projects]
        return install(PINS / f"{name}.txt", FOLDER / name, *wheels)

    return made

"""Environments with other versions, and servers of Prefect and ZenML that run in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.accounts import Account, new_account
from tests.support.environments import build_wheel
from tests.support.servers import PrefectServer, ProcessWorker, ZenMLServer, child_environment
from tests.versions.environments import HERE, Installed, find_python, install
from tests.versions.matrix import CAPABILITIES, ENVIRONMENTS, ROOT, Environment


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in each environment with the extras that its capability needs."""
    if "installed" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("capability"))
    combinations = [
        pytest.param((each, version), id=f"{each.name}-{version}".rstrip("-"))
        for each in ENVIRONMENTS
        for version in (each.pythons if each.each else [""])  # "": any of them
        if not any(CAPABILITIES[mark.args[0]].missing(each) for mark in marks)
    ]
    metafunc.parametrize("installed", combinations, indirect=True, scope="session")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest, wheel: Path) -> Installed:
    """Each environment in turn; it is skipped if its Python is not on this machine."""
    environment, wanted = request.param
    assert isinstance(environment, Environment)
    pythons = environment.pythons
    versions = [wanted] if wanted else sorted(pythons, key=lambda each: each != HERE)
    for version in versions:
        python = find_python(version)
        if python:
            return install(environment, version, python, wheel)
    pytest.skip(f"this machine has no Python {' or '.join(versions)}")


@pytest.fixture(scope="session")
def zenml(
    installed: Installed, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZenMLServer]:
    """The environment's own ZenML server, or that of the environment of the tests."""
    if not installed.environment.server:
        yield request.getfixturevalue("zenml_server")
        return
    folder = tmp_path_factory.mktemp("zenml")
    with ZenMLServer(folder, python=installed.python) as server:
        yield server


@pytest.fixture(scope="session")
def prefect(
    installed: Installed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PrefectServer, ProcessWorker]]:
    """The environment's own Prefect server, with a worker."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("prefect")
        server = PrefectServer(folder, ui=False, python=installed.python)
        stack.enter_context(server)
        worker = ProcessWorker(folder / "worker", server, pool="tests", python=installed.python)
        stack.enter_context(worker)
        yield server, worker


@pytest.fixture
def known(zenml: ZenMLServer, tmp_path: Path) -> Account:
    """A service account of the test's own, on the environment's server."""
    return new_account(zenml, tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of programs that write only into the test's folder."""
    environment = child_environment(tmp_path / "home")
    environment.pop("PYTHONPATH", None)  # the wheel is to be imported, not the checkout
    return environment

"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlauth.demo.servers import PrefectServer, ProcessWorker, ZenMLServer


@pytest.fixture(scope="session")
def zenml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZenMLServer]:
    """A ZenML server; tests share it, so each makes accounts of its own."""
    with ZenMLServer(tmp_path_factory.mktemp("zenml")) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server without its UI; tests share it, so each names its deployments."""
    with PrefectServer(tmp_path_factory.mktemp("prefect"), ui=False) as server:
        yield server


@pytest.fixture(scope="session")
def process_worker(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer
) -> Iterator[ProcessWorker]:
    """A process worker of the pool `tests`; a test of what a run leaves in it starts its own."""
    with ProcessWorker(tmp_path_factory.mktemp("worker"), prefect_server, pool="tests") as worker:
        yield worker

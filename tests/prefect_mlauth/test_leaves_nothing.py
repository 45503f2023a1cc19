"""Secrets are used in every way at once, with everything logged, and are nowhere afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.run import register_stack
from tests.prefect_mlauth.conftest import (
    Project,
    Run,
    block_documents,
    digest,
    export_secrets,
    zenml_login,
)
from tests.support.accounts import Account
from tests.support.canaries import canary, leaks
from tests.support.search import search
from tests.support.waiting import until

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parent.parent.parent / "deployments" / "zenml-on-prefect"
LOUD = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "httpx,httpcore,azure,urllib3,zenml",
    "ZENML_LOGGING_VERBOSITY": "DEBUG",
}


def of_processes(kind: str) -> Iterator[bytes]:
    """Return the arguments, or the environments, of every other process of this machine."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                yield (process / kind).read_bytes()
            except OSError:
                continue  # it ended


@contextmanager
def arguments_watched() -> Iterator[set[bytes]]:
    """Collect the arguments of every process that runs meanwhile."""
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.update(of_processes("cmdline"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """Two secrets in files: one for a step, one for a block."""
    values = {"canary": canary("step"), "of-a-block": canary("block")}
    for name, value in values.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(value)
    return values


@pytest.fixture
def stack(account: Account, tmp_path: Path, component_flavor: None) -> str:
    """A stack with the component, for the account."""
    script = (EXAMPLE / "register_stack.py").read_text()
    script = script.replace('"prod"', f'"{account.name}"')
    script = script.replace('"service-account"', f'"check-{account.name}"')
    (tmp_path / "register_stack.py").write_text(script)
    register_stack(account.server, tmp_path, account.name)
    return account.name


def places(project: Project, account: Account, values: list[str], run: Run | None) -> list[str]:
    """Return the places of a value in databases, files, and answers of Prefect's API."""
    server = project.server
    events = {"filter": {"occurred": {}}, "limit": 50}
    texts = [block_documents(server), json.dumps(server.request("POST", "/events/filter", events))]
    texts += [
        json.dumps(server.request("POST", f"/{kind}/filter", {}))
        for kind in ("artifacts", "deployments", "flow_runs", "variables")
    ]
    folders = {server.folder, project.worker.folder, project.flows, account.server.folder}
    if run is not None:
        texts += [run.output, run.text]
        folders.add(run.folder)
    return [place for text in texts for place in leaks(text, *values)] + [
        place for folder in folders for place in search(values, folder).found
    ]


def test_the_secrets_of_a_careless_run_are_nowhere_during_and_after_it(
    way: str,
    project: Project,
    account: Account,
    secrets: dict[str, str],
    stack: str,
    tmp_path: Path,
    registered_blocks: str,
) -> None:
    values = [account.key, *secrets.values()]
    deployment = project.deploy(
        "careless",
        zenml_login(account, service_account=account.name, stack=stack),
        export_secrets(CANARY=f"file://{tmp_path}/canary"),
        file="careless.py",
    )
    with arguments_watched() as arguments:
        run = project.run(way, deployment, **LOUD, OF_A_BLOCK=f"file://{tmp_path}/of-a-block")
    assert run.result.state_type == "COMPLETED", run.text
    assert (run.facts["account"], run.facts["stack"]) == (account.name, stack)
    assert run.facts["env"]["CANARY"] == digest(secrets["canary"])
    for line in ("printed ***", "printed beside a block ***", "printed in a step ***"):
        assert line in run.output, run.output
    assert "DEBUG" in run.output
    assert len(arguments) > 5
    assert leaks(b"\n".join(arguments), *values) == []
    assert leaks(b"\n".join(of_processes("environ")), *values) == []
    assert places(project, account, values, run) == []
    assert run.left_over() == []
    # The next process of the same user must not get anything either.
    after = project.run(way, project.deploy("show"))
    assert not {"CANARY", "ZENML_STORE_URL", "ZENML_STORE_API_KEY"} & set(after.facts["env"])


def test_the_secrets_of_a_failed_run_are_nowhere(
    way: str,
    project: Project,
    account: Account,
    secrets: dict[str, str],
    tmp_path: Path,
    registered_blocks: str,
) -> None:
    deployment = project.deploy(
        "show",
        export_secrets(CANARY=f"file://{tmp_path}/canary"),
        zenml_login(account, service_account="somebody-else"),
    )
    run = project.run(way, deployment, **LOUD)
    assert run.result.state_type in ("FAILED", "CRASHED")
    assert "not as 'somebody-else'" in run.text
    values = [account.key, *secrets.values()]
    assert leaks(b"\n".join(of_processes("environ")), *values) == []
    assert places(project, account, values, run) == []


def test_the_searches_find_what_is_there(
    project: Project, account: Account, tmp_path: Path, registered_blocks: str
) -> None:
    """This shows that the tests above can fail."""
    value = canary("planted")
    waits = [sys.executable, "-c", "input()", value]
    with (
        arguments_watched() as arguments,
        subprocess.Popen(waits, stdin=subprocess.PIPE, env={"PLANTED": value}) as process,
    ):
        until(lambda: leaks(b"\n".join(arguments.copy()), value))
        assert leaks(b"\n".join(of_processes("environ")), value)
        process.communicate(b"\n")
    project.server.request("POST", "/variables/", {"name": "planted", "value": value})
    try:
        found = places(project, account, [value], None)
        assert any(place.endswith(": variable") for place in found), found
        assert any('"name": "planted"' in place for place in found), found
    finally:
        project.server.request("DELETE", "/variables/name/planted")

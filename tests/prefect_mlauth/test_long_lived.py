"""Processes that outlive a run keep nothing of it, and the run takes nothing away from them.

A worker, or a script that serves flows, runs pull steps itself to find a flow's hooks. The next run
inherits the environment of such a process.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlauth import ZenMLCredentials, activate
from mlauth.record import RECORD
from tests.prefect_mlauth.conftest import Project, digest, zenml_login
from tests.prefect_mlauth.ways import Script, add_steps
from tests.support.accounts import Account
from tests.support.search import search
from tests.support.servers import ManagedProcess, PrefectServer, ProcessWorker, flow_run_logs
from tests.support.waiting import until

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]

Deployments = Mapping[str, tuple[str, list[Any]]]  # by name: the flow and the pull steps


@contextmanager
def a_worker(
    folder: Path, server: PrefectServer, deployments: Deployments, env: Mapping[str, str]
) -> Iterator[ManagedProcess]:
    with ProcessWorker(folder / "process", server, pool=folder.name, env=env) as worker:
        project = Project(folder, server, worker)
        for name, (flow, steps) in deployments.items():
            # Flows with hooks log in on import, too: in a worker, that must set nothing either.
            file = "flows.py" if flow == "show" else "at_import.py"
            project.deploy(flow, *steps, name=name, file=file)
        yield worker


@contextmanager
def a_script(
    folder: Path, server: PrefectServer, deployments: Deployments, env: Mapping[str, str]
) -> Iterator[ManagedProcess]:
    flows = {name: flow for name, (flow, _) in deployments.items()}
    with Script(folder, server, flows, env) as script:
        for name, (flow, steps) in deployments.items():
            add_steps(server, f"{flow}/{name}", *steps)
        yield script


class Runs:
    """Flow runs, started and looked at while the process that runs them goes on."""

    def __init__(self, server: PrefectServer) -> None:
        self._server = server

    def start(self, flow: str, deployment: str) -> str:
        found = self._server.request("GET", f"/deployments/name/{flow}/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        return str(self._server.request("POST", path, {})["id"])

    def facts(self, run: str) -> Any:
        """Wait for what the flow says."""

        def said() -> str | None:
            lines = flow_run_logs(self._server, run)
            return next((line[6:] for line in lines if line.startswith("FACTS ")), None)

        return json.loads(until(said))

    def cancel(self, run: str) -> None:
        body = {"state": {"type": "CANCELLING"}, "force": True}
        self._server.request("POST", f"/flow_runs/{run}/set_state", body)

    def ended(self, run: str) -> str:
        """Wait for the final state."""

        def final() -> str | None:
            state = self._server.request("GET", f"/flow_runs/{run}")["state"]["type"]
            return state if state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

        return str(until(final))


def private_folders(process: ManagedProcess) -> list[Path]:
    return list((process.folder / "tmp").glob("mlauth-*"))


def of_ours(environment: Mapping[str, str]) -> set[str]:
    names = ("ZENML_STORE", "ZENML_CONFIG", "ZENML_LOCAL", "MLAUTH_", "DISABLE_", "PREFECT_LOGGING")
    return {name for name in environment if name.startswith(names)}


@pytest.mark.parametrize("inherited", [{}, {"PREFECT__FLOW_RUN_ID": str(uuid.uuid4())}])
@pytest.mark.parametrize("long_lived", [a_worker, a_script])
@pytest.mark.usefixtures("counted")
def test_hooks_after_a_crash_and_a_cancellation_leave_nothing_for_the_next_run(
    long_lived: Callable[..., AbstractContextManager[ManagedProcess]],
    tmp_path: Path,
    prefect_server: PrefectServer,
    account: Account,
    inherited: dict[str, str],
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    login = zenml_login(account)
    crashing, cancelled, other = (f"{tmp_path.name}-{index}" for index in range(3))
    deployments: Deployments = {
        crashing: ("killed", [login]),
        cancelled: ("endless", [login]),
        other: ("show", []),
    }

    def hook(flow: str) -> Any:
        until((hooks / flow).exists)
        return json.loads((hooks / flow).read_text())

    runs, before = Runs(prefect_server), account.logins()
    with long_lived(
        tmp_path, prefect_server, deployments, {"HOOKS": str(hooks), **inherited}
    ) as process:
        (itself, *_) = process.pids()
        crash = runs.start("killed", crashing)
        found = hook("killed")
        assert found["pid"] == itself
        assert "a block sets nothing here" in found["refused"]
        assert of_ours(found) == set()
        assert "CANARY_AT_IMPORT" not in found
        assert runs.ended(crash) == "CRASHED"
        (left,) = private_folders(process)
        assert search([account.key], process.folder).found == []

        endless = runs.start("endless", cancelled)
        assert runs.facts(endless)["private"]
        assert not left.exists()  # the next activation removes what a killed run left
        runs.cancel(endless)
        found = hook("endless")
        assert found["pid"] == itself
        assert "a block sets nothing here" in found["refused"]
        assert of_ours(found) == set()
        assert "CANARY_AT_IMPORT" not in found
        assert runs.ended(endless) == "CANCELLED"
        assert (
            account.logins() == before + 2
        )  # one for each run: the long-lived process asked nobody

        assert of_ours(runs.facts(runs.start("show", other))["env"]) == set()

        until(lambda: private_folders(process) == [])
        assert search([account.key], process.folder).found == []
        said = process.log.read_text()
        assert said.count("mlauth sets nothing here") >= 2
        assert account.key not in said


def test_a_login_before_a_script_serves_flows_lasts_as_long_as_the_script(
    tmp_path: Path, prefect_server: PrefectServer, account: Account
) -> None:
    """The runs are children of the script and inherit its login; none of them undoes it."""
    login = zenml_login(account)["prefect_mlauth.steps.zenml_login"]
    runs, name = Runs(prefect_server), tmp_path.name
    with Script(tmp_path, prefect_server, {name: "show"}, {}, login) as script:
        for _ in range(2):
            run = runs.start("show", name)
            facts = runs.facts(run)
            assert facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
            assert facts["private"]
            assert runs.ended(run) == "COMPLETED"
            until(lambda: len(script.pids()) == 1)
            assert len(private_folders(script)) == 1
    assert private_folders(script) == []
    assert search([account.key], script.folder).found == []


def test_a_run_leaves_the_private_folder_of_what_started_it(
    clean_environment: Path,
    tmp_path: Path,
    prefect_server: PrefectServer,
    process_worker: ProcessWorker,
    account: Account,
) -> None:
    """For instance, `mlauth exec` starts a program that runs a deployment with its own login."""
    project = Project(tmp_path, prefect_server, process_worker)
    step = zenml_login(account, verify=False)
    deployment = project.deploy("show", step)
    inputs = step["prefect_mlauth.steps.zenml_login"]
    credentials = ZenMLCredentials(store_url=inputs["store_url"], api_key=inputs["api_key"])
    with activate(credentials, verify=False) as activation:
        inherited = {name: os.environ[name] for name in (*activation.variables, RECORD)}
        run = project.run("execute", deployment, **inherited)
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts["env"]["ZENML_CONFIG_PATH"] != inherited["ZENML_CONFIG_PATH"]
        assert Path(inherited["ZENML_CONFIG_PATH"]).is_dir()
    assert run.left_over() == []

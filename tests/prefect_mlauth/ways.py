"""Every way in which Prefect starts a flow, behind a login step."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.prefect_mlauth.conftest import Project, digest, zenml_login
from tests.support.accounts import Account
from tests.support.servers import ManagedProcess, PrefectServer, flow_run_logs
from tests.support.waiting import until

FLOWS = Path(__file__).parent / "flows"


def facts_of(lines: list[str]) -> dict[str, Any]:
    found = [line[6:] for line in lines if line.startswith("FACTS ")]
    return json.loads(found[-1]) if found else {}


class Script(ManagedProcess):
    """A user's script that serves flows."""

    title = "the script that serves flows"

    def __init__(
        self,
        folder: Path,
        server: PrefectServer,
        flows: Mapping[str, str],
        env: Mapping[str, str],
        login: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        paths = os.pathsep.join(filter(None, (str(FLOWS), os.environ.get("PYTHONPATH"))))
        ours = {"PYTHONPATH": paths, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        super().__init__(folder / "process", env={**env, **ours}, **options)
        self._server, self._flows, self._login = server, flows, login

    def _command(self) -> list[str]:
        login = [json.dumps(self._login)] if self._login else []
        return ["served", json.dumps(self._flows), *login]

    def _environment(self) -> dict[str, str]:
        return self._server.environment(self.folder)

    def _is_ready(self) -> bool:
        return "being served" in self.log.read_text()


def add_steps(server: PrefectServer, deployment: str, *steps: Mapping[str, Any]) -> None:
    """Give a deployment pull steps, after a step that changes to the folder of the flows."""
    found = server.request("GET", f"/deployments/name/{deployment}")
    code = {"prefect.deployments.steps.set_working_directory": {"directory": str(FLOWS)}}
    server.request("PATCH", f"/deployments/{found['id']}", {"pull_steps": [code, *steps]})


def by_run(way: str) -> Callable[[Project, Account, Account], dict[str, Any]]:
    def start(project: Project, account: Account, other: Account) -> dict[str, Any]:
        run = project.run(way, project.deploy("show", zenml_login(account)))
        assert run.result.state_type == "COMPLETED", run.text + run.output
        return run.facts

    return start


def served(project: Project, account: Account, other: Account) -> dict[str, Any]:
    name = f"{project.name}-served"
    with Script(project.folder, project.server, {name: "show"}, {}, python=project.python):
        add_steps(project.server, f"show/{name}", zenml_login(account))
        found = project.server.request("GET", f"/deployments/name/show/{name}")
        path = f"/deployments/{found['id']}/create_flow_run"
        run = project.server.request("POST", path, {})["id"]
        return until(lambda: facts_of(flow_run_logs(project.server, run)))


def deployed(project: Project, account: Account, other: Account) -> dict[str, Any]:
    name = f"{project.name}-deployed"
    project.script("deployed.py", str(project.flows), project.worker.pool, name)
    add_steps(project.server, f"show/{name}", zenml_login(account))
    run = project.run("worker", f"show/{name}")
    assert run.result.state_type == "COMPLETED", run.text + run.output
    return run.facts


def called(project: Project, account: Account, other: Account) -> dict[str, Any]:
    (login,) = zenml_login(account).values()
    return facts_of(project.script("called.py", json.dumps(login)).splitlines())


def subflow(project: Project, account: Account, other: Account) -> dict[str, Any]:
    """Under an activation as another account, which stays what it was."""
    (login,) = zenml_login(other).values()
    child = project.deploy("show", zenml_login(account))
    said = project.script("called.py", json.dumps(login), child)
    assert facts_of(said.splitlines())["env"]["ZENML_STORE_API_KEY"] == digest(other.key)
    found = re.search(r"^CHILD (\S+) Completed$", said, re.MULTILINE)
    assert found, said
    return until(lambda: facts_of(flow_run_logs(project.server, found[1])))


WAYS: dict[str, Callable[[Project, Account, Account], dict[str, Any]]] = {
    "the engine, with the id as argument": by_run("argument"),
    "the engine, with the id as variable": by_run("variable"),
    "flow-run execute": by_run("execute"),
    "a process worker": by_run("worker"),
    "serve": served,
    "from_source and deploy": deployed,
    "a plain function": called,
    "run_deployment as a subflow": subflow,
}

"""Deployments with our pull steps, run in both ways of Prefect."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.support import canaries
from tests.support.accounts import Account, new_account
from tests.support.search import search
from tests.support.servers import (
    FlowRunResult,
    PrefectServer,
    ProcessWorker,
    ZenMLServer,
    deploy,
    execute_flow_run,
    flow_run_logs,
    run_deployment,
)
from tests.support.session import untraced

WAYS = ["worker", "execute"]


@dataclass
class Run:
    """A flow run that has ended.

    Attributes:
        result: its final state.
        logs: its log lines on Prefect's server, which the UI shows.
        output: the output of its processes, as on a terminal or in a container's log.
        folder: the home and the temporary files of its processes.
        facts: the flow's report on its environment.
    """

    result: FlowRunResult
    logs: list[str]
    output: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "\n".join([*self.logs, self.result.message])

    def left_over(self) -> list[str]:
        """Return the private directories that are still there."""
        return [path.name for path in self.folder.rglob("mlauth-*") if path.is_dir()]


def digest(value: str) -> str:
    """Return the text with which a flow reports a secret, in place of its value."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


class Project:
    """A folder with flows, on the shared servers."""

    def __init__(
        self,
        folder: Path,
        server: PrefectServer,
        worker: ProcessWorker,
        python: str = sys.executable,
    ) -> None:
        self.folder, self.server, self.worker, self.python = folder, server, worker, python
        self.flows = folder / "flows"
        shutil.copytree(Path(__file__).parent / "flows", self.flows)
        # Tests in other processes have folders of the same name, on the same server.
        self.name = f"{folder.name}-{uuid.uuid4().hex[:8]}"
        self._count = 0

    def deploy(
        self, flow: str, *steps: Mapping[str, Any], name: str = "", file: str = "flows.py"
    ) -> str:
        """Deploy a flow of a file in flows/ behind pull steps and return the deployment's name.

        This uses the API, because `prefect deploy` takes seconds; `deploy_file` uses that.
        """
        name = name or self._name()
        flow_name = flow.replace("_", "-")
        deployment = {
            "name": name,
            "flow_id": self.server.request("POST", "/flows/", {"name": flow_name})["id"],
            "entrypoint": f"{file}:{flow}",
            "work_pool_name": self.worker.pool,
            "pull_steps": self._pull(steps),
            "parameter_openapi_schema": {"type": "object", "properties": {}},  # 3.3.7 wants one
        }
        self.server.request("POST", "/deployments/", deployment)
        return f"{flow_name}/{name}"

    def deploy_file(self, flow: str, *steps: Mapping[str, Any]) -> str:
        """Do the same with a prefect.yaml and `prefect deploy`."""
        name = self._name()
        entry = {
            "name": name,
            "entrypoint": f"flows.py:{flow}",
            "work_pool": {"name": self.worker.pool},
            "pull": self._pull(steps),
        }
        content = yaml.safe_dump({"name": "tests", "deployments": [entry]})
        (self.flows / "prefect.yaml").write_text(content)
        deploy(self.flows, name, self.server)
        return f"{flow.replace('_', '-')}/{name}"

    def _name(self) -> str:
        self._count += 1
        return f"{self.name}-{self._count}"

    def _pull(self, steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        code = {"directory": str(self.flows)}
        return [{"prefect.deployments.steps.set_working_directory": code}, *steps]

    def run(self, way: str, deployment: str, **env: str) -> Run:
        """Run a deployment as the process worker does, or as container work pools do."""
        # The user's own steps and log handlers are found there.
        paths = filter(None, (str(self.flows), os.environ.get("PYTHONPATH")))
        env["PYTHONPATH"] = os.pathsep.join(paths)
        if way == "worker":
            log = self.worker.log
            start = log.stat().st_size
            result = run_deployment(self.server, deployment, job_variables={"env": env})
            output = log.read_bytes()[start:].decode()
            folder = self.worker.folder
        else:
            folder = self.folder / self._name()
            (folder / "tmp").mkdir(parents=True)
            here = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
            with untraced():  # three processes that import Prefect, and ZenML
                if way == "execute":
                    done = execute_flow_run(
                        self.server, deployment, folder, {**here, **env}, python=self.python
                    )
                    result, output = done.flow_run, done.stdout + done.stderr
                else:
                    result, output = self._engine(way, deployment, folder, {**here, **env})
        run = Run(result, flow_run_logs(self.server, result.id), output, folder)
        for line in run.logs:
            if line.startswith("FACTS "):
                run.facts = json.loads(line.removeprefix("FACTS "))
        return run

    def _engine(
        self, way: str, deployment: str, folder: Path, env: Mapping[str, str]
    ) -> tuple[FlowRunResult, str]:
        """Run Prefect's engine itself; `way` says how it is given the flow run's id."""
        run_id = self.create_run(deployment)
        command = [self.python, "-m", "prefect.engine"]
        environment = {**self.server.environment(), **env}
        if way == "argument":
            command.append(run_id)
        else:
            environment["PREFECT__FLOW_RUN_ID"] = run_id
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180
        )
        return self.result(run_id), done.stdout + done.stderr

    def create_run(self, deployment: str) -> str:
        """Create a flow run that no worker takes, and return its id."""
        found = self.server.request("GET", f"/deployments/name/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        return str(self.server.request("POST", path, {"state": {"type": "PENDING"}})["id"])

    def result(self, run_id: str) -> FlowRunResult:
        """Return how a flow run ended."""
        state = self.server.request("GET", f"/flow_runs/{run_id}")["state"]
        return FlowRunResult(run_id, state["type"], state["name"], state["message"] or "")

    def script(self, file: str, *arguments: str, **env: str) -> str:
        """Run a script of flows/ with Prefect's server, and return what it printed."""
        folder = self.folder / self._name()
        with untraced():
            done = subprocess.run(
                [self.python, str(self.flows / file), *arguments],
                cwd=self.flows,
                env={**self.server.environment(folder), **env},
                capture_output=True,
                text=True,
                timeout=180,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def places_of(self, secrets: Iterable[str], run: Run) -> list[str]:
        """Search for secrets wherever a run could have left them; return the places.

        These are every table of Prefect's database (deployments, events, logs, artifacts, …), every
        file of the server, of the worker and of the run, and the run's output.
        """
        secrets = list(secrets)
        folders = {self.server.folder, self.worker.folder, run.folder, self.flows}
        return canaries.leaks(run.output + run.text, *secrets) + [
            place for folder in folders for place in search(secrets, folder).found
        ]


@pytest.fixture
def project(
    tmp_path: Path, prefect_server: PrefectServer, process_worker: ProcessWorker
) -> Project:
    return Project(tmp_path, prefect_server, process_worker)


@pytest.fixture(scope="session")
def registered_blocks(ask: Callable[..., Any], prefect_server: PrefectServer) -> str:
    """Register the blocks with the command that users type; return its output."""
    return str(ask("blocks"))


@pytest.fixture
def prefect_api(prefect_server: PrefectServer, registered_blocks: str) -> Iterator[PrefectServer]:
    """The shared server, as the one that this process talks to."""
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        yield prefect_server


def block_documents(server: PrefectServer) -> str:
    """Return every block document, in clear: in the database their rows are encrypted."""
    documents = server.request(
        "POST", "/block_documents/filter", {"include_secrets": True, "limit": 200}
    )
    assert len(documents) < 200
    return json.dumps(documents)


@pytest.fixture
def make_account(zenml_server: ZenMLServer, tmp_path: Path) -> Callable[[str], Account]:
    return lambda name: new_account(zenml_server, tmp_path, name)


@pytest.fixture
def canary() -> str:
    """A literal secret, of no shape that gives it away."""
    return f"canary{uuid.uuid4().hex}"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """`worker`: the process worker (B); `execute`: `prefect flow-run execute` (A)."""
    return request.param  # type: ignore[no-any-return]


def zenml_login(account: Account, **inputs: Any) -> dict[str, Any]:
    """Return the pull step, as prefect.yaml has it."""
    start = {"store_url": account.url, "api_key": account.reference}
    return {"prefect_mlauth.steps.zenml_login": {**start, **inputs}}


def export_secrets(**env: str) -> dict[str, Any]:
    """Return the pull step, as prefect.yaml has it."""
    return {"prefect_mlauth.steps.export_secrets": {"env": env}}

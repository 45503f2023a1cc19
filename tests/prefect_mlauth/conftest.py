"""Deployments with pull steps of ours, run in both ways in which Prefect runs them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlauth.demo.servers import (
    FlowRunResult,
    PrefectServer,
    ProcessWorker,
    ZenMLServer,
    deploy,
    execute_flow_run,
    flow_run_logs,
    run_deployment,
)
from tests.accounts import Account, new_account

WAYS = ["worker", "execute"]


@dataclass
class Run:
    """A flow run that has ended.

    Attributes:
        result: its final state.
        logs: what it logged, as Prefect's server has it.
        output: what its processes wrote, as a terminal or a container's log has it.
        facts: what the flow said of its environment.
        folder: where its processes had their home and temporary files.
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
    """What a flow says of a secret in place of its value."""
    return hashlib.sha256(value.encode()).hexdigest()[:16]


class Project:
    """A folder with flows and a prefect.yaml, on the shared servers."""

    def __init__(self, folder: Path, server: PrefectServer, worker: ProcessWorker) -> None:
        self.folder, self.server, self.worker = folder, server, worker
        shutil.copytree(Path(__file__).parent / "flows", folder / "flows")
        self._count = 0

    def deploy(self, flow: str, *steps: Mapping[str, Any]) -> str:
        """Deploy a flow of flows.py behind pull steps and return the deployment's name."""
        self._count += 1
        name = f"{self.folder.name}-{self._count}"
        code = {"directory": str(self.folder / "flows")}
        pull = [{"prefect.deployments.steps.set_working_directory": code}, *steps]
        entry = {
            "name": name,
            "entrypoint": f"flows.py:{flow}",
            "work_pool": {"name": self.worker.pool},
            "pull": pull,
        }
        (self.folder / "flows" / "prefect.yaml").write_text(
            yaml.safe_dump({"name": "tests", "deployments": [entry]})
        )
        deploy(self.folder / "flows", name, self.server)
        return f"{flow.replace('_', '-')}/{name}"

    def run(self, way: str, deployment: str, **env: str) -> Run:
        """Run a deployment as the process worker does, or as container work pools do."""
        if way == "worker":
            log = self.worker.log
            start = log.stat().st_size
            result = run_deployment(self.server, deployment, job_variables={"env": env})
            output = log.read_bytes()[start:].decode()
            folder = self.worker.folder
        else:
            self._count += 1
            folder = self.folder / f"container-{self._count}"
            (folder / "tmp").mkdir(parents=True)
            here = {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
            done = execute_flow_run(self.server, deployment, folder, {**here, **env})
            result, output = done.flow_run, done.stdout + done.stderr
        run = Run(result, flow_run_logs(self.server, result.id), output, folder)
        for line in run.logs:
            if line.startswith("FACTS "):
                run.facts = json.loads(line.removeprefix("FACTS "))
        return run


@pytest.fixture
def project(
    tmp_path: Path, prefect_server: PrefectServer, process_worker: ProcessWorker
) -> Project:
    return Project(tmp_path, prefect_server, process_worker)


@pytest.fixture
def make_account(zenml_server: ZenMLServer, tmp_path: Path) -> Callable[[str], Account]:
    return lambda name: new_account(zenml_server, tmp_path, name)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """`worker`: the process worker (B); `execute`: `prefect flow-run execute` (A)."""
    return request.param  # type: ignore[no-any-return]


def zenml_login(account: Account, **inputs: Any) -> dict[str, Any]:
    """Return the pull step, as prefect.yaml has it."""
    start = {"store_url": account.server.url, "api_key": account.reference}
    return {"prefect_mlauth.steps.zenml_login": {**start, **inputs}}

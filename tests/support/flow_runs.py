"""Deployments and flow runs on a Prefect server of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.http_server import url_part
from tests.support.prefect_server import PrefectServer
from tests.support.processes import ServerError, run, without_colours

_WORKER_DONE_TIMEOUT = 15.0  # after the run's final state; reached only when its worker was killed
_FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass(frozen=True)
class FlowRunResult:
    """How a flow run ended.

    Attributes:
        id: the flow run's id.
        state_type: `COMPLETED`, `FAILED`, `CRASHED` or `CANCELLED`.
        state_name: the state's name, which may say more.
        message: the state's message, or an empty text.
    """

    id: str
    state_type: str
    state_name: str
    message: str


class ExecutedFlowRun(subprocess.CompletedProcess[str]):
    """A `prefect flow-run execute` that has ended.

    Attributes:
        flow_run: how the flow run ended. If the command failed early, its state is not final.
    """

    def __init__(self, process: subprocess.CompletedProcess[str], flow_run: FlowRunResult) -> None:
        super().__init__(process.args, process.returncode, process.stdout, process.stderr)
        self.flow_run = flow_run


def deploy(
    directory: str | os.PathLike[str],
    name: str | None,
    server: PrefectServer,
    env: Mapping[str, str] | None = None,
    *,
    timeout: float = 120.0,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run `prefect deploy` without questions.

    Args:
        directory: the folder with `prefect.yaml`, and the working directory.
        name: the deployment's name in that file; None deploys all of them.
        server: where to.
        env: variables to add to the command's environment.
        timeout: how many seconds it may take.
        python: the interpreter that has Prefect, by default this one.

    Returns:
        The finished command with its output as text.

    Raises:
        ServerError: the command failed or was not done in time.
    """
    which = ["--all"] if name is None else ["--name", name]
    command = [python, "-m", "prefect", "--no-prompt", "deploy", *which]
    cwd = Path(directory).resolve()
    done = run(command, cwd=cwd, env=server.environment() | dict(env or {}), timeout=timeout)
    if done.returncode != 0:
        # Prefect wraps its messages to the width of a terminal, so one line says little.
        said = " ".join(without_colours(done.stderr + " " + done.stdout).split())[-300:]
        raise ServerError(
            f"prefect deploy ended with status {done.returncode} in {cwd}, its output ends: {said}"
        )
    return done


def run_deployment(
    server: PrefectServer,
    deployment: str,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 180.0,
    *,
    job_variables: Mapping[str, Any] | None = None,
) -> FlowRunResult:
    """Start a flow run that a worker picks up, and wait for the end of the run and its process.

    Args:
        server: where the deployment is.
        deployment: its name as `flow/deployment`.
        parameters: of the flow run.
        timeout: how many seconds it may take.
        job_variables: of the flow run, over the deployment's.

    Returns:
        How it ended, well or not.

    Raises:
        ServerError: there is no such deployment, or the run was not done in time.
    """
    body: dict[str, Any] = {"parameters": dict(parameters or {})}
    if job_variables is not None:
        body["job_variables"] = dict(job_variables)
    flow_run_id = _create_flow_run(server, deployment, body)
    deadline = time.monotonic() + timeout
    while (result := _flow_run(server, flow_run_id)).state_type not in _FINAL_STATES:
        if time.monotonic() >= deadline:
            raise ServerError(
                f"flow run {flow_run_id} of {deployment} was still {result.state_name} "
                f"after {timeout:g} s; see {server.flow_run_url(flow_run_id)}"
            )
        time.sleep(0.25)
    # The run's process sends its last log records after its state is final.
    deadline = min(deadline, time.monotonic() + _WORKER_DONE_TIMEOUT)
    while not _worker_is_done(server, flow_run_id) and time.monotonic() < deadline:
        time.sleep(0.25)
    return result


def execute_flow_run(
    server: PrefectServer,
    deployment: str,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float = 180.0,
    python: str = sys.executable,
) -> ExecutedFlowRun:
    """Run a flow run of a deployment as the container work pools do, by `flow-run execute`.

    Args:
        server: where the deployment is.
        deployment: its name as `flow/deployment`.
        cwd: the working directory, as an image would have one.
        env: variables to add to the command's environment; `PREFECT__FLOW_RUN_ID` is not taken.
        parameters: of the flow run.
        timeout: how many seconds it may take.
        python: the interpreter that has Prefect, by default this one.

    Returns:
        The finished command with its output as text, and how the flow run ended.

    Raises:
        ServerError: there is no such deployment, or the command was not done in time.
    """
    # Pending, as a worker leaves it for its container: no worker of the pool takes it.
    body = {"parameters": dict(parameters or {}), "state": {"type": "PENDING"}}
    flow_run_id = _create_flow_run(server, deployment, body)
    environment = server.environment() | dict(env or {})
    environment.pop("PREFECT__FLOW_RUN_ID", None)
    command = [python, "-m", "prefect", "flow-run", "execute", flow_run_id]
    done = run(command, cwd=Path(cwd).resolve(), env=environment, timeout=timeout)
    return ExecutedFlowRun(done, _flow_run(server, flow_run_id))


def flow_run_logs(server: PrefectServer, flow_run_id: str) -> list[str]:
    """What a flow run has logged so far.

    Args:
        server: where the run is.
        flow_run_id: the run's id.

    Returns:
        The messages in their order, without times and levels.

    Raises:
        ServerError: the server refused.
    """
    messages: list[str] = []
    while True:
        body = {
            "logs": {"flow_run_id": {"any_": [flow_run_id]}},
            "sort": "TIMESTAMP_ASC",
            "limit": 200,
            "offset": len(messages),
        }
        page = server.request("POST", "/logs/filter", body)
        messages += [entry["message"] for entry in page]
        if len(page) < 200:
            return messages


def _create_flow_run(server: PrefectServer, deployment: str, body: Mapping[str, Any]) -> str:
    flow, _, name = deployment.partition("/")
    found = server.request("GET", f"/deployments/name/{url_part(flow)}/{url_part(name)}")
    path = f"/deployments/{found['id']}/create_flow_run"
    return str(server.request("POST", path, body)["id"])


def _worker_is_done(server: PrefectServer, flow_run_id: str) -> bool:
    """Whether a worker has said that the process of a flow run ended; then its logs are stored."""
    body = {
        "filter": {
            "event": {"name": ["prefect.worker.executed-flow-run"]},
            "related": {"id": [f"prefect.flow-run.{flow_run_id}"]},
        },
        "limit": 1,
    }
    return bool(server.request("POST", "/events/filter", body)["events"])


def _flow_run(server: PrefectServer, flow_run_id: str) -> FlowRunResult:
    run = server.request("GET", f"/flow_runs/{flow_run_id}")
    state = run["state"] or {}
    return FlowRunResult(
        id=str(run["id"]),
        state_type=state.get("type") or "",
        state_name=state.get("name") or "",
        message=state.get("message") or "",
    )

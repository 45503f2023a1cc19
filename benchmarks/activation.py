"""Measures an activation, and compares it with the least possible work and with today's ways.

Real servers run on this machine. Each figure is from a process of its own. The variants take turns
(A B C A B C …), so that changes in the machine's speed are fair to all. Figures are the median
(least to most).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from rich.console import Console

from benchmarks.measuring import (
    ACCOUNT,
    MEMORY_EPILOGUE,
    PRELUDE,
    Figures,
    measured,
    path,
    table,
)
from tests.support.environment import child_environment
from tests.support.servers import PrefectServer, ProcessWorker, ZenMLServer, deploy, running

LOGIN = ("POST", "/api/v1/login")
ARGUMENTS = "url, reference, file = sys.argv[1:]\n"
STEPS = {
    "floor: httpx, login + current-user": """
import httpx
with httpx.Client(base_url=url) as client:
    form = {"grant_type": "zenml-api-key", "password": open(file).read()}
    token = client.post("/api/v1/login", data=form).json()["access_token"]
    client.get("/api/v1/current-user", headers={"Authorization": f"Bearer {token}"})
""",
    "zenml_login, verify=False": """
from prefect_mlauth.steps import zenml_login
zenml_login(url, reference, verify=False)
""",
    "zenml_login": """
from prefect_mlauth.steps import zenml_login
zenml_login(url, reference)
""",
    "zenml_login, api_token": """
from prefect_mlauth.steps import zenml_login
zenml_login(url, reference, credential="api_token")
""",
    "run_shell_script: zenml status": """
os.environ |= {"ZENML_STORE_URL": url, "ZENML_STORE_API_KEY": open(file).read()}
asyncio.run(run_shell_script("zenml status", stream_output=False))
""",
    "ZenML's Client().active_user": """
os.environ |= {"ZENML_STORE_URL": url, "ZENML_STORE_API_KEY": open(file).read()}
from zenml.client import Client
Client().active_user
""",
}
FLOWS = """
from prefect import flow

@flow
def plain():
    pass

@flow
def client():
    from zenml.client import Client
    Client().active_user
"""


def logins(zenml: ZenMLServer) -> Counter[str]:
    """Count the logins so far, the most expensive requests for the server."""
    return Counter({"logins": zenml.requests()[LOGIN]})


def steps_alone(zenml: ZenMLServer, file: Path, folder: Path, runs: int) -> dict[str, Figures]:
    figures = {name: Figures() for name in STEPS}
    for _ in range(runs):
        for name, code in STEPS.items():
            home = Path(tempfile.mkdtemp(dir=folder))
            env = child_environment(home, {"PATH": path()})
            arguments = [zenml.url, f"file://{file}", str(file)]
            command = [
                sys.executable,
                "-c",
                PRELUDE + ARGUMENTS + code + MEMORY_EPILOGUE,
                *arguments,
            ]
            measured(command, env, lambda: logins(zenml), figures[name])
    return figures


def flow_runs(
    zenml: ZenMLServer, prefect: PrefectServer, pool: str, file: Path, folder: Path, runs: int
) -> dict[str, Figures]:
    login = {"store_url": zenml.url, "api_key": f"file://{file}"}
    step = "prefect_mlauth.steps.zenml_login"
    shell = {"script": "zenml status", "stream_output": False}
    shell["env"] = {"ZENML_STORE_URL": zenml.url, "ZENML_STORE_API_KEY": "{{ $ZENML_KEY }}"}
    variants: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "no step": ("plain", []),
        "zenml_login": ("plain", [{step: login}]),
        "run_shell_script: zenml status": (
            "plain",
            [{"prefect.deployments.steps.run_shell_script": shell}],
        ),
        "zenml_login, the flow uses Client()": ("client", [{step: login}]),
        "zenml_login api_token, the flow uses Client()": (
            "client",
            [{step: {**login, "credential": "api_token"}}],
        ),
    }
    code = folder / "flows"
    code.mkdir()
    (code / "flows.py").write_text(FLOWS)
    directory = {"prefect.deployments.steps.set_working_directory": {"directory": str(code)}}
    entries = [
        {
            "name": str(number),
            "entrypoint": f"flows.py:{flow}",
            "work_pool": {"name": pool},
            "pull": [directory, *pull],
        }
        for number, (flow, pull) in enumerate(variants.values())
    ]
    (code / "prefect.yaml").write_text(yaml.safe_dump({"name": "bench", "deployments": entries}))
    deploy(code, None, prefect)
    figures = {name: Figures() for name in variants}
    for _ in range(runs):
        for number, (name, (flow, _steps)) in enumerate(variants.items()):
            found = prefect.request("GET", f"/deployments/name/{flow}/{number}")
            run = prefect.request(
                "POST",
                f"/deployments/{found['id']}/create_flow_run",
                {"state": {"type": "PENDING"}},
            )["id"]
            home = Path(tempfile.mkdtemp(dir=folder))
            env = {**prefect.environment(home), "PREFECT__FLOW_RUN_ID": run}
            env |= {"ZENML_KEY": file.read_text(), "PATH": path()}
            command = [sys.executable, "-c", ACCOUNT, sys.executable, "-m", "prefect.engine", run]
            measured(command, env, lambda: logins(zenml), figures[name])
    return figures


def import_time(folder: Path, runs: int) -> str:
    code = (
        "import prefect.deployments.steps.core, time; start = time.perf_counter()\n"
        "import prefect_mlauth.steps; print(time.perf_counter() - start)"
    )
    env = child_environment(folder)
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], env=env)) for _ in range(runs)
    ]
    return f"{median(times) * 1000:.0f} ms ({min(times) * 1000:.0f} to {max(times) * 1000:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="of each variant (default 7)")
    runs = parser.parse_args().runs
    console = Console(width=120)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("prefect", "zenml"))
    console.print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="mlauth-bench-") as name:
        folder = Path(name)
        zenml, prefect = ZenMLServer(folder / "zenml"), PrefectServer(folder / "prefect", ui=False)
        with running(zenml, prefect), ProcessWorker(folder / "worker", prefect) as worker:
            pool = worker.pool
            worker.stop()  # it has made the pool, and the benchmark starts its own processes
            account = zenml.create_service_account("bench")
            _, key = zenml.create_api_key(account, "bench")
            file = folder / "api-key"
            file.touch(0o600)
            file.write_text(key.get_secret_value())
            alone = steps_alone(zenml, file, folder, runs)
            console.print(table("The step alone, after Prefect was imported", alone))
            floor = alone["floor: httpx, login + current-user"]
            login = alone["zenml_login"]
            console.print(
                "zenml_login over the floor: "
                f"{(median(login.wall) - median(floor.wall)) * 1000:.0f} ms wall, "
                f"{(median(login.cpu) - median(floor.cpu)) * 1000:.0f} ms CPU"
            )
            console.print(
                f"import prefect_mlauth.steps over Prefect: {import_time(folder, runs)}\n"
            )
            whole = flow_runs(zenml, prefect, pool, file, folder, runs)
            console.print(table("A flow run, as a whole process", whole))


if __name__ == "__main__":
    main()

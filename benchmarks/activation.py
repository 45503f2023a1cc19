"""What an activation costs: against the least that can be done, and against what people do today.

Real servers on this machine. Every figure is of a process of its own, the variants in turn
(A B C A B C …), so that a machine whose speed drifts is fair to all; median (least to most).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

import yaml
from rich.console import Console
from rich.table import Table

from mlauth.demo.servers import PrefectServer, ProcessWorker, ZenMLServer, deploy, running

LOGIN = ("POST", "/api/v1/login")

# Prefect is imported before the clock starts: in a flow run it always is.
PRELUDE = """
import asyncio, os, resource, sys, time
import prefect.deployments.steps.core
from prefect.deployments.steps import run_shell_script
def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)
url, reference, file = sys.argv[1:]
cpu, wall = used(), time.perf_counter()
"""
EPILOGUE = """
wall, cpu = time.perf_counter() - wall, used() - cpu
print("COST", wall, cpu)
"""
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


@dataclass
class Figures:
    """What the runs of one variant cost."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    logins: list[int] = field(default_factory=list)

    def row(self) -> list[str]:
        return [
            *(
                f"{median(each) * 1000:,.0f} ({min(each) * 1000:,.0f} to {max(each) * 1000:,.0f})"
                for each in (self.wall, self.cpu)
            ),
            f"{median(self.memory):,.0f}",
            "/".join(str(number) for number in sorted(set(self.logins))),
        ]


def measured(
    command: list[str], env: Mapping[str, str], logins: Callable[[], int], figures: Figures
) -> None:
    """Run a command; a line `COST wall cpu` of its own counts instead of the whole process."""
    before, start = logins(), time.perf_counter()
    process = subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = process.communicate()
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{output}{errors}")
    cost = next((line.split()[1:] for line in output.splitlines() if line[:5] == "COST "), None)
    if cost is None:
        raise SystemExit(f"no figures from {' '.join(command)[:200]}:\n{output}{errors}")
    figures.wall.append(float(cost[0]) if cost[0] != "-" else wall)
    figures.cpu.append(float(cost[1]))
    figures.memory.append(float(cost[2]) / 1024 if len(cost) > 2 else 0)
    figures.logins.append(logins() - before)


# Runs a command and prints the operating system's account of it and of all that it waited for.
ACCOUNT = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("COST", "-", usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def table(title: str, rows: Mapping[str, Figures], *, memory: bool = True) -> Table:
    result = Table(title=title, title_justify="left")
    result.add_column("what", no_wrap=True)
    names = ["wall ms", "client CPU ms", "peak MiB", "logins"]
    shown = [index for index in range(4) if memory or index != 2]
    for index in shown:
        result.add_column(names[index], justify="right", no_wrap=True)
    for name, figures in rows.items():
        row = figures.row()
        result.add_row(name, *(row[index] for index in shown))
    return result


def steps_alone(zenml: ZenMLServer, file: Path, folder: Path, runs: int) -> dict[str, Figures]:
    figures = {name: Figures() for name in STEPS}
    memory = (
        "print('COST', wall, cpu, max(resource.getrusage(who).ru_maxrss for who in "
        "(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
    )
    epilogue = EPILOGUE.replace('print("COST", wall, cpu)', memory)
    for _ in range(runs):
        for name, code in STEPS.items():
            home = Path(tempfile.mkdtemp(dir=folder))
            env = {**clean(), "HOME": str(home), "TMPDIR": str(home)}
            arguments = [zenml.url, f"file://{file}", str(file)]
            command = [sys.executable, "-c", PRELUDE + code + epilogue, *arguments]
            measured(command, env, lambda: zenml.requests()[LOGIN], figures[name])
    return figures


def flow_runs(
    zenml: ZenMLServer, prefect: PrefectServer, pool: str, file: Path, folder: Path, runs: int
) -> dict[str, Figures]:
    login = {"store_url": zenml.url, "api_key": f"file://{file}"}
    step = "prefect_mlauth.steps.zenml_login"
    shell = {"script": "zenml status", "stream_output": False}
    shell["env"] = {"ZENML_STORE_URL": zenml.url, "ZENML_STORE_API_KEY": "{{ $ZENML_KEY }}"}
    variants = {
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
            measured(command, env, lambda: zenml.requests()[LOGIN], figures[name])
    return figures


def import_time(runs: int) -> str:
    code = (
        "import prefect.deployments.steps.core, time; start = time.perf_counter()\n"
        "import prefect_mlauth.steps; print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], env=clean()))
        for _ in range(runs)
    ]
    return f"{median(times) * 1000:.0f} ms ({min(times) * 1000:.0f} to {max(times) * 1000:.0f})"


def clean() -> dict[str, str]:
    """This environment without what would change what is measured."""
    prefixes = ("ZENML_", "PREFECT_", "MLAUTH_", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**kept, "ZENML_ANALYTICS_OPT_IN": "false", "DO_NOT_TRACK": "1", "PATH": path()}


def path() -> str:
    """The search path, with the programs of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


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
            worker.stop()  # it has made the pool; what is measured are processes of our own
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
            console.print(f"import prefect_mlauth.steps over Prefect: {import_time(runs)}\n")
            whole = flow_runs(zenml, prefect, pool, file, folder, runs)
            console.print(table("A flow run, as a whole process", whole))


if __name__ == "__main__":
    main()

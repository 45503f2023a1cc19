"""`mlauth demo`: a real Prefect deployment runs a real ZenML pipeline as its service account."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from mlauth.checking import check
from mlauth.checks import Status
from mlauth.cli import print_stages
from mlauth.credentials.zenml import ZenMLCredentials
from mlauth.demo.search import search
from mlauth.demo.servers import (
    FlowRunResult,
    PrefectServer,
    ProcessWorker,
    ZenMLServer,
    deploy,
    flow_run_logs,
    run_deployment,
    running,
)
from mlauth.errors import CheckFailed, MLAuthError

_ACCOUNT = "prefect-prod"
_NEEDED = {"prefect": "prefect", "zenml": "zenml", "uvicorn": "zenml[server]", "sklearn": "sklearn"}

console = Console(highlight=False)


class DemoFailed(MLAuthError):
    """The demo did not show what it should; the line says what."""


def run_demo(*, keep: bool) -> None:
    """Run the demo and print what a person wants to see.

    Args:
        keep: leave the servers up until Ctrl-C.

    Raises:
        MLAuthError: something is missing, failed, or the key was found where it must not be.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise DemoFailed(
            f"the demo needs {', '.join(missing)}: pip install 'mlauth[demo]', or `make demo`"
        )
    folder = Path(tempfile.mkdtemp(prefix="mlauth-demo-"))
    try:
        with ExitStack() as stack:
            _run(folder, stack)
            if keep:
                console.print("\nThe servers stay up: Ctrl-C ends them and removes everything.")
                _wait_for_interrupt()
    except KeyboardInterrupt as stop:  # Ctrl-C, or the launchers' Terminated
        console.print("\nStopped; everything was removed.")
        raise SystemExit(128 + getattr(stop, "signum", signal.SIGINT)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, stack: ExitStack) -> None:
    with _progress("a ZenML server and a Prefect server start"):
        zenml = ZenMLServer(folder / "zenml")
        prefect = PrefectServer(folder / "prefect")
        stack.enter_context(running(zenml, prefect))
    with _progress("a Prefect worker starts"):
        stack.enter_context(ProcessWorker(folder / "worker", prefect, pool="process-pool"))
    with _progress(f"service account {_ACCOUNT!r} gets an API key, kept in a file (mode 0600)"):
        account = zenml.create_service_account(_ACCOUNT)
        _, key = zenml.create_api_key(account, "demo")
        store = folder / "secrets" / "api-key"
        store.parent.mkdir(mode=0o700)
        with open(os.open(store, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(key.get_secret_value())
    console.print(f"    ZenML   {zenml.url}\n    Prefect {prefect.ui_url}")
    _show_check(zenml.url, f"file://{store}")
    with _progress("prefect deploy"):
        deploy(_deployment(folder, zenml.url, store), "prod", prefect)
    with _progress("the worker runs the flow, the flow runs the pipeline"):
        run = run_deployment(prefect, "train-model/prod")
    _show_run(run, prefect, zenml)
    _show_search(folder, store, key.get_secret_value())


@contextmanager
def _progress(what: str) -> Iterator[None]:
    start = time.monotonic()
    with console.status(f"{what} …"):
        yield
    taken = time.monotonic() - start
    console.print(f"[green]✓[/] {what} [dim]({taken:.1f} s)[/]", soft_wrap=True)


def _show_check(url: str, reference: str) -> None:
    credentials = ZenMLCredentials.of(
        "the demo", {"store_url": url, "api_key": reference, "service_account": _ACCOUNT}
    )
    console.print("\n[bold]mlauth check[/]")
    report = check(credentials)
    print_stages(report)
    if report.status is not Status.PASSED:
        raise CheckFailed(report)


def _deployment(folder: Path, url: str, store: Path) -> Path:
    """Copy the example and edit what its reader would: where server, key and code are."""
    copy = folder / "zenml-on-prefect"
    shutil.copytree(_example(), copy)
    file = copy / "prefect.yaml"
    text = file.read_text(encoding="utf-8")
    for theirs, ours in (
        ("https://zenml.example.com", url),
        ("/run/secrets/zenml/api-key", str(store)),
        ("/opt/flows/zenml-on-prefect", str(copy)),
    ):
        if theirs not in text:
            raise DemoFailed(f"the example's prefect.yaml has no {theirs} to replace")
        text = text.replace(theirs, ours)
    file.write_text(text, encoding="utf-8")
    return copy


def _example() -> Path:
    here = Path(__file__).parent
    packaged = here / "deployments" / "zenml-on-prefect"
    return packaged if packaged.is_dir() else here.parents[1] / "deployments" / "zenml-on-prefect"


def _show_run(run: FlowRunResult, prefect: PrefectServer, zenml: ZenMLServer) -> None:
    logs = flow_run_logs(prefect, run.id)
    if run.state_type != "COMPLETED":
        raise DemoFailed(f"the flow run ended as {run.state_name}; its log: {' | '.join(logs)}")
    pipeline_run = _latest_pipeline_run(zenml)
    link = f"{zenml.url}/projects/default/runs/{pipeline_run['id']}"
    console.print("\n[bold]what ran[/]")
    for name, value in {
        "flow run": f"{run.state_name}  {prefect.flow_run_url(run.id)}",
        "pipeline run": f"{pipeline_run['body']['status']}  {link}",
        "ran as": f"{pipeline_run['resources']['user']['name']}, says the ZenML server",
        "model": next((line for line in logs if line.startswith("accuracy")), "no score"),
    }.items():
        console.print(f"  {name:13} {value}", soft_wrap=True)


def _latest_pipeline_run(zenml: ZenMLServer) -> dict[str, Any]:
    answer = httpx.get(
        f"{zenml.url}/api/v1/runs",
        params={"size": 1, "sort_by": "desc:created", "hydrate": "true"},
        headers={"Authorization": f"Bearer {zenml.admin_token().get_secret_value()}"},
        trust_env=False,
    )
    items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
    if not items:
        raise DemoFailed("the ZenML server knows of no pipeline run")
    return items[0]


def _show_search(folder: Path, store: Path, key: str) -> None:
    with _progress("search for the key, plain, base64, URL-encoded and JSON-escaped"):
        result = search([key], folder)
    elsewhere = [place for place in result.found if place != str(store)]
    if str(store) not in result.found:
        raise DemoFailed("the search did not even find the key in its store: do not trust it")
    console.print("\n[bold]where the key is now[/]")
    console.print(
        f"  looked through {result.files:,} files: logs, configuration, and "
        f"{result.databases} databases with {result.rows:,} rows"
    )
    others = ", ".join(elsewhere) or "nowhere else"
    console.print(f"  found in its store ({store}) and {others}", soft_wrap=True)
    if elsewhere:
        raise DemoFailed(f"the key was left in {', '.join(elsewhere)}")


def _wait_for_interrupt() -> None:
    if hasattr(signal, "pause"):
        signal.pause()
    else:
        while True:
            time.sleep(3600)

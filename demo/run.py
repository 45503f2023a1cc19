"""`make demo`: a real Prefect deployment runs a real ZenML pipeline as its service account."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console

from mlauth.checking import check
from mlauth.cli import print_stages
from mlauth.errors import CheckFailed, MLAuthError
from mlauth.report import Status
from mlauth.signals import uninterrupted
from mlauth.systems.zenml import API_TOKEN, URL, ZenMLCredentials
from mlauth.systems.zenml.isolation import NO_DISK
from tests.support.environment import child_environment
from tests.support.processes import run as run_command
from tests.support.processes import without_colours
from tests.support.search import search
from tests.support.servers import (
    FlowRunResult,
    PrefectServer,
    ProcessWorker,
    Terminated,
    ZenMLServer,
    deploy,
    flow_run_logs,
    run_deployment,
    running,
)
from tests.support.signals import unwatch_signals, watch_signals

_ACCOUNT = "prefect-prod"

console = Console(highlight=False)


class DemoFailed(MLAuthError):
    """The demo went wrong; the line says how."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave the servers up until Ctrl-C.")
def main(keep: bool) -> None:
    """Run a ZenML pipeline from a Prefect deployment, on real servers of its own."""
    try:
        run_demo(keep=keep)
    except MLAuthError as error:
        raise click.ClickException(str(error)) from None


def run_demo(*, keep: bool) -> None:
    """Run the demo, and print its results for people.

    Args:
        keep: leave the servers up until Ctrl-C.

    Raises:
        MLAuthError: something failed, or the key was found where it must not be.
    """
    try:
        with _folder() as folder, ExitStack() as stack:
            _run(folder, stack)
            if keep:
                console.print("\nThe servers stay up: Ctrl-C ends them and removes everything.")
                _wait_for_interrupt()
    except KeyboardInterrupt as stop:  # Ctrl-C, or the launchers' Terminated
        console.print("\nStopped; everything was removed.")
        raise SystemExit(128 + getattr(stop, "signum", signal.SIGINT)) from None


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a temporary folder, and remove it at the end, also after a signal."""
    watch_signals()
    folder = Path(tempfile.mkdtemp(prefix="mlauth-demo-"))
    try:
        yield folder
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)
        unwatch_signals()
        if folder.exists():
            raise DemoFailed(f"{folder} could not be removed, and the demo's key is in it")


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
    example = _deployment(folder, zenml.url, store)
    with _progress("a stack is registered on which only pipelines of that account start"):
        register_stack(zenml, example, _ACCOUNT)
    with _progress("prefect deploy"):
        deploy(example, "prod", prefect)
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
    """Copy the example, and set the places of server, key and code, as a reader would."""
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


def register_stack(
    zenml: ZenMLServer, example: Path, account: str, *, python: str = sys.executable
) -> None:
    """Run the example's `register_stack.py` as the server's administrator.

    Args:
        zenml: the server that gets the stack.
        example: the folder with the script.
        account: the service account whose pipelines may start.
        python: an interpreter with ZenML and mlauth, by default this one.

    Raises:
        DemoFailed: the script failed.
    """
    environment = child_environment(
        zenml.folder / "client",
        {
            URL: zenml.url,
            API_TOKEN: zenml.admin_token().get_secret_value(),
            NO_DISK: "true",
        },
    )
    command = [python, "register_stack.py", account]
    done = run_command(command, cwd=example, env=environment, timeout=120)
    if done.returncode != 0:
        (*_, line) = ["no message", *without_colours(done.stderr).strip().splitlines()]
        raise DemoFailed(f"register_stack.py failed: {line}")


def _example() -> Path:
    return Path(__file__).parents[1] / "deployments" / "zenml-on-prefect"


def _show_run(run: FlowRunResult, prefect: PrefectServer, zenml: ZenMLServer) -> None:
    logs = flow_run_logs(prefect, run.id)
    if run.state_type != "COMPLETED":
        raise DemoFailed(f"the flow run ended as {run.state_name}; its log: {' | '.join(logs)}")
    newest = zenml.request("GET", "/runs?size=1&sort_by=desc:created&hydrate=true")["items"]
    if not newest:
        raise DemoFailed("the ZenML server knows of no pipeline run")
    (pipeline_run,) = newest
    account = pipeline_run["resources"]["user"]["name"]
    link = f"{zenml.url}/projects/default/runs/{pipeline_run['id']}"
    console.print("\n[bold]what ran[/]")
    for name, value in {
        "flow run": f"{run.state_name}  {prefect.flow_run_url(run.id)}",
        "pipeline run": f"{pipeline_run['body']['status']}  {link}",
        "ran as": f"{account} (the ZenML server says so)",
        "model": next((line for line in logs if line.startswith("accuracy")), "no score"),
    }.items():
        console.print(f"  {name:13} {value}", soft_wrap=True)
    _show_written(pipeline_run["metadata"]["run_metadata"].get("service_account_check"))
    if account != _ACCOUNT:
        raise DemoFailed(f"the pipeline ran as {account!r}, not as {_ACCOUNT!r}")


def _show_written(written: dict[str, str] | None) -> None:
    if written is None or written.get("status") != "passed":
        raise DemoFailed("the stack's component did not write a check that passed into the run")
    console.print("\n[bold]what the stack's component wrote into the pipeline run[/]")
    for name, value in sorted(written.items()):
        console.print(f"  {name:24} {value}", soft_wrap=True)


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
    try:
        while True:
            time.sleep(3600)
    except Terminated:
        raise
    except KeyboardInterrupt:  # with --keep, Ctrl-C is the normal end
        console.print()


if __name__ == "__main__":
    main()

"""Whatever a ZenML server does, and however it is asked, no output holds a secret."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
import trustme
from click.testing import CliRunner

import mlauth
import zenml_mlauth
from mlauth import ZenMLCredentials
from mlauth.cli import main
from prefect_mlauth import MLAuthProfile, steps
from prefect_mlauth import ZenMLCredentials as Block
from tests.leaks.making import Here
from tests.leaks.watching import Watch, said, watching
from tests.support.azure import Azure
from tests.support.canaries import leaks
from tests.support.faults import FaultyServer, Reply, faulty, reset, silent
from tests.support.zenml_client import forget_client
from zenml_mlauth import connection

pytestmark = pytest.mark.load


@pytest.fixture
def here(
    tmp_path: Path, azure: Azure, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> Iterator[Here]:
    monkeypatch.setattr(connection, "_passed", {})
    monkeypatch.setattr(connection, "_warned", {})
    put_back = forget_client()
    with ExitStack() as stack:
        yield Here(tmp_path, azure, monkeypatch, stack)
    put_back()


@pytest.fixture
def watch(here: Here, capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    with watching(capfd) as watch:
        yield watch


def command(*arguments: str) -> str:
    """Run a command of mlauth, and return its output."""
    result = CliRunner().invoke(main, arguments)
    return result.output + (said(result.exception) if result.exception else "")


def execute(*arguments: str) -> str:
    """Run `mlauth exec` in a process of its own, which it may replace, with every logger on."""
    loud = "import logging; logging.basicConfig(level=0); from mlauth.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", loud, "exec", *arguments, "--", "printenv", "ZENML_STORE_URL"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert "DEBUG:" in run.stderr
    return run.stdout + run.stderr


def component(here: Here, url: str, timeout: float) -> Any:
    """The check of the ZenML component, over ZenML's own client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZENML_STORE_URL", url)
        patch.setenv("ZENML_STORE_API_TOKEN", here.token)
        patch.setenv("ZENML_STORE_HTTP_TIMEOUT", "1")
        put_back = forget_client()
        try:
            return zenml_mlauth.check(timeout=timeout)
        finally:
            put_back()


def within(activating: Any) -> Any:
    with activating as active:
        return active


def ways(here: Here, url: str, timeout: float) -> dict[str, Callable[[], Any]]:
    """Return every way to ask a ZenML server."""
    fields = here.zenml(url)
    config = here.config(url)
    here.patch.setenv("MLAUTH_TIMEOUT", str(timeout))
    return {
        "check": lambda: mlauth.check(ZenMLCredentials.of("test", fields), timeout=timeout),
        "activate": lambda: within(
            mlauth.activate(ZenMLCredentials.of("test", fields), timeout=timeout)
        ),
        "zenml_login": lambda: steps.zenml_login(**fields, timeout=timeout),
        "activate_profile": lambda: steps.activate_profile("p", config=config, timeout=timeout),
        "mlauth check": lambda: command("check", "--json", "-p", "p", "-f", config),
        "mlauth exec": lambda: execute("-p", "p", "-f", config),
        "block check": lambda: Block(**fields, timeout=timeout).check(),
        "block login": lambda: within(Block(**fields, timeout=timeout).login()),
        "block activate": lambda: within(
            MLAuthProfile(content={"zenml": fields}, timeout=timeout).activate()
        ),
        "component": lambda: component(here, url, timeout),
    }


def sending_back(status: int, kind: str = "application/json") -> Reply:
    """Echo every credential of the requests, wherever an answer has room for it."""

    def reply(connection: Any, server: FaultyServer) -> None:
        sent = unquote_plus(server.requests[-1].decode())
        found = re.search(r"Bearer (\S+)|password=(\S+)", sent)
        value = found[1] or found[2] if found else "nothing"
        body = f'{{"detail": ["CredentialsNotValid", "{value}"], "version": 3}}'
        if kind == "text/html":
            body = f"<html><title>Log in</title>{value}</html>"
        lines = [
            f"HTTP/1.1 {status} {value}",
            f"Content-Type: {kind}; said={value}",
            f"Location: https://elsewhere.example.com/{value}?key={value}",
            f"Set-Cookie: session={value}",
            f'WWW-Authenticate: Bearer realm="{value}"',
            "Retry-After: 0",
            "Connection: close",
            f"Content-Length: {len(body)}",
        ]
        connection.sendall("\r\n".join([*lines, "", body]).encode())

    return reply


LOGIN, ACCOUNT = 1, 2
FAULTS: dict[str, tuple[int, Reply]] = {
    "401 to the login": (LOGIN, sending_back(401)),
    "401 to the token": (ACCOUNT, sending_back(401)),
    "403": (ACCOUNT, sending_back(403)),
    "404": (LOGIN, sending_back(404)),
    "429": (LOGIN, sending_back(429)),
    "500": (ACCOUNT, sending_back(500)),
    "redirect": (LOGIN, sending_back(307)),
    "HTML": (LOGIN, sending_back(200, "text/html")),
    "HTML to the token": (ACCOUNT, sending_back(200, "text/html")),
    "wrong shape": (LOGIN, sending_back(200)),
    "silent": (LOGIN, silent),
    "reset": (ACCOUNT, reset),
}


# In a process of its own, and otherwise the same as `activate`; it takes a second.
SLOW = "mlauth exec"
SOME = {"check", "zenml_login", "mlauth check", "block login", "component"}


def asked(here: Here, watch: Watch, url: str, timeout: float, *names: str) -> str:
    for name, call in ways(here, url, timeout).items():
        if not names or name in names:
            watch.outcome(call)
    return watch.text()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_server_is_told_without_a_value(
    fault: str, here: Here, watch: Watch
) -> None:
    stage, reply = FAULTS[fault]
    for name in ways(here, "", 0.5):
        if name == SLOW and "login" not in fault:
            continue
        with faulty(*[here.good()] * stage, reply) as server:
            watch.outcome(ways(here, server.url, 0.5)[name])
    said = watch.text()
    for logger in ("httpcore.connection: ", "zenml.", "urllib3.connectionpool: "):
        assert logger in said  # the loggers are not silent
    assert leaks(said, *here.values) == []


def test_a_success_is_told_without_a_value(here: Here, watch: Watch) -> None:
    with here.server() as server:
        said = asked(here, watch, server.url, 20)
        assert not watch.raised
    assert f"{server.url}\n" in said  # the command that `mlauth exec` ran
    assert leaks(said, *here.values) == []


def test_tls_and_dns_faults_are_told_without_a_value(here: Here, watch: Watch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with faulty(here.good(), tls=context) as server:
        said = asked(here, watch, server.url, 2, *SOME)
        assert "CA that is not trusted here" in said
        said += asked(here, watch, server.url.replace("https", "http"), 0.5, *SOME)
    said += asked(here, watch, "https://no-such-host.invalid", 0.5, *SOME)
    assert "no-such-host.invalid" in said
    assert leaks(said, *here.values) == []


def test_a_key_that_is_none_is_told_without_a_value(here: Here, watch: Watch) -> None:
    said = ""
    with here.server() as server:
        for wrong in (here.key[:-7], f" {here.key}", here.other, here.token, f'"{here.key}"'):
            (here.folder / "key").write_text(wrong)
            here.values += [wrong, wrong.strip()]
            said += asked(here, watch, server.url, 5, *SOME - {"component"})
    assert said.count("zenml") > 20
    assert leaks(said, *here.values) == []

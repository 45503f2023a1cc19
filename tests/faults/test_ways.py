"""The command line and an activation pass on the faults of every part.

tests/zenml_mlauth/test_faults.py tests the same for ZenML's component, and
tests/prefect_mlauth/test_failures.py for a step.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlauth
from mlauth.cli import main
from mlauth.errors import (
    CheckFailed,
    InvalidProfile,
    MLAuthError,
    SecretNotFound,
    StoreUnavailable,
)
from mlauth.stores import memory
from tests.faults.tables import Row
from tests.faults.test_profiles import SECTIONS
from tests.support.faults import FaultyServer, Reply, answer, drip, faulty
from tests.support.zenml_keys import api_key

KEY = api_key("canary-key")
TOO_LATE = Row(
    "no whole answer",
    "unknown",
    "URL: no answer within N s: is a firewall or proxy in the way? a busy service needs a longer "
    "timeout",
)
RIGHT = answer(200)
ZENML = '[profiles.p.zenml]\nstore_url = "URL"\napi_key = "memory://key"\n'


def hang_up(connection: socket.socket, server: FaultyServer) -> None:
    """Close the connection, and say nothing."""


@dataclass(frozen=True)
class Case:
    """A fault, and how the command line and an activation end with it.

    Attributes:
        code: the exit code of `mlauth check`.
        line: the line.
        raised: the error of an activation; None if it goes on with a warning.
        reply: the answer of the server, which the line and the file call URL or HOST.
        profile: the file.
        seconds: the time limit.
    """

    code: int
    line: str
    raised: type[MLAuthError] | None
    reply: Reply = RIGHT
    profile: str = ZENML
    seconds: int = 30


CASES = {
    "a system's, failed": Case(
        1,
        "zenml, reachable: URL/api/v1/info answers with more than 1 MiB: is it another service's "
        "URL?",
        CheckFailed,
        answer(200, b" " * (1024 * 1024 + 1)),
    ),
    "a system's, unknown": Case(
        3,
        "zenml, reachable: URL/api/v1/info has a fault (HTTP 501); the credential may be fine: try "
        "again later",
        None,
        answer(501),
    ),
    "a service's that drips": Case(3, f"zenml, reachable: {TOO_LATE.line}", None, drip, seconds=3),
    "a store's, failed": Case(
        1,
        "env, resolved: file:///nowhere cannot be read: there is no such file; is the secret "
        "mounted?",
        SecretNotFound,
        profile='[profiles.p.env]\nTOKEN = "file:///nowhere"',
    ),
    "a store's, unknown": Case(
        3,
        "env, resolved: azurekv://HOST/token cannot be read: the connection to HOST broke off "
        "before the answer was whole: try again; if it stays so, is a firewall or proxy in the "
        "way?",
        StoreUnavailable,
        hang_up,
        '[profiles.p.env]\nTOKEN = "azurekv://HOST/token"',
    ),
    "a profile's": Case(
        2,
        f"mlauth.toml: profiles.p is empty: give it one of {SECTIONS}",
        InvalidProfile,
        profile="[profiles.p]",
    ),
}
SETTING = Row(
    "variable",
    "InvalidProfile",
    "MLAUTH_TIMEOUT: Input should be a valid number, unable to parse string as a number: correct "
    "the variable",
)


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    """A case, with its server, its file and its variables; its line has the server's URL."""
    found = CASES[request.param]
    memory.put("key", KEY)
    monkeypatch.chdir(clean_environment)
    monkeypatch.setenv("MLAUTH_TIMEOUT", str(found.seconds))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with faulty(found.reply) as server:
        host = f"127.0.0.1:{server.port}"
        Path("mlauth.toml").write_text(
            found.profile.replace("URL", server.url).replace("HOST", host)
        )
        line = found.line.replace("URL", server.url, 1).replace("HOST", host)
        yield replace(found, line=line.replace("N s", f"{found.seconds} s"))


def test_the_command_line_ends_with_its_code_and_the_line(case: Case) -> None:
    done = CliRunner().invoke(main, ["check", "--profile", "p"])
    last = (done.stdout or done.stderr).splitlines()[-1]
    who = {1: "failed", 2: "mlauth", 3: "unknown"}[case.code]
    assert (done.exit_code, last) == (case.code, f"{who}: {case.line}")
    assert "canary" not in done.output


def test_a_setting_that_cannot_be_used_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAUTH_TIMEOUT", "canary")
    done = CliRunner().invoke(main, ["check", "--profile", "p"])
    assert (done.exit_code, done.stderr) == (2, f"mlauth: {SETTING.line}\n")


def test_an_activation_raises_or_goes_on_with_a_warning(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(os.environ)
    what = case.line.partition(", resolved: ")[2] or case.line  # a store's errors name no system
    if case.raised is not None:
        with pytest.raises(case.raised) as caught, mlauth.activate("p", timeout=case.seconds):
            pass
        assert (type(caught.value), str(caught.value)) == (case.raised, what)
    else:
        warning = f"not proven: {what}; going on all the same"
        with mlauth.activate("p", timeout=case.seconds) as activation:
            assert activation.warnings == (warning,)
            assert dict(os.environ) != before
        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [warning]
    assert dict(os.environ) == before

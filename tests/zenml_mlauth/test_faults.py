"""Faults of the connection of ZenML's own client."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import zenml_mlauth
from mlauth.errors import CheckFailed
from mlauth.systems.zenml import isolation
from tests.faults.tables import Row
from tests.faults.test_ways import TOO_LATE
from tests.support.faults import Reply, answer, drip, faulty
from tests.zenml_mlauth.conftest import environment

INFO = answer(200, b'{"version": "0.98.0"}')
LOCAL = "ZenML's client uses the local store of this machine, not a server as a service account: {}"


@dataclass(frozen=True)
class ClientFault(Row):
    """A connection that does not work.

    Attributes:
        replies: the answers of a server, if there is one.
        variables: more of the environment.
    """

    replies: tuple[Reply, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


ROWS = [
    ClientFault(
        "component: local store",
        "failed",
        LOCAL.format("set ZENML_STORE_URL and ZENML_STORE_API_KEY, as the step zenml_login does"),
    ),
    ClientFault(
        "component: local store",
        "failed",
        LOCAL.format(
            "ZENML_API_KEY is not read by ZenML, which would run on a local store: the name is "
            "ZENML_STORE_API_KEY"
        ),
        variables={"ZENML_API_KEY": "canary"},
        shown=False,
    ),
    ClientFault(
        "component: ZenML's client",
        "failed",
        "URL refuses the credential (AuthorizationException): is it of this server?",
        (INFO, answer(401)),
    ),
    ClientFault(
        "component: ZenML's client",
        "unknown",
        "ZenML's client has no connection to URL (ERROR): `zenml status` may say why; if that "
        "works, try again",
        (INFO, answer(500)),
    ),
]


@contextmanager
def client(replies: tuple[Reply, ...], variables: Mapping[str, str]) -> Iterator[str]:
    """Make a client that uses a server, if there is one; yield the server's URL."""
    with ExitStack() as stack:
        url, more = "", dict(variables)
        if replies:
            url = stack.enter_context(faulty(*replies)).url
            more |= {"ZENML_STORE_URL": url, "ZENML_STORE_API_TOKEN": "canary.token"}
            more[isolation.NO_DISK] = "true"
        stack.enter_context(environment(**more))
        yield url


def checked(ends: str, caplog: pytest.LogCaptureFixture, seconds: float = 30) -> str:
    """Check, and return the line of the result, which must have the right status."""
    if ends == "failed":
        with pytest.raises(CheckFailed) as caught:
            zenml_mlauth.check(timeout=seconds)
        return str(caught.value)
    report = zenml_mlauth.check(timeout=seconds)
    assert report.status.value == ends
    (warning,) = (each.message for each in caplog.records if each.name == "mlauth")
    assert warning == (
        "the service account check could not find out; going on all the same: " + report.summary()
    )
    return report.summary()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_connection_that_does_not_work_is_one_line(
    row: ClientFault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variables = {"ZENML_CONFIG_PATH": str(tmp_path / "config"), **row.variables}
    with client(row.replies, variables) as url:
        said = checked(row.ends, caplog)
    said = re.sub(r"\(\w+Error\)", "(ERROR)", said.replace(url or "-", "URL" if url else "-"))
    assert said == f"zenml, configured: {row.line}"


@pytest.mark.parametrize(
    ("reply", "ends", "line"),
    [
        (
            answer(200, b" " * (1024 * 1024 + 1)),
            "failed",
            "/api/v1/info answers with more than 1 MiB: is it another service's URL?",
        ),
        (
            answer(501),
            "unknown",
            "/api/v1/info has a fault (HTTP 501); the credential may be fine: try again later",
        ),
        (drip, "unknown", TOO_LATE.line.removeprefix("URL")),
    ],
    ids=["failed", "unknown", "drips"],
)
def test_a_fault_of_the_network_ends_the_check_as_everywhere(
    reply: Reply, ends: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with client((reply,), {}) as url:
        said = checked(ends, caplog, 3)
    assert said == f"zenml, reachable: {url}{line.replace('N s', '3 s')}"

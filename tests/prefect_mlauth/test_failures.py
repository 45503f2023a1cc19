"""Steps that fail, and checks whose outcome is unknown, in real flow runs."""

from __future__ import annotations

import socket
import threading
from datetime import datetime

import pytest

from tests.prefect_mlauth.conftest import Project, Run, digest, zenml_login
from tests.support.accounts import Account
from tests.support.faults import FaultyServer, answer, faulty
from tests.support.servers import PrefectServer
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.timeout(300)


def crashed_with(run: Run, said: str) -> None:
    """Assert that the run crashed, and that one line in the UI says why."""
    assert run.result.state_type == "CRASHED", run.text
    lines = [line for line in run.logs if said in line and "Traceback" not in line]
    assert len(lines) == 1, run.text
    assert "\n" not in lines[0]
    assert run.left_over() == []
    assert "FACTS" not in run.text  # the flow never began


def test_a_check_that_fails_ends_the_run_with_one_line(
    way: str, project: Project, account: Account
) -> None:
    account.file.write_text(api_key("canary-unknown-key"))
    run = project.run(way, project.deploy("show", zenml_login(account)))
    crashed_with(run, "does not know the key: it was deleted, or belongs to another server")
    assert project.places_of([account.key, "canary-unknown-key"], run) == []


def test_a_literal_key_is_refused_and_said_to_have_leaked(
    project: Project, account: Account
) -> None:
    step = zenml_login(account, api_key=api_key("canary"))
    run = project.run("execute", project.deploy("show", step))
    crashed_with(run, "it has probably been stored in clear: rotate it")
    inputs = step["prefect_mlauth.steps.zenml_login"]
    assert inputs["api_key"] not in run.output + run.text


def test_a_check_that_is_unknown_warns_and_goes_on_with_the_key(
    project: Project, account: Account
) -> None:
    with faulty(answer(503)) as server:
        step = zenml_login(account, store_url=server.url, timeout=2)
        run = project.run("worker", project.deploy("show", step))
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
    (warning,) = [line for line in run.logs if "not proven: zenml, reachable: " in line]
    assert "HTTP 503" in warning
    assert run.left_over() == []


class Drips:
    """A reply that sends a byte now and then, until the client is gone."""

    def __init__(self) -> None:
        self.client_gone = threading.Event()

    def __call__(self, connection: socket.socket, server: FaultyServer) -> None:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not server.closing.wait(0.2):
                connection.sendall(b" ")
        except OSError:
            self.client_gone.set()


@pytest.mark.parametrize(
    ("way", "credential"),
    [pytest.param("execute", "api_key", marks=pytest.mark.load), ("worker", "api_token")],
)
def test_a_service_that_hangs_holds_up_neither_the_step_nor_the_end_of_the_process(
    way: str, credential: str, project: Project, account: Account, prefect_server: PrefectServer
) -> None:
    drips = Drips()
    with faulty(drips) as server:
        step = zenml_login(account, store_url=server.url, timeout=2, credential=credential)
        run = project.run(way, project.deploy("show", step))
        # The process has ended, although a thread of it still read the reply.
        assert drips.client_gone.wait(10)
    if credential == "api_key":
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
        (line,) = [line for line in run.logs if "not proven: zenml, reachable: " in line]
        # The deadline of the check ends it or, on a slow machine, the time limit of one read.
        assert "no answer within 2 s" in line
    else:
        crashed_with(run, "no answer within 2 s")
    assert seconds_in_step(prefect_server, run) < 2 + 4


def seconds_in_step(server: PrefectServer, run: Run) -> float:
    """Return how long the login took, by the times in the run's log."""
    wanted = {"logs": {"flow_run_id": {"any_": [run.result.id]}}, "sort": "TIMESTAMP_ASC"}
    entries = server.request("POST", "/logs/filter", wanted)
    times = {entry["message"]: datetime.fromisoformat(entry["timestamp"]) for entry in entries}
    (end, *_) = [when for line, when in times.items() if "no answer within 2 s" in line]
    return (end - times["Executing deployment step: zenml_login"]).total_seconds()

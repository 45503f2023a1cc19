"""The launchers, against the real servers that they launch."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr

from tests.support import http_server
from tests.support.servers import (
    ManagedProcess,
    PrefectServer,
    ProcessWorker,
    ServerError,
    ZenMLServer,
    child_environment,
    deploy,
    execute_flow_run,
    flow_run_logs,
    run_deployment,
)
from tests.support.waiting import until


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


# --- ZenML --------------------------------------------------------------------------------------


def login(server: ZenMLServer, key: SecretStr) -> httpx.Response:
    return httpx.post(
        f"{server.url}/api/v1/login",
        data={"grant_type": "zenml-api-key", "password": key.get_secret_value()},
        timeout=60,
    )


def current_user(server: ZenMLServer, token: str) -> dict[str, Any]:
    response = httpx.get(
        f"{server.url}/api/v1/current-user",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def test_an_accounts_key_logs_in_as_that_account(zenml_server: ZenMLServer) -> None:
    name = unique("prefect-prod")
    account = zenml_server.create_service_account(name)
    _, key = zenml_server.create_api_key(account, "key")

    user = current_user(zenml_server, login(zenml_server, key).json()["access_token"])

    assert user["id"] == account
    assert user["name"] == name
    assert user["body"]["is_service_account"] is True


def test_logins_are_counted(zenml_server: ZenMLServer) -> None:
    account = zenml_server.create_service_account(unique("counted"))
    _, key = zenml_server.create_api_key(account, "key")
    before = zenml_server.requests()

    login(zenml_server, key)
    login(zenml_server, key)
    login(zenml_server, SecretStr("ZENKEY_wrong"))
    httpx.get(f"{zenml_server.url}/api/v1/info?hydrate=true")

    assert zenml_server.requests() - before == {
        ("POST", "/api/v1/login"): 3,
        ("GET", "/api/v1/info"): 1,
    }


def test_the_administrator_logs_in_once(zenml_server: ZenMLServer) -> None:
    zenml_server.admin_token()
    before = zenml_server.requests()

    zenml_server.create_service_account(unique("a"))
    zenml_server.create_service_account(unique("b"))

    assert zenml_server.requests() - before == {("POST", "/api/v1/service_accounts"): 2}


def test_a_rotated_key_ends_unless_it_is_retained(zenml_server: ZenMLServer) -> None:
    account = zenml_server.create_service_account(unique("rotated"))
    key_id, first = zenml_server.create_api_key(account, "key")

    second = zenml_server.rotate_api_key(account, key_id, 0)
    assert login(zenml_server, first).status_code == 401
    assert login(zenml_server, second).status_code == 200

    third = zenml_server.rotate_api_key(account, key_id, 10)
    assert login(zenml_server, second).status_code == 200
    assert login(zenml_server, third).status_code == 200


def test_an_inactive_key_or_account_cannot_log_in(zenml_server: ZenMLServer) -> None:
    account = zenml_server.create_service_account(unique("inactive"))
    key_id, key = zenml_server.create_api_key(account, "key")

    zenml_server.set_api_key_active(account, key_id, False)
    assert login(zenml_server, key).status_code == 401
    zenml_server.set_api_key_active(account, key_id, True)
    assert login(zenml_server, key).status_code == 200

    zenml_server.set_service_account_active(account, False)
    assert login(zenml_server, key).status_code == 401
    zenml_server.set_service_account_active(account, True)
    assert login(zenml_server, key).status_code == 200


@pytest.fixture
def project(zenml_server: ZenMLServer) -> Iterator[tuple[str, str]]:
    """Name and id of a project; beside a second one, ZenML's client knows no active one."""
    name = unique("projects")
    project = zenml_server.create_project(name)
    yield name, project
    zenml_server.request("DELETE", f"/projects/{project}")


def test_projects_stacks_and_users_are_made(
    zenml_server: ZenMLServer, project: tuple[str, str]
) -> None:
    names = {"projects": project[0], "stacks": unique("stacks"), "users": unique("users")}
    password = SecretStr(uuid.uuid4().hex)
    ids = {
        "projects": project[1],
        "stacks": zenml_server.create_stack(names["stacks"]),
        "users": zenml_server.create_user(names["users"], password),
    }

    token = zenml_server.admin_token().get_secret_value()
    for kind, name in names.items():
        found = httpx.get(
            f"{zenml_server.url}/api/v1/{kind}",
            params={"name": name},
            headers={"Authorization": f"Bearer {token}"},
        ).json()
        assert [item["id"] for item in found["items"]] == [ids[kind]]

    person = httpx.post(
        f"{zenml_server.url}/api/v1/login",
        data={
            "grant_type": "password",
            "username": names["users"],
            "password": password.get_secret_value(),
        },
        timeout=60,
    )
    user = current_user(zenml_server, person.json()["access_token"])
    assert user["body"]["is_service_account"] is False


def test_what_the_server_refuses_is_one_line(zenml_server: ZenMLServer) -> None:
    name = unique("twice")
    zenml_server.create_stack(name)

    with pytest.raises(ServerError) as raised:
        zenml_server.create_stack(name)

    assert "409 to POST" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_secret_is_in_a_repr_a_command_line_or_the_log(zenml_server: ZenMLServer) -> None:
    account = zenml_server.create_service_account(unique("hidden"))
    key_id, key = zenml_server.create_api_key(account, "key")
    rotated = zenml_server.rotate_api_key(account, key_id)
    login(zenml_server, key)
    login(zenml_server, rotated)

    everything = [repr(zenml_server), str(vars(zenml_server)), zenml_server.log.read_text()]
    everything += [" ".join(psutil.Process(pid).cmdline()) for pid in zenml_server.pids()]
    hidden = [zenml_server.admin_password, zenml_server.admin_token(), key, rotated]
    for secret in hidden:
        for text in everything:
            assert secret.get_secret_value() not in text


def test_a_server_keeps_to_its_folder(zenml_server: ZenMLServer) -> None:
    assert zenml_server.folder in zenml_server.database.parents
    assert zenml_server.database.read_bytes().startswith(b"SQLite format 3")
    assert stat.S_IMODE(zenml_server.log.stat().st_mode) == 0o600
    for pid in zenml_server.pids():
        assert psutil.Process(pid).environ()["HOME"].startswith(str(zenml_server.folder))


# --- Prefect ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    prefect_server: PrefectServer,
    process_worker: ProcessWorker,
) -> str:
    folder = tmp_path_factory.mktemp("project")
    (folder / "flows.py").write_text(
        textwrap.dedent(
            """
            import os
            from prefect import flow

            @flow(log_prints=True)
            def hello(word: str = "default", fail: bool = False):
                print("word:", word, "extra:", os.environ.get("EXTRA"), "home:", os.environ["HOME"])
                print("foreign:", [n for n in os.environ if n.startswith(("ZENML_S", "MLAUTH_"))])
                if fail:
                    raise ValueError("as asked")
            """
        )
    )
    (folder / "prefect.yaml").write_text(
        json.dumps(
            {
                "name": "launchers",
                "pull": [
                    {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
                ],
                "deployments": [
                    {
                        "name": "launchers",
                        "entrypoint": "flows.py:hello",
                        "work_pool": {"name": process_worker.pool},
                    }
                ],
            }
        )
    )
    deploy(folder, "launchers", prefect_server)
    return "hello/launchers"


@pytest.mark.load
def test_a_worker_runs_a_deployment(
    prefect_server: PrefectServer, process_worker: ProcessWorker, deployment: str
) -> None:
    result = run_deployment(prefect_server, deployment, {"word": "blue"})

    assert (result.state_type, result.state_name) == ("COMPLETED", "Completed")
    logs = flow_run_logs(prefect_server, result.id)
    home = process_worker.folder / "home"
    assert f"word: blue extra: None home: {home}" in logs
    assert any(message.startswith("Finished in state Completed") for message in logs)


@pytest.mark.load
def test_a_run_that_fails_says_why(prefect_server: PrefectServer, deployment: str) -> None:
    result = run_deployment(prefect_server, deployment, {"fail": True})

    assert result.state_type == "FAILED"
    assert "as asked" in result.message


@pytest.mark.load
def test_a_run_is_executed_as_in_a_container(
    prefect_server: PrefectServer,
    deployment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid.uuid4()))
    monkeypatch.setenv("ZENML_STORE_URL", "http://elsewhere")

    done = execute_flow_run(
        prefect_server, deployment, tmp_path, {"EXTRA": "seen"}, {"word": "green"}
    )

    assert done.returncode == 0, done.stderr
    assert done.flow_run.state_type == "COMPLETED"
    assert "word: green extra: seen" in done.stderr + done.stdout
    logs = flow_run_logs(prefect_server, done.flow_run.id)
    assert "Executing deployment step: set_working_directory" in logs
    assert "foreign: []" in logs


@pytest.mark.load
def test_events_are_stored(prefect_server: PrefectServer, deployment: str) -> None:
    flow_run = run_deployment(prefect_server, deployment).id

    def names() -> set[str]:
        with sqlite3.connect(prefect_server.database) as database:
            rows = database.execute(
                "select distinct event from events where resource_id = ?",
                (f"prefect.flow-run.{flow_run}",),
            )
            return {name for (name,) in rows}

    until(lambda: "prefect.flow-run.pull-step.executed" in names())


def test_a_deployment_that_is_not_there_is_one_line(prefect_server: PrefectServer) -> None:
    with pytest.raises(ServerError, match=r"404 to GET .*/deployments/name/no/such") as raised:
        run_deployment(prefect_server, "no/such")
    assert "\n" not in str(raised.value)


def test_a_deploy_that_fails_is_one_line(prefect_server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text("deployments: [{name: x, entrypoint: 'no.py:flow'}]")

    with pytest.raises(ServerError, match="prefect deploy ended with status 1") as raised:
        deploy(tmp_path, "x", prefect_server, extra_args=["--pool", "absent"])
    assert "\n" not in str(raised.value)


def test_a_run_that_no_worker_takes_is_an_error(
    prefect_server: PrefectServer, deployment: str
) -> None:
    request = prefect_server.request
    pool = request("POST", "/work_pools/", {"name": unique("idle"), "type": "process"})
    found = request("GET", f"/deployments/name/{deployment}")
    copied = {name: found[name] for name in ("flow_id", "entrypoint")}
    request("POST", "/deployments/", {"name": "idle", "work_pool_name": pool["name"], **copied})

    with pytest.raises(ServerError, match="was still Scheduled after 1 s"):
        run_deployment(prefect_server, "hello/idle", timeout=1)


# --- The environment ----------------------------------------------------------------------------


def test_a_child_inherits_nothing_of_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = (
        "ZENML_STORE_URL",
        "PREFECT_API_KEY",
        "MLAUTH_PROFILE",
        "DISABLE_CREDENTIALS_DISK_CACHING",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "XDG_CONFIG_HOME",
    )
    for name in foreign:
        monkeypatch.setenv(name, "left over")
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("NO_PROXY", "internal")

    environment = child_environment(tmp_path, {"ADDED": "too"})

    assert "left over" not in environment.values()
    assert (environment["KEPT"], environment["ADDED"]) == ("yes", "too")
    assert environment["HOME"] == str(tmp_path / "home")
    assert environment["NO_PROXY"] == "internal,127.0.0.1,localhost"
    assert environment["ZENML_ANALYTICS_OPT_IN"] == "false"


# --- Starting and ending ------------------------------------------------------------------------


class Script(ManagedProcess):
    """A process of the test's own, whose program is a text."""

    title = "the script"

    def __init__(self, folder: Path, program: str, **options: Any) -> None:
        super().__init__(folder, **options)
        self.secret = SecretStr(uuid.uuid4().hex)
        self.marker = folder / "ready"
        folder.mkdir()
        (folder / "program.py").write_text(textwrap.dedent(program))

    def _command(self) -> list[str]:
        return ["program"]

    def _environment(self) -> dict[str, str]:
        return {"SCRIPT_SECRET": self.secret.get_secret_value(), "MARKER": str(self.marker)}

    def _is_ready(self) -> bool:
        return self.marker.exists()

    def _secrets(self) -> list[str]:
        return [self.secret.get_secret_value()]


STUBBORN = """
    import os, pathlib, signal, subprocess, sys, time
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    # A grandchild whose parent is dead: nobody's descendant, but in the session.
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", child])
    subprocess.run([sys.executable, "-c", orphan])
    pathlib.Path(os.environ["MARKER"]).touch()
    time.sleep(600)
"""


def test_a_server_that_dies_is_one_line(tmp_path: Path) -> None:
    server = ZenMLServer(tmp_path, env={"ZENML_SERVER_AUTH_SCHEME": "NO_SUCH_SCHEME"})

    with pytest.raises(ServerError, match="the ZenML server ended with status") as raised, server:
        pytest.fail("it started")

    message = str(raised.value)
    assert "\n" not in message
    assert str(server.log) in message
    last = [line for line in server.log.read_text().splitlines() if line.strip()][-1].strip()
    assert message.endswith(last[:300])
    assert server.admin_password.get_secret_value() not in message
    assert server.pids() == []


def test_the_last_line_of_a_log_is_masked(tmp_path: Path) -> None:
    script = Script(
        tmp_path / "s",
        """
        import os, sys
        print("first")
        sys.exit("\\033[31mthe secret is " + os.environ["SCRIPT_SECRET"] + "\\033[0m")
        """,
    )

    with pytest.raises(ServerError) as raised, script:
        pytest.fail("it started")

    assert str(raised.value) == (
        f"the script ended with status 1; its log {script.log} ends with: the secret is ***"
    )


def test_a_missing_interpreter_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="/no/such/python could not be started: No such file"),
        ZenMLServer(tmp_path, python="/no/such/python"),
    ):
        pytest.fail("it started")


def test_a_server_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    script = Script(tmp_path / "s", "import time; print('busy'); time.sleep(600)", start_timeout=1)
    script.launch()
    pids = script.pids()

    with pytest.raises(ServerError, match=r"was not ready after 1 s; .* ends with: busy"):
        script.wait_ready()

    assert len(pids) == 1
    assert alive(pids) == []


def test_stop_ends_the_whole_tree_and_can_be_repeated(tmp_path: Path) -> None:
    script = Script(tmp_path / "s", STUBBORN, stop_timeout=0.5)
    with script:
        pids = script.pids()
        assert len(pids) == 3
        assert len(alive(pids)) == 3

    assert alive(pids) == []
    script.stop()


def test_an_exception_ends_the_processes(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(script: Script) -> None:
        with script:
            pids.extend(script.pids())
            raise RuntimeError("by the test")

    with pytest.raises(RuntimeError, match="by the test"):
        fail(Script(tmp_path / "s", STUBBORN, stop_timeout=0.2))
    assert len(pids) == 3
    assert alive(pids) == []


def test_the_programs_own_signal_handlers_come_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Script(tmp_path / "s", STUBBORN, stop_timeout=0.2):
        assert signal.getsignal(signal.SIGINT) is before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_fork_does_not_end_the_servers_of_its_parent(tmp_path: Path) -> None:
    with Script(tmp_path / "s", STUBBORN, stop_timeout=0.2) as script:
        forked = os.fork()
        if forked == 0:
            script.stop()
            os._exit(0)
        os.waitpid(forked, 0)
        assert len(script.pids()) == 3


@pytest.fixture
def impostor() -> Iterator[int]:
    """The port of somebody else's server, which says to everything that it is healthy."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.load
def test_a_port_that_was_taken_meanwhile_is_replaced(
    tmp_path: Path, impostor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_port = http_server.free_port
    ports = iter([impostor])
    monkeypatch.setattr(http_server, "free_port", lambda: next(ports, None) or free_port())

    with PrefectServer(tmp_path, ui=False) as server:
        assert server.port != impostor
        assert httpx.get(f"{server.api_url}/health").json() is True


def test_a_port_that_was_asked_for_is_not_replaced(tmp_path: Path, impostor: int) -> None:
    with (
        pytest.raises(ServerError, match=f"ends with: Port {impostor} is already in use"),
        PrefectServer(tmp_path, port=impostor, ui=False),
    ):
        pytest.fail("it started")


HOLDER = """
import json, sys, time
from tests.support.servers import PrefectServer, ZenMLServer, running

zenml, prefect = ZenMLServer(sys.argv[1] + "/z"), PrefectServer(sys.argv[1] + "/p", ui=False)
zenml.launch()
prefect.launch()
print(json.dumps(zenml.pids() + prefect.pids()), flush=True)
with running(zenml, prefect):
    time.sleep(600)
"""


def test_a_signal_while_servers_start_leaves_none(tmp_path: Path) -> None:
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        pids = json.loads(holder.stdout.readline())
        assert len(alive(pids)) >= 2

        holder.send_signal(signal.SIGINT)
        status = holder.wait(30)
    finally:
        holder.kill()
        holder.communicate()

    assert status != 0
    assert alive(pids) == []


@pytest.mark.load
def test_a_worker_ends_with_the_runs_that_it_started(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "flows.py").write_text(
        "import time\nfrom prefect import flow\n@flow\ndef endless():\n    time.sleep(600)\n"
    )
    pool = unique("endless")
    with ProcessWorker(tmp_path / "worker", prefect_server, pool=pool) as worker:
        (tmp_path / "prefect.yaml").write_text(
            json.dumps(
                {
                    "deployments": [
                        {
                            "name": "endless",
                            "entrypoint": "flows.py:endless",
                            "work_pool": {"name": pool},
                        }
                    ]
                }
            )
        )
        deploy(tmp_path, "endless", prefect_server)
        with pytest.raises(ServerError, match="was still"):
            run_deployment(prefect_server, "endless/endless", timeout=0)
        until(lambda: len(worker.pids()) >= 2, 30)
        pids = worker.pids()

    assert alive(pids) == []


def test_free_ports_are_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", http_server.free_port()))

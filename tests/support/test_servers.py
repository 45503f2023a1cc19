"""The launchers end what they started, and no secret is in what they show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from tests.support import canaries
from tests.support.servers import (
    ManagedProcess,
    PrefectServer,
    ProcessWorker,
    ServerError,
    ZenMLServer,
    child_environment,
    deploy,
    run_deployment,
)
from tests.support.waiting import until

pytestmark = pytest.mark.process


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.load
def test_no_secret_is_in_a_repr_a_command_line_or_the_log(zenml_server: ZenMLServer) -> None:
    account = zenml_server.create_service_account("of-the-launchers")
    key_id, key = zenml_server.create_api_key(account, "key")
    hidden = [zenml_server.admin_password, zenml_server.admin_token(), key]
    hidden.append(zenml_server.rotate_api_key(account, key_id))
    with pytest.raises(ServerError, match="409 to POST") as raised:
        zenml_server.create_service_account("of-the-launchers")

    shown = [repr(zenml_server), str(vars(zenml_server)), zenml_server.log.read_text()]
    shown += [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    shown.append(str(raised.value))
    assert canaries.leaks("\n".join(shown), *(each.get_secret_value() for each in hidden)) == []


def test_a_child_inherits_nothing_of_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ZENML_STORE_URL", "PREFECT_API_KEY", "MLAUTH_PROFILE", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "left over")
    monkeypatch.setenv("KEPT", "yes")

    environment = child_environment(tmp_path, {"ADDED": "too"})

    assert "left over" not in environment.values()
    assert (environment["KEPT"], environment["ADDED"]) == ("yes", "too")
    assert environment["HOME"] == str(tmp_path / "home")


class Script(ManagedProcess):
    """A process of the test's own, whose program is a text."""

    title = "the script"
    start_timeout = 10.0
    stop_timeout = 0.2

    def __init__(self, folder: Path, program: str) -> None:
        super().__init__(folder)
        self.secret = SecretStr(canaries.token("script"))
        (self.folder / "program.py").write_text(textwrap.dedent(program))

    def _command(self) -> list[str]:
        return ["program"]

    def _environment(self) -> dict[str, str]:
        return {"SCRIPT_SECRET": self.secret.get_secret_value()}

    def _is_ready(self) -> bool:
        return (self.folder / "ready").exists()

    def _secrets(self) -> list[str]:
        return [self.secret.get_secret_value()]


STUBBORN = """
    import pathlib, signal, subprocess, sys, time
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    # A grandchild whose parent is dead: nobody's descendant, but in the session.
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", child])
    subprocess.run([sys.executable, "-c", orphan])
    pathlib.Path("ready").touch()
    time.sleep(600)
"""


def test_leaving_the_block_ends_the_whole_tree(tmp_path: Path) -> None:
    with Script(tmp_path, STUBBORN) as script:
        pids = script.pids()
        assert len(alive(pids)) == 3
        forked = os.fork()
        if forked == 0:
            script.stop()  # which ends nothing: they are the parent's
            os._exit(0)
        os.waitpid(forked, 0)
        assert alive(pids) == pids

    assert alive(pids) == []
    script.stop()


def test_the_last_line_of_the_log_says_why_it_died_without_secrets(tmp_path: Path) -> None:
    script = Script(
        tmp_path,
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


def test_one_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    script = Script(tmp_path, "import time; print('busy'); time.sleep(600)")
    script.start_timeout = 1
    script.launch()
    pids = script.pids()

    with pytest.raises(ServerError, match=r"was not ready after 1 s; .* ends with: busy"):
        script.wait_ready()

    assert len(pids) == 1
    assert alive(pids) == []


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
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
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
    pool = {"work_pool": {"name": "endless"}}
    endless = {"name": "endless", "entrypoint": "flows.py:endless", **pool}
    (tmp_path / "prefect.yaml").write_text(json.dumps({"deployments": [endless]}))
    with ProcessWorker(tmp_path / "worker", prefect_server, pool="endless") as worker:
        deploy(tmp_path, "endless", prefect_server)
        with pytest.raises(ServerError, match="was still"):
            run_deployment(prefect_server, "endless/endless", timeout=0)
        until(lambda: len(worker.pids()) >= 2, 30)
        pids = worker.pids()

    assert alive(pids) == []

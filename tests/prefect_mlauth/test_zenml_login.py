"""`zenml_login` in real flow runs, in both ways in which Prefect runs pull steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlauth.demo.search import search
from mlauth.demo.servers import PrefectServer, ProcessWorker, run_deployment
from tests.accounts import Account
from tests.credentials.keys import api_key
from tests.prefect_mlauth.conftest import Project, digest, zenml_login
from tests.servers.faults import answer, faulty, silent

pytestmark = pytest.mark.timeout(300)


def test_the_flow_works_as_the_account_and_nothing_is_left(
    way: str, project: Project, account: Account
) -> None:
    step = zenml_login(account, service_account=account.name, stack="default")
    deployment = project.deploy("who", step)
    before = account.logins()
    run = project.run(way, deployment)
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["account"] == account.name
    assert account.logins() == before + 2  # the step's, and that of ZenML's own client
    env = run.facts["env"]
    assert env["ZENML_STORE_API_KEY"] == digest(account.key)
    assert env["DISABLE_CREDENTIALS_DISK_CACHING"] == "true"
    assert env["ZENML_LOCAL_STORES_PATH"].endswith("/.config/zenml/local_stores")
    assert run.left_over() == []
    assert f"took the key of '{account.name}'" in run.text  # the UI shows who it runs as
    places = (run.folder, project.server.folder, account.server.folder, project.worker.folder)
    for folder in {*places, project.folder / "flows"}:
        assert search([account.key], folder).found == []
    assert account.key not in run.output + run.text


def test_with_a_token_the_key_stays_out_and_one_login_is_all(
    way: str, project: Project, account: Account
) -> None:
    deployment = project.deploy("who", zenml_login(account, credential="api_token"))
    before = account.logins()
    run = project.run(way, deployment)
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["account"] == account.name
    assert account.logins() == before + 1
    assert "ZENML_STORE_API_TOKEN" in run.facts["env"]
    assert "ZENML_STORE_API_KEY" not in run.facts["env"]
    assert digest(account.key) not in run.facts["env"].values()


def test_the_variables_are_there_before_the_flow_is_imported(
    way: str, project: Project, account: Account
) -> None:
    deployment = project.deploy("show", zenml_login(account, verify=False))
    run = project.run(way, deployment, ZENML_STORE_HTTP_TIMEOUT="17")
    assert {"ZENML_STORE_URL", "ZENML_STORE_API_KEY"} <= set(run.facts["at_import"])
    assert run.facts["env"]["ZENML_STORE_HTTP_TIMEOUT"] == "17"  # the user's own stays


def test_what_another_account_left_over_is_neutralised(
    way: str, project: Project, account: Account
) -> None:
    deployment = project.deploy("who", zenml_login(account))
    run = project.run(
        way, deployment, ZENML_STORE_API_TOKEN="canary-left-over", ZENML_STORE_VERIFY_SSL="true"
    )
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["account"] == account.name
    assert run.facts["env"].get("ZENML_STORE_API_TOKEN", digest("")) == digest("")
    assert run.facts["env"]["ZENML_STORE_VERIFY_SSL"] == "true"
    assert "replaced what the environment held before: ZENML_STORE_API_TOKEN" in run.text
    assert "canary" not in run.text


def test_a_left_over_password_is_one_clear_error(
    way: str, project: Project, account: Account
) -> None:
    deployment = project.deploy("who", zenml_login(account))
    run = project.run(way, deployment, ZENML_STORE_USERNAME="x", ZENML_STORE_PASSWORD="canary")
    assert run.result.state_type in {"CRASHED", "FAILED"}
    assert "ZENML_STORE_USERNAME and ZENML_STORE_PASSWORD are set in this environment" in run.output
    assert "canary" not in run.output + run.text


def test_a_check_that_fails_ends_the_run_with_one_line_and_no_key(
    way: str, project: Project, account: Account
) -> None:
    account.file.write_text(api_key("canary-unknown-key"))
    run = project.run(way, project.deploy("who", zenml_login(account)))
    assert run.result.state_type in {"CRASHED", "FAILED"}
    assert "does not know the key: it was deleted, or is one of another server" in run.output
    for text in (run.text, run.output):
        assert account.key not in text
    assert search([account.key], project.server.folder).found == []
    assert run.left_over() == []


def test_a_check_that_is_unknown_warns_and_goes_on_with_the_key(
    way: str, project: Project, account: Account
) -> None:
    with faulty(answer(503)) as server:
        step = zenml_login(account, store_url=server.url, timeout=3)
        run = project.run(way, project.deploy("show", step))
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
    assert "not proven: zenml, reachable: " in run.text
    assert "HTTP 503" in run.text


def test_a_check_that_is_unknown_ends_the_run_with_a_token(
    way: str, project: Project, account: Account
) -> None:
    with faulty(silent) as server:
        step = zenml_login(account, store_url=server.url, timeout=2, credential="api_token")
        deployment = project.deploy("show", step)
        start = time.monotonic()
        run = project.run(way, deployment)
        took = time.monotonic() - start
    assert run.result.state_type in {"CRASHED", "FAILED"}
    assert "no answer within 2 s" in run.output
    assert took < 60  # a run without any step takes some seconds


def test_a_literal_key_is_refused_and_said_to_have_leaked(
    project: Project, account: Account
) -> None:
    step = zenml_login(account, api_key="ZENKEY_canary")
    run = project.run("execute", project.deploy("who", step))
    assert run.result.state_type in {"CRASHED", "FAILED"}
    assert "probably been stored in clear: rotate it" in run.output
    assert "canary" not in run.output + run.text


def test_two_accounts_at_once_stay_who_they_are_when_they_log_in_again(
    project: Project, make_account: Callable[[str], Account], tmp_path: Path
) -> None:
    accounts = [make_account("prod"), make_account("dev")]
    deployments = [project.deploy("who_again", zenml_login(each)) for each in accounts]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda name: project.run("worker", name, MEETING=str(meeting)), deployments)
        )
    for each, run in zip(accounts, runs, strict=True):
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts == {"first": each.name, "again": [each.name] * 3, "met": 2}
    assert all(run.left_over() == [] for run in runs)


def test_a_crash_leaves_nothing_in_the_worker_for_another_deployments_run(
    tmp_path: Path, prefect_server: PrefectServer, account: Account
) -> None:
    """The worker itself runs the pull steps again, to find the crashed flow's hooks."""
    hook = tmp_path / "hook.json"
    with ProcessWorker(
        tmp_path / "worker", prefect_server, pool="crashing", env={"HOOK_FILE": str(hook)}
    ) as worker:
        project = Project(tmp_path, prefect_server, worker)
        crashing = project.deploy("killed", zenml_login(account))
        other = project.deploy("show")
        before = account.logins()
        run = project.run("worker", crashing)
        assert run.result.state_type == "CRASHED"
        end = time.monotonic() + 60
        while not hook.exists() and time.monotonic() < end:
            time.sleep(0.2)
        found = json.loads(hook.read_text())
        assert found.pop("pid") in worker.pids()
        assert not any(name.startswith(("ZENML_STORE", "MLAUTH_")) for name in found)
        assert account.logins() == before + 1  # only the run's own; the worker asked nobody
        run = project.run("worker", other)
        assert run.result.state_type == "COMPLETED", run.text
        assert not any(name.startswith(("ZENML_STORE", "MLAUTH_")) for name in run.facts["env"])
        # What the killed run left has no secret, and the next activation sweeps it.
        (left,) = run.left_over()
        assert search([account.key], worker.folder).found == []
        project.run("worker", project.deploy("show", zenml_login(account, verify=False)))
        assert run.left_over() == [], left


def test_the_key_in_no_process_arguments(account: Account, project: Project) -> None:
    deployment = project.deploy("show", zenml_login(account))
    seen: set[str] = set()

    def watch() -> None:
        import psutil

        for process in psutil.process_iter():
            try:
                seen.update(process.cmdline())
            except psutil.Error:
                continue

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_deployment, project.server, deployment)
        while not running.done():
            watch()
            time.sleep(0.05)
    assert running.result().state_type == "COMPLETED"
    assert "prefect.engine" in seen  # the run was among them
    assert not any(account.key in word for word in seen)

"""Blocks in real flow runs, sync and async, in both ways of Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from prefect_mlauth import MLAuthProfile, ZenMLCredentials
from tests.prefect_mlauth.conftest import Project, block_documents, digest
from tests.support.accounts import Account
from tests.support.servers import PrefectServer
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.timeout(300)

FILE = "block_flows.py"


def new_name(start: str) -> str:
    return f"{start}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def block(account: Account, prefect_api: PrefectServer) -> str:
    """The name of a saved block with the account's credentials."""
    name = new_name("zenml")
    ZenMLCredentials(
        store_url=account.url, api_key=account.reference, service_account=account.name
    ).save(name)
    return name


@pytest.fixture
def profile(account: Account, canary: str, prefect_api: PrefectServer, tmp_path: Path) -> str:
    """The name of a saved block with a profile's content."""
    name = new_name("profile")
    (tmp_path / "canary").write_text(canary)
    zenml = {"store_url": account.url, "api_key": account.reference}
    MLAuthProfile(content={"zenml": zenml, "env": {"CANARY": f"file://{tmp_path}/canary"}}).save(
        name
    )
    return name


@pytest.mark.parametrize(
    ("way", "flow"),
    [("worker", "login"), pytest.param("execute", "login_async", marks=pytest.mark.load)],
)
def test_a_flow_works_as_the_account_until_the_with_ends(
    way: str, flow: str, project: Project, account: Account, block: str
) -> None:
    run = project.run(way, project.deploy(flow, file=FILE), BLOCK=block)
    assert run.result.state_type == "COMPLETED", run.text + run.output
    facts = run.facts
    assert facts["status"] == "passed"
    assert facts["activated"] == facts["account"] == account.name
    assert facts["inside"]["ZENML_STORE_API_KEY"] == digest(account.key)
    assert facts["undone"]  # although an exception ended it
    assert "ZENML_STORE_API_KEY" not in facts["env"]
    assert run.left_over() == []
    # The UI shows the account of the run, the flow's output is masked, and the key is nowhere.
    said = [line for line in run.logs if f"took the key of {account.name!r}; set " in line]
    assert len(said) == 1
    assert "printed ***" in run.logs
    assert project.places_of([account.key], run) == []
    documents = block_documents(project.server)
    assert account.reference in documents
    assert account.key not in documents


@pytest.mark.load
@pytest.mark.parametrize(("way", "flow"), [("worker", "profile"), ("execute", "profile_async")])
def test_a_flow_has_a_profiles_credentials_until_the_with_ends(
    way: str, flow: str, project: Project, account: Account, profile: str, canary: str
) -> None:
    run = project.run(way, project.deploy(flow, file=FILE), BLOCK=profile)
    assert run.result.state_type == "COMPLETED", run.text + run.output
    facts = run.facts
    assert {"CANARY", "ZENML_STORE_API_KEY"} <= set(facts["variables"])
    assert facts["inside"]["CANARY"] == digest(canary)
    assert facts["inside"]["ZENML_STORE_API_KEY"] == digest(account.key)
    assert facts["undone"]
    assert run.logs.count("printed ***") == 2
    assert project.places_of([account.key, canary], run) == []
    documents = block_documents(project.server)
    assert canary not in documents
    assert account.key not in documents


@pytest.mark.load
def test_a_key_that_is_refused_fails_the_run_with_one_line(
    project: Project, account: Account, block: str
) -> None:
    account.file.write_text(api_key("canary-unknown-key"))
    run = project.run("worker", project.deploy("login_async", file=FILE), BLOCK=block)
    assert run.result.state_type == "FAILED", run.text
    assert "it was deleted, or belongs to another server" in run.result.message
    assert "\n" not in run.result.message
    assert project.places_of([account.key, "canary-unknown-key"], run) == []


SCRIPT = """
import asyncio, json, os, sys
from prefect import flow, task
from prefect_mlauth import ZenMLCredentials

name = sys.argv[1]


def work(where):
    before = dict(os.environ)
    block = ZenMLCredentials.load(name)
    assert block.check().status.value == "passed"
    with block.login() as login:
        inside = "ZENML_STORE_API_KEY" in os.environ
    print(where, login.account, inside, dict(os.environ) == before)


async def work_async(where):
    before = dict(os.environ)
    block = await ZenMLCredentials.load(name)
    assert (await block.check()).status.value == "passed"
    async with block.login() as login:
        inside = "ZENML_STORE_API_KEY" in os.environ
    print(where, login.account, inside, dict(os.environ) == before)


@flow
def sync_flow():
    work("sync flow")
    sync_task()


@task
def sync_task():
    work("sync task")


@flow
async def async_flow():
    await work_async("async flow")
    await async_task()


@task
async def async_task():
    await work_async("async task")


work("function")
asyncio.run(work_async("coroutine"))
sync_flow()
asyncio.run(async_flow())
"""


def in_a_script(
    code: str, server: PrefectServer, folder: Path, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=server.environment(folder) | env,
        timeout=100,
    )


@pytest.mark.load
def test_plain_python_sync_and_async_uses_a_block(
    prefect_api: PrefectServer, account: Account, block: str, tmp_path: Path
) -> None:
    done = in_a_script(SCRIPT, prefect_api, tmp_path / "home", block)
    for where in ("function", "coroutine", "sync flow", "sync task", "async flow", "async task"):
        assert f"{where} {account.name} True True\n" in done.stdout, done.stdout + done.stderr
    assert list((tmp_path / "home").rglob("mlauth-*")) == []
    assert account.key not in done.stdout + done.stderr


PROCESSES = """
import os, sys
from prefect import flow, get_run_logger, task
from prefect.task_runners import ProcessPoolTaskRunner
from prefect_mlauth import ZenMLCredentials


@task(log_prints=True)
def elsewhere():
    print("in a task", os.environ["ZENML_STORE_API_KEY"])


@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def leak():
    with ZenMLCredentials.load(sys.argv[1]).login():
        elsewhere.submit().result()


if __name__ == "__main__":
    leak()
"""


@pytest.mark.load
def test_tasks_in_other_processes_have_the_credentials_and_mask_them(
    prefect_api: PrefectServer, account: Account, block: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, str(script), block],
        capture_output=True,
        text=True,
        env=prefect_api.environment(tmp_path / "home"),
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "in a task ***" in done.stderr + done.stdout
    assert account.key not in done.stdout + done.stderr
    body: dict[str, Any] = {"sort": "TIMESTAMP_DESC", "limit": 200}
    assert account.key not in json.dumps(prefect_api.request("POST", "/logs/filter", body))

"""The other steps in real flow runs, the results of steps, and steps called from plain Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlauth import MLAuthError
from prefect_mlauth import steps
from tests.prefect_mlauth.conftest import WAYS, Project, digest, export_secrets, zenml_login
from tests.support.accounts import Account
from tests.support.canaries import token
from tests.support.profiles import write_profile
from tests.support.servers import PrefectServer, child_environment

pytestmark = pytest.mark.timeout(300)

CANARY = token("step")
HASH = "import hashlib, os; print('hash', hashlib.sha256(os.environ['GOT'].encode()).hexdigest())"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A reference to a canary."""
    (tmp_path / "canary").write_text(CANARY)
    return f"file://{tmp_path}/canary"


@pytest.mark.load
def test_a_profile_from_the_repository_that_was_cloned_and_a_later_step_that_uses_it(
    project: Project, account: Account, secret: str
) -> None:
    repository = project.folder / "repository"
    repository.mkdir()
    zenml = {"store_url": account.url, "api_key": account.reference}
    zenml["service_account"] = account.name
    write_profile(repository, "prod", zenml=zenml, env={"CANARY": secret})
    (repository / "flows.py").write_text((project.flows / "flows.py").read_text())
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    clone = {"id": "clone", "repository": f"file://{repository}"}
    profile = {"profile": "prod", "config": "{{ clone.directory }}/mlauth.toml"}
    (project.folder / "hash.py").write_text(HASH)
    later = {
        "script": f"{sys.executable} {project.folder / 'hash.py'}",
        "env": {"GOT": "{{ $CANARY }}"},
    }
    deployment = project.deploy_file(
        "show",
        {"prefect.deployments.steps.git_clone": clone},
        {"prefect_mlauth.steps.activate_profile": profile},
        export_secrets(HF_TOKEN=secret),
        {"prefect.deployments.steps.run_shell_script": later},
    )
    for way in WAYS:
        run = project.run(way, deployment)
        assert run.result.state_type == "COMPLETED", run.text
        assert any(f"took the key of {account.name!r}" in line for line in run.logs)
        assert "mlauth: set HF_TOKEN" in run.logs
        assert f"hash {digest(CANARY)}" in run.output
        env = run.facts["env"]
        assert env["CANARY"] == env["HF_TOKEN"] == digest(CANARY)
        assert env["ZENML_STORE_API_KEY"] == digest(account.key)
        assert project.places_of([account.key, CANARY], run) == []
        assert run.left_over() == []


CALLS = """
import asyncio, json, os, sys
from prefect import flow, task
from prefect_mlauth.steps import zenml_login

login = json.loads(sys.argv[1])["prefect_mlauth.steps.zenml_login"]


def call(where):
    for name in ("ZENML_STORE_URL", "ZENML_STORE_API_KEY"):
        os.environ.pop(name, None)
    print(where, zenml_login(**login)["account"], "ZENML_STORE_API_KEY" in os.environ)


@flow
def sync_flow():
    call("sync flow")
    sync_task()


@task
def sync_task():
    call("sync task")


@flow
async def async_flow():
    call("async flow")


async def coroutine():
    call("coroutine")


call("function")
sync_flow()
asyncio.run(async_flow())
asyncio.run(coroutine())
"""


def in_a_script(
    code: str, folder: Path, env: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=child_environment(folder, env),
        timeout=100,
    )


@pytest.mark.load
def test_plain_python_sync_and_async_gets_what_it_asked_for(
    tmp_path: Path, prefect_server: PrefectServer, account: Account
) -> None:
    api, step = prefect_server.environment(), json.dumps(zenml_login(account))
    done = in_a_script(CALLS, tmp_path / "home", api, step)
    for where in ("function", "sync flow", "sync task", "async flow", "coroutine"):
        assert f"{where} {account.name} True\n" in done.stdout, done.stderr
    assert list((tmp_path / "home").rglob("mlauth-*")) == []


OUTPUTS = """
import asyncio, json, os, sys
from prefect.deployments.steps.core import run_steps
from tests.support.canaries import leaks

outputs = asyncio.run(run_steps([json.loads(sys.argv[1])]))
secrets = os.environ["ZENML_STORE_API_TOKEN"], open(sys.argv[2]).read()
if leaks(repr(outputs), *secrets):
    sys.exit("a secret is in the step's output")
print(json.dumps(outputs))
"""


def test_prefect_keeps_only_names_and_facts_of_a_step_for_later_steps(
    tmp_path: Path, prefect_server: PrefectServer, account: Account
) -> None:
    """Prefect's own function runs the steps, in a process that knows its flow run."""
    step = zenml_login(account, credential="api_token")
    step["prefect_mlauth.steps.zenml_login"]["id"] = "login"
    run = {"PREFECT__FLOW_RUN_ID": "00000000-0000-4000-8000-000000000000"}
    run |= prefect_server.environment()
    done = in_a_script(OUTPUTS, tmp_path / "home", run, json.dumps(step), str(account.file))
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    login = outputs.pop("login")
    assert outputs == login
    assert login.keys() == {"account", "server_url", "server_version", "variables"}
    assert (login["account"], login["server_url"]) == (account.name, account.url)
    assert {"ZENML_STORE_API_TOKEN", "ZENML_STORE_URL"} <= set(login["variables"])


def test_a_name_that_changes_how_programs_start_is_refused(secret: str) -> None:
    for name in ("PATH", "LD_PRELOAD", "PYTHONPATH", "PREFECT_API_URL", "DYLD_INSERT_LIBRARIES"):
        before = dict(os.environ)
        with pytest.raises(MLAuthError, match=f"{name} changes how programs start"):
            steps.export_secrets({"FINE": secret, name: secret})
        assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"verify": "maybe"}, "verify is neither true nor false"),
        ({"timeout": "30"}, "timeout is not a number of seconds"),
        ({"timeout": -1}, "timeout must be more than 0"),
        ({"credential": "password"}, "zenml_login: credential: Input should be"),
    ],
)
def test_inputs_that_cannot_be_are_named(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(MLAuthError) as caught:
        steps.zenml_login("http://127.0.0.1:9", "env://NOWHERE", **inputs)
    assert said in str(caught.value)

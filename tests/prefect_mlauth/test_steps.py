"""The other steps, masking, and where steps set nothing, in real flow runs."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH

from mlauth import MLAuthError
from mlauth.demo.search import search
from mlauth.demo.servers import PrefectServer, child_environment
from prefect_mlauth import steps
from tests.accounts import Account
from tests.prefect_mlauth.conftest import Project, digest, zenml_login

pytestmark = pytest.mark.timeout(300)

CANARY = "canary-4c/8+x=q"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A reference to a canary."""
    (tmp_path / "canary").write_text(CANARY)
    return f"file://{tmp_path}/canary"


def export_secrets(**env: str) -> dict[str, object]:
    return {"prefect_mlauth.steps.export_secrets": {"env": env}}


def test_later_steps_can_use_what_was_exported(way: str, project: Project, secret: str) -> None:
    script = project.folder / "later.py"
    script.write_text(
        "import hashlib, os, sys\n"
        "open(sys.argv[1], 'w').write(hashlib.sha256(os.environ['GOT'].encode()).hexdigest())"
    )
    out = project.folder / "out"
    later = {
        "script": f"{sys.executable} {script} {out}",
        "env": {"GOT": "{{ $CANARY }}"},
    }
    run = project.run(
        way,
        project.deploy(
            "show",
            export_secrets(CANARY=secret),
            {"prefect.deployments.steps.run_shell_script": later},
        ),
    )
    assert run.result.state_type == "COMPLETED", run.text
    assert out.read_text().startswith(digest(CANARY))
    assert run.facts["env"]["CANARY"] == digest(CANARY)
    assert CANARY not in run.output + run.text
    assert search([CANARY], project.server.folder).found == []


def test_a_name_that_changes_how_programs_start_ends_the_run(project: Project, secret: str) -> None:
    run = project.run("execute", project.deploy("show", export_secrets(PYTHONPATH=secret)))
    assert run.result.state_type in {"CRASHED", "FAILED"}
    assert "PYTHONPATH changes how programs start" in run.output


def test_what_was_exported_is_masked(way: str, project: Project, secret: str) -> None:
    """On the console, in Prefect's database, and after ZenML added log handlers of its own."""
    run = project.run(way, project.deploy("leak", export_secrets(CANARY=secret)))
    assert run.result.state_type == "COMPLETED", run.text
    for line in ("printed ***", "logged ***", "in a dictionary {'token': '***'}"):
        assert run.logs.count(line) == 2, run.text
        assert line in run.output
    assert "ValueError: could not use ***" in run.text
    encoded = base64.b64encode(f"user:{CANARY}".encode()).decode()
    for text in (run.text, run.output):
        assert CANARY not in text
        assert encoded not in text
    assert search([CANARY], project.server.folder).found == []


def test_a_log_handler_of_the_users_stays_and_masks(
    way: str, project: Project, secret: str
) -> None:
    (project.folder / "flows" / "their_handlers.py").write_text(
        "import logging\n"
        "class Theirs(logging.StreamHandler):\n"
        "    def emit(self, record):\n"
        "        self.stream.write('THEIRS ' + self.format(record) + '\\n')\n"
    )
    config = yaml.safe_load(DEFAULT_LOGGING_SETTINGS_PATH.read_text())
    config["handlers"]["theirs-2"] = {"class": "their_handlers.Theirs", "level": 0}
    config["root"]["handlers"] = ["theirs-2"]
    file = project.folder / "logging.yml"
    file.write_text(yaml.safe_dump(config))
    run = project.run(
        way,
        project.deploy("leak", export_secrets(CANARY=secret)),
        PREFECT_LOGGING_SETTINGS_PATH=str(file),
        PYTHONPATH=str(project.folder / "flows"),
    )
    assert run.result.state_type == "COMPLETED", run.text + run.output
    assert "THEIRS printed ***" in run.output
    assert CANARY not in run.output + run.text


def test_a_profile_from_the_repository_that_was_cloned(
    way: str, project: Project, account: Account, secret: str
) -> None:
    repository = project.folder / "repository"
    repository.mkdir()
    (repository / "mlauth.toml").write_text(
        "[profiles.prod.zenml]\n"
        f'store_url = "{account.server.url}"\napi_key = "{account.reference}"\n'
        f'service_account = "{account.name}"\n'
        f'[profiles.prod.env]\nCANARY = "{secret}"\n'
    )
    (repository / "flows.py").write_text((project.folder / "flows" / "flows.py").read_text())
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    clone = {"id": "clone", "repository": f"file://{repository}"}
    profile = {"profile": "prod", "config": "{{ clone.directory }}/mlauth.toml"}
    run = project.run(
        way,
        project.deploy(
            "who",
            {"prefect.deployments.steps.git_clone": clone},
            {"prefect_mlauth.steps.activate_profile": profile},
        ),
    )
    assert run.result.state_type == "COMPLETED", run.text + run.output
    assert run.facts["account"] == account.name
    assert run.facts["env"]["CANARY"] == digest(CANARY)


def test_in_plain_python_a_step_sets_what_the_persons_code_asked_for(
    tmp_path: Path, prefect_server: PrefectServer, account: Account
) -> None:
    """Inside of a flow that a script calls, and outside of any flow."""
    code = (
        "import json, os, sys\n"
        "from prefect import flow\n"
        "from prefect_mlauth.steps import zenml_login\n"
        "step = json.loads(sys.argv[1])\n"
        "@flow\n"
        "def plain():\n"
        "    print('IN FLOW', zenml_login(**step)['account'])\n"
        "plain()\n"
        "print('OUTSIDE', zenml_login(**step)['account'], 'ZENML_STORE_API_KEY' in os.environ)\n"
    )
    step = zenml_login(account)["prefect_mlauth.steps.zenml_login"]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(step)],
        capture_output=True,
        text=True,
        env=child_environment(tmp_path / "home", prefect_server.environment()),
        timeout=120,
    )
    assert f"IN FLOW {account.name}\n" in done.stdout, done.stderr
    assert f"OUTSIDE {account.name} True\n" in done.stdout
    assert list((tmp_path / "home").rglob("mlauth-*")) == []


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"verify": "maybe"}, "verify is neither true nor false"),
        ({"timeout": "30"}, "timeout is not a number of seconds"),
        ({"timeout": -1}, "timeout=-1 is not a positive number"),
        ({"credential": "password"}, "zenml_login: credential: Input should be"),
    ],
)
def test_inputs_that_cannot_be_are_named(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(MLAuthError) as caught:
        steps.zenml_login("http://127.0.0.1:9", "env://NOWHERE", **inputs)
    assert said in str(caught.value)

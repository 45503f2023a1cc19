"""A secret that a flow logs by mistake is masked on its console and in Prefect's database."""

from __future__ import annotations

import json
import logging
import os
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH

from prefect_mlauth import handlers
from prefect_mlauth.handlers import environment
from tests.prefect_mlauth.conftest import Project, Run, export_secrets
from tests.support.canaries import canary, leaks

pytestmark = pytest.mark.timeout(300)

CANARY = canary("masked")
LINES = (
    "printed ***",
    "logged ***",
    "in a dictionary {'token': '***'}",
    "in base64 ",
    "in a URL ***",
    'in JSON {"token": "***"}',
    "ValueError: could not use ***",
)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A reference to a canary."""
    (tmp_path / "canary").write_text(CANARY)
    return f"file://{tmp_path}/canary"


def shows_the_mask(run: Run, times: int) -> None:
    assert run.result.state_type == "COMPLETED", run.text
    for line in LINES:
        assert "\n".join(run.logs).count(line) == times, (line, run.text)
        assert run.output.count(line) >= times, (line, run.output)
    for line in ("from a thread ***", "as bytes ***"):  # Prefect does not send these lines
        assert run.output.count(line) == times, (line, run.output)


@pytest.mark.parametrize("way", ["worker", pytest.param("execute", marks=pytest.mark.load)])
def test_a_secret_is_masked_before_and_after_zenml_adds_log_handlers(
    way: str, project: Project, secret: str
) -> None:
    run = project.run(way, project.deploy("leak_beside_zenml", export_secrets(CANARY=secret)))
    shows_the_mask(run, 2)
    assert run.output.count("printed in a task ***") >= 2
    assert project.places_of([CANARY], run) == []


@pytest.mark.load
def test_a_log_configuration_and_a_handler_of_the_users_stay_and_mask(
    way: str, project: Project, secret: str
) -> None:
    (project.flows / "their_handlers.py").write_text(
        "import logging\n"
        "class Theirs(logging.StreamHandler):\n"
        "    def emit(self, record):\n"
        "        self.stream.write('THEIRS ' + self.format(record) + '\\n')\n"
        "        self.flush()\n"
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
    )
    shows_the_mask(run, 1)
    assert "THEIRS printed ***" in run.output
    assert project.places_of([CANARY], run) == []


@pytest.fixture
def without_mlauth(tmp_path: Path) -> list[str]:
    """A Python with everything that is installed here, but without mlauth."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "mlauth" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    # argv is then -c CODE and what follows
    start = (
        f"import sys; sys.path.append({str(packages)!r}); del sys.argv[0]; exec(sys.argv.pop(1))"
    )
    return [sys.executable, "-S", "-c", start]


@pytest.mark.load  # five processes that import Prefect
def test_a_child_without_mlauth_keeps_its_logs_and_one_with_it_masks(
    way: str, project: Project, secret: str, without_mlauth: list[str]
) -> None:
    run = project.run(
        way,
        project.deploy("with_children", export_secrets(CANARY=secret)),
        INTERPRETERS=json.dumps([[sys.executable], without_mlauth]),
    )
    assert run.result.state_type == "COMPLETED", run.text
    sent = [
        log["message"]
        for log in project.server.request("POST", "/logs/filter", {"sort": "TIMESTAMP_DESC"})
    ]
    assert run.output.count("printed by a child 1 ***") == 1
    assert f"printed by a child {len(without_mlauth)} " in run.output
    for said in (run.output, "\n".join(sent)):
        assert "logged by a child 1" in said
        assert f"logged by a child {len(without_mlauth)}" in said
    assert leaks("\n".join(line for line in sent if "child 1" in line), CANARY) == []
    # Processes that the flow starts get the handlers from before the step.
    assert not [name for name in run.facts["env"] if name.startswith("PREFECT_LOGGING_HANDLERS")]


def test_a_handler_that_masks_already_is_named_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow run that a flow starts as a child gets the same classes, not one around another."""
    config = {"handlers": {"console": {"class": "logging.StreamHandler"}}}
    first = environment(config)
    (spelled,) = first.values()
    assert first == {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "prefect_mlauth.handlers.:logging:StreamHandler"
    }
    assert environment({"handlers": {"console": {"class": spelled}}}) == first
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS", spelled)  # two steps of a run
    assert environment(config) == first


def test_the_variables_are_put_back_to_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = "PREFECT_LOGGING_HANDLERS_API_CLASS"
    monkeypatch.setenv(theirs, "their_handlers.Theirs")
    monkeypatch.delenv("PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS", raising=False)
    config = {
        "console": {"class": "logging.StreamHandler"},
        "api": {"class": "their_handlers.Theirs"},
    }
    for name, value in environment({"handlers": config}).items():
        monkeypatch.setenv(name, value)
    handlers._put_back()
    assert os.environ[theirs] == "their_handlers.Theirs"
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS" not in os.environ


def test_a_configuration_that_names_no_handlers_is_left_alone() -> None:
    assert environment({}) == {}
    assert environment({"handlers": None}) == {}
    assert environment({"handlers": {"made": {"()": logging.StreamHandler}}}) == {}

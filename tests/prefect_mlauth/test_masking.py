"""What a flow logs by mistake is masked on its console and in Prefect's database."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH

from prefect_mlauth.handlers import environment
from tests.prefect_mlauth.conftest import Project, Run, export_secrets

pytestmark = pytest.mark.timeout(300)

CANARY = 'canary-4c/8+x="q'
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


def test_a_secret_is_masked_before_and_after_zenml_adds_log_handlers(
    way: str, project: Project, secret: str
) -> None:
    run = project.run(way, project.deploy("leak_beside_zenml", export_secrets(CANARY=secret)))
    shows_the_mask(run, 2)
    assert run.output.count("printed in a task ***") >= 2
    assert project.places_of([CANARY], run) == []


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


def test_a_handler_that_masks_already_is_named_as_it_is() -> None:
    """A flow run that a flow starts as a child gets the same classes, not one around another."""
    config = {"handlers": {"console": {"class": "logging.StreamHandler"}}}
    first = environment(config)
    (spelled,) = first.values()
    assert first == {
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "prefect_mlauth.handlers.logging:StreamHandler"
    }
    assert environment({"handlers": {"console": {"class": spelled}}}) == first


def test_a_configuration_that_names_no_handlers_is_left_alone() -> None:
    assert environment({}) == {}
    assert environment({"handlers": None}) == {}
    assert environment({"handlers": {"made": {"()": logging.StreamHandler}}}) == {}

"""Pipelines, steps and components of the tests, in a module that ZenML can import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from zenml import pipeline, step
from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterFlavor
from zenml.enums import ExecutionStatus
from zenml.hooks import alerter_failure_hook
from zenml.step_operators.base_step_operator import (
    BaseStepOperator,
    BaseStepOperatorFlavor,
)

ROOT = Path(__file__).parents[2]

TRACE = "TEST_TRACE"  # the file to which steps and alerters write
OTHER_TOKEN = "TEST_OTHER_TOKEN"


def trace(line: str) -> None:
    with open(os.environ[TRACE], "a", encoding="utf-8") as file:
        file.write(line + "\n")


def traced() -> list[str]:
    path = Path(os.environ[TRACE])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def step_log() -> Path:
    return Path(os.environ[TRACE]).with_name("step-log.txt")


@step(enable_cache=False)
def first() -> int:
    trace("first")
    return 1


@step(enable_cache=False)
def second(number: int) -> int:
    trace("second")
    return number + 1


@pipeline
def two_steps() -> None:
    second(first())


@step(enable_cache=False)
def elsewhere() -> int:
    trace(f"pid {os.getpid()}")
    return 1


@pipeline
def two_processes() -> None:
    elsewhere.with_options(step_operator=True)()


@step(enable_cache=False, on_failure=alerter_failure_hook)
def failing() -> int:
    raise ValueError("this step always fails")


@pipeline
def fails() -> None:
    failing()


class RecordingAlerter(BaseAlerter):
    """Writes what it gets into the trace."""

    def post(self, message, params=None):
        trace(f"post {params!r} {' '.join(message.split())}")
        return message != "refused"

    def ask(self, question, params=None):
        trace(f"ask {params!r} {question}")
        return question == "yes?"


class RecordingAlerterFlavor(BaseAlerterFlavor):
    @property
    def name(self):
        return "recording"

    @property
    def implementation_class(self):
        return RecordingAlerter


class SubprocessOperator(BaseStepOperator):
    """Runs a step in another process with its own environment, as a container would."""

    def submit(self, info, entrypoint_command, environment):
        env = dict(os.environ) | environment | {"PYTHONPATH": str(ROOT)}
        token = env.pop(OTHER_TOKEN, None)
        if token:  # somebody else's connection, in this process alone
            env |= {"ZENML_STORE_API_TOKEN": token, "ZENML_STORE_API_KEY": ""}
        with open(step_log(), "w", encoding="utf-8") as file:
            self._done = subprocess.run(
                [sys.executable, *entrypoint_command[1:]],
                cwd=ROOT,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def wait(self, step_run):
        return self.get_status(step_run)

    def get_status(self, step_run):
        ended = self._done.returncode == 0
        return ExecutionStatus.COMPLETED if ended else ExecutionStatus.FAILED


class SubprocessOperatorFlavor(BaseStepOperatorFlavor):
    @property
    def name(self):
        return "subprocess"

    @property
    def implementation_class(self):
        return SubprocessOperator

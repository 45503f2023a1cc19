"""Runs many jobs of the matrix at once, each in a fork of a process that has imported everything.

A job is one use of mlauth in an environment and a folder of its own; its outcome is what a user
sees. Jobs come as JSON on standard input, outcomes go as JSON into the file that is named.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

AT_ONCE = 8  # most of their time they wait; with many more, none is done before its time limit


@dataclass(frozen=True)
class Job:
    """A use of mlauth.

    Attributes:
        use: `check` (the command, with a profile), `environment` (it, without one), `activate` (the
            Python interface), or `component`.
        folder: the working directory.
        environment: all of it.
        seconds: the time limit that mlauth is given.
    """

    use: str
    folder: str
    environment: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        kind: the exception's class, or `passed`, `failed`, `unknown` of a check.
        line: what it says.
        code: the exit code of a command.
        seconds: how long it took.
        output: everything that was printed, raised or warned of.
    """

    kind: str
    line: str
    code: int | None
    seconds: float
    output: str


def alone(folder: Path) -> dict[str, str]:
    """Return the environment of a job that keeps what it writes in a folder."""
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PATH": "/usr/bin:/bin",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
    }


def check(job: Job) -> tuple[str, str, int | None, str]:
    from click.testing import CliRunner

    from mlauth.cli import main

    profile = [] if job.use == "environment" else ["--profile", "p"]
    done = CliRunner().invoke(main, ["check", "--json", *profile])
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return "wrong use", done.stderr.strip(), done.exit_code, done.output
    stages = [(each["system"], stage) for each in report["systems"] for stage in each["stages"]]
    for system, stage in stages:
        if stage["status"] == report["status"] != "passed":
            line = f"{system}, {stage['stage']}: {stage['detail']}"
            return report["status"], line, done.exit_code, done.output
    warnings = [warning for _, stage in stages for warning in stage["warnings"]]
    return report["status"], "; ".join(warnings), done.exit_code, done.output


def activate(job: Job) -> tuple[str, str, int | None, str]:
    import mlauth

    before = dict(os.environ)
    try:
        with mlauth.activate("p", timeout=job.seconds) as active:
            result = "goes on", "; ".join(active.warnings), None, repr(active)
    except Exception as error:
        result = type(error).__name__, str(error), None, repr(error)
    if dict(os.environ) != before:
        return "left something behind", "", None, ""
    return result


def component(job: Job) -> tuple[str, str, int | None, str]:
    import zenml_mlauth

    try:
        report = zenml_mlauth.check(timeout=job.seconds)
    except Exception as error:
        return type(error).__name__, str(error), None, repr(error)
    if report.status.value == "unknown":
        return "goes on", report.summary(), None, repr(report)
    return report.status.value, "; ".join(report.warnings), None, repr(report)


USES = {"check": check, "environment": check, "activate": activate, "component": component}


def run(job: Job, answer: int) -> None:
    """Run a job in this process, and write its outcome."""
    os.environ.clear()
    os.environ.update(job.environment)
    os.environ.setdefault("MLAUTH_TIMEOUT", str(job.seconds))
    os.chdir(job.folder)
    start = time.monotonic()
    try:
        kind, line, code, output = USES[job.use](job)
    except BaseException as error:
        kind, line, code, output = "broke", f"{type(error).__name__}: {error}", None, repr(error)
    outcome = Outcome(kind, line, code, time.monotonic() - start, output)
    with open(answer, "w") as pipe:
        json.dump(asdict(outcome), pipe)


def main() -> None:
    """Run the jobs, so many at once; a fork that ends makes room for the next."""
    import zenml.client
    import zenml.zen_stores.rest_zen_store  # noqa: F401

    import zenml_mlauth  # noqa: F401

    gc.freeze()  # or every fork copies what it looks through
    waiting = [Job(**each) for each in json.load(sys.stdin)]
    outcomes: list[Any] = [None] * len(waiting)
    running: dict[int, tuple[int, int]] = {}
    numbers = iter(range(len(waiting)))

    def start() -> None:
        number = next(numbers, None)
        if number is None:
            return
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            run(waiting[number], writing)
            os._exit(0)
        os.close(writing)
        running[pid] = (number, reading)

    for _ in range(AT_ONCE):
        start()
    while running:
        pid, _ = os.wait()
        number, reading = running.pop(pid)
        with open(reading) as pipe:
            outcomes[number] = json.load(pipe)
        start()
    Path(sys.argv[1]).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()

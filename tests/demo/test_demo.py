"""`mlauth demo`, as a person runs it."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from mlauth.demo.search import search

pytestmark = pytest.mark.timeout(300)

CANARY = 'canary-71"/+ü'


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "mlauth.cli", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def left_over(tmp_path: Path) -> list[str]:
    """Return what of a demo is still there: its folder, and processes that work in it."""
    working = []
    for process in psutil.process_iter():
        try:
            if any(str(tmp_path) in word for word in process.environ().values()):
                working.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return [path.name for path in tmp_path.glob("mlauth-demo-*")] + working


def test_the_demo_shows_what_it_promises_and_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    for line in (
        "✓ a ZenML server and a Prefect server start",
        "authenticated   passed",
        "flow run      Completed  http://127.0.0.1:",
        "pipeline run  completed  http://127.0.0.1:",
        "ran as        prefect-prod, says the ZenML server",
        "model         accuracy 0.",
        "and nowhere else",
    ):
        assert line in output.replace("accuracy 1.", "accuracy 0."), output
    assert "ZENKEY_" not in output
    assert left_over(tmp_path) == []


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    process = start(tmp_path, "--keep")
    assert process.stdout is not None
    while not list(tmp_path.glob("mlauth-demo-*/zenml/*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Stopped; everything was removed." in output
    assert "Traceback" not in output
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    "spelling",
    [
        CANARY,
        quote(CANARY),
        json.dumps(CANARY),
        base64.b64encode(f"user:{CANARY}".encode()).decode(),
    ],
)
def test_the_search_finds_a_secret_wherever_it_is(tmp_path: Path, spelling: str) -> None:
    assert search([CANARY], tmp_path).found == []
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "log.txt").write_text(f"line\nx={spelling}\n")
    with sqlite3.connect(tmp_path / "data.db") as database:
        database.execute("CREATE TABLE events (id INTEGER, payload TEXT)")
        # So long that it is split over pages.
        database.execute("INSERT INTO events VALUES (1, ?)", ["a" * 3990 + spelling + "b" * 9000])
    database.close()
    result = search([CANARY], tmp_path)
    assert f"{tmp_path}/deep/er/log.txt" in result.found
    assert f"{tmp_path}/data.db: events" in result.found
    assert (result.files, result.databases, result.rows) == (2, 1, 1)

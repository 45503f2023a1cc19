"""The demo, as `make demo` runs it."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest

from demo.run import DemoFailed, _show_search
from tests.support.canaries import canary, leaks
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parent.parent
CANARY = canary("demo")


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "demo.run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
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


@pytest.mark.load
def test_the_demo_shows_what_it_promises_stays_up_until_ctrl_c_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    process = start(tmp_path, "--keep")
    assert process.stdout is not None
    output = ""
    while "The servers stay up" not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    for promised in (
        r"✓ a ZenML server and a Prefect server start \(\d+\.\d s\)",
        r"authenticated +passed +[\d,]+ ms",
        r"flow run +Completed +http://127\.0\.0\.1:\d+/runs/flow-run/[-\w]{36}\n",
        r"pipeline run +completed +http://127\.0\.0\.1:\d+/projects/default/runs/[-\w]{36}\n",
        r"ran as +prefect-prod \(the ZenML server says so\)",
        r"model +accuracy [01]\.\d+",
        r"into the pipeline run\n(  \d\. zenml .* passed in .* s\n){5}  account +prefect-prod",
        r"and 2 databases with [\d,]+ rows",
        r"found in its store \(.*/secrets/api-key\) and nowhere else",
    ):
        assert re.search(promised, output), output
    for url in re.findall(r"http://\S+", output):
        assert httpx.get(url).status_code == 200, url
    (store,) = tmp_path.glob("mlauth-demo-*/secrets/api-key")
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    key = store.read_text()
    assert key.startswith("ZENKEY_")

    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert leaks(output + rest, key) == []
    assert left_over(tmp_path) == []


@pytest.mark.load
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_early_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path)
    until(lambda: list(tmp_path.glob("mlauth-demo-*/zenml/*")))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "Stopped; everything was removed." in output
    assert "Traceback" not in output
    assert left_over(tmp_path) == []


def test_a_key_that_was_left_somewhere_is_named_and_fails_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, log = tmp_path / "api-key", tmp_path / "worker.log"
    store.write_text(CANARY)
    log.write_text(f"key: {quote(CANARY)}")
    with pytest.raises(DemoFailed, match=r"the key was left in .*/worker\.log") as raised:
        _show_search(tmp_path, store, CANARY)
    shown = capsys.readouterr().out + str(raised.value)
    assert f"found in its store ({store}) and {log}" in shown
    assert "nowhere else" not in shown
    assert CANARY not in shown


def test_a_search_that_misses_the_key_in_its_own_store_is_not_trusted(tmp_path: Path) -> None:
    store = tmp_path / "api-key"
    store.write_text("another")
    with pytest.raises(DemoFailed, match="do not trust it"):
        _show_search(tmp_path, store, CANARY)

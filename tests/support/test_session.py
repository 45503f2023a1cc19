"""Servers of a session whose tests run in several processes; a small process stands for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import until

ROOT = Path(__file__).parent.parent.parent
CONFTEST = """
import os
from tests import conftest
from tests.conftest import ask, pytest_configure, pytest_configure_node, pytest_unconfigure
from tests.support.managed import ManagedProcess
from tests.support.session import Servers


class Small(ManagedProcess):
    def _command(self):
        return ["http.server", "--bind", "127.0.0.1", "0"]

    def _environment(self):
        return {}

    def _is_ready(self):
        return "Serving" in self.log.read_text()


class WithSmall(Servers):
    def _small(self, folder):
        small = Small(folder)
        self._started(small)
        with open(os.environ["STARTED"], "a") as started:
            print(small.pids()[0], file=started)
        return small.pids()[0]


conftest.Servers = WithSmall
"""
TESTS = """
import os, threading
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number, ask, worker_id):
    assert os.path.exists(f"/proc/{ask('small')}")
    if number == 1 and os.environ["MODE"] == "crash":
        os._exit(1)
    if os.environ["MODE"] == "wait":
        threading.Event().wait()
"""


@pytest.mark.process
@pytest.mark.parametrize("mode", ["crash", "wait"])
@pytest.mark.load
def test_the_servers_of_a_session_end_with_it(mode: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    started = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(tmp_path),
            "STARTED": str(started),
            "MODE": mode,
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        if mode == "wait":
            until(started.exists)
            session.send_signal(signal.SIGINT)
        said, _ = session.communicate(timeout=100)
    (pid,) = started.read_text().split()
    assert not psutil.pid_exists(int(pid))
    assert ("1 failed, 5 passed" if mode == "crash" else "KeyboardInterrupt") in said

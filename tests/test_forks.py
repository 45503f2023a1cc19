"""A process that forks while its threads resolve: the child can resolve as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.azure import Azure

pytestmark = pytest.mark.process

FORKS = """
import json, os, signal, sys, threading, time, warnings
import mlauth
from mlauth import EnvironmentSecrets

warnings.simplefilter("ignore")  # Python's own, of forks in processes with threads
reference, forks = sys.argv[1], int(sys.argv[2])
env = {"SHORT": reference, "LONG": "env://FROM"}

def work(number):
    for turn in range(1_000_000):
        os.environ["FROM"] = f"canary-{number}-{turn}-" + "x" * 100_000
        mlauth.resolve({"a": "env://FROM", "b": reference})
        with mlauth.activate(EnvironmentSecrets.of("test", {"env": {f"A{number}": reference}})):
            pass

for number in range(3):
    threading.Thread(target=work, args=(number,), daemon=True).start()
ended = []
for number in range(forks):
    time.sleep(0.05 * (number % 4))
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        os.environ["FROM"] = f"canary-of-child-{number}"
        with mlauth.activate(EnvironmentSecrets.of("test", {"env": env}), timeout=30):
            assert os.environ["LONG"] == f"canary-of-child-{number}"
        os._exit(0)
    ended.append(os.waitpid(pid, 0)[1])
print(json.dumps(ended))
os._exit(0)
"""


def fork(environment: dict[str, str], reference: str, times: int) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FORKS, reference, str(times)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert isinstance(ended, list)
    return ended


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.load
def test_children_of_a_process_whose_threads_resolve_do_so_as_well(azure: Azure) -> None:
    vault = azure.vault()
    vault.put("key", "canary-of-the-vault")
    # Tokens that end so soon are used only once, so the threads ask for new ones all the time.
    environment = azure.environment(azure.identity("get", lifetime=200))
    assert fork(environment, f"azurekv://{vault.name}/key", 30) == [0] * 30


@pytest.mark.usefixtures("clean_environment")
def test_a_fork_in_the_middle_of_the_first_use(tmp_path: Path) -> None:
    """A module that is imported meanwhile is not half-imported, and locked, in the child."""
    (tmp_path / "key").write_text("canary-of-the-file")
    assert fork({}, f"file://{tmp_path}/key", 4) == [0] * 4


IMPORTS = """
import sys
from mlauth import forks  # before logging, whose hooks at a fork would otherwise run after ours
import json, os, signal, threading

sys.path.insert(0, sys.argv[1])
threading.Thread(target=forks.load, args=("slow",)).start()
while "slow" not in sys.modules or not hasattr(sys.modules["slow"], "started"):
    pass
signal.alarm(25)
pid = os.fork()
if pid == 0:
    os._exit(0)
print(json.dumps([os.waitpid(pid, 0)[1]]))
"""
SLOW = """
import logging, time

started = time.monotonic()
while time.monotonic() < started + 0.3:
    logging.getLogger(__name__)
"""


def test_a_fork_while_what_is_imported_makes_a_logger(tmp_path: Path) -> None:
    """`logging` has a lock of its own and holds it in a fork; nobody may wait for ever."""
    (tmp_path / "slow.py").write_text(SLOW)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "[0]\n"), done.stderr

"""Variables of a step or block are restored, whatever ends it and wherever that happens."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlauth import environment
from mlauth.errors import ActivationError
from mlauth.stores import memory
from prefect_mlauth import ZenMLCredentials, steps
from tests.support.servers import PrefectServer
from tests.support.zenml_keys import api_key
from tests.test_lifetime import at_line, interrupt

URL = "http://127.0.0.1:9"  # nobody is asked
OURS = (
    *("activation.py", "environment.py", "folders.py", "record.py", "isolation.py"),
    *("active.py", "runs.py", "steps.py"),
)


@pytest.fixture(autouse=True)
def key(clean_environment: Path) -> Iterator[None]:
    """A key in this process's memory. Variables of steps last for a whole run, so they go."""
    memory.put("key", api_key("canary"))
    yield
    while environment._active:
        environment._active[-1].undo()


def step() -> None:
    steps.zenml_login(URL, "memory://key", verify=False)


def block() -> None:
    with ZenMLCredentials(store_url=URL, api_key="memory://key", verify=False).login():
        pass


async def in_async_code() -> None:
    async with ZenMLCredentials(store_url=URL, api_key="memory://key", verify=False).login():
        pass


def async_block() -> None:
    loop = asyncio.new_event_loop()  # `asyncio.run` would turn Ctrl-C into a cancelled task
    try:
        loop.run_until_complete(in_async_code())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.process
@pytest.mark.parametrize(
    "use", [step, *(pytest.param(use, marks=pytest.mark.load) for use in (block, async_block))]
)
def test_ctrl_c_at_any_line_leaves_nothing(use: Callable[[], None]) -> None:
    """At each line of the code that sets and undoes, one after the other."""
    use()  # the first use imports modules, and those lines do not count
    while environment._active:
        environment._active[-1].undo()
    before, points, left = dict(os.environ), 0, set()
    while True:
        points += 1
        try:
            with at_line(points, interrupt, OURS) as lines:
                use()
        except KeyboardInterrupt:
            held = environment._lock._is_owned()  # type: ignore[attr-defined]
            if dict(os.environ) != before or environment._active or held:
                left.add(lines[-1])
                while environment._active:
                    environment._active[-1].undo()
                for name in set(os.environ) - set(before):
                    del os.environ[name]
            # If the interrupt comes before the folder is noted, the next process removes it.
            for folder in Path(os.environ["TMPDIR"]).glob("mlauth-*"):
                assert list(folder.iterdir()) == []
                folder.rmdir()
        else:
            break
    assert left == set()
    assert points > 100
    assert {line.partition(":")[0] for line in lines} > {"_set", "enter", "swap", "tell"}


class Broken(logging.Handler):
    """A log handler of the user's that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        if "mlauth: set" in record.getMessage():
            raise RuntimeError("the disk is full")


@pytest.mark.parametrize("use", [step, block, async_block])
def test_a_logger_that_raises_leaves_nothing(use: Callable[[], None]) -> None:
    from prefect.logging import get_logger

    before, handler, logger = dict(os.environ), Broken(), get_logger("mlauth")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(RuntimeError, match="the disk is full"):
            use()
        assert dict(os.environ) == before
        assert list(Path(os.environ["TMPDIR"]).glob("mlauth-*")) == []
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)


def test_one_login_is_used_again_but_not_inside_of_itself() -> None:
    login = ZenMLCredentials(store_url=URL, api_key="memory://key", verify=False).login()
    before = dict(os.environ)
    for _ in range(2):
        with login:
            inside = dict(os.environ)
            with pytest.raises(ActivationError, match="is active already"), login:
                pytest.fail("entered")
            assert dict(os.environ) == inside
        assert dict(os.environ) == before


TIMEOUTS = """
import logging, os, socket, time
from prefect import flow, task
from mlauth.stores import memory
from prefect_mlauth import ZenMLCredentials
from tests.support.zenml_keys import api_key

memory.put("key", api_key("canary"))
silent = socket.create_server(("127.0.0.1", 0))  # takes what is sent, and never answers
silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"


class Slow(logging.Handler):
    def emit(self, record):
        if "mlauth: set" in record.getMessage():
            for _ in range(1000):
                time.sleep(0.01)


for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).addHandler(Slow())


def work(url, verify):
    block = ZenMLCredentials(store_url=url, api_key="memory://key", verify=verify, timeout=2)
    with block.login():
        raise AssertionError("entered")


in_time = flow(timeout_seconds=0.5)(work)
task_in_time = task(timeout_seconds=0.5)(work)


@flow
def with_a_task(url, verify):
    task_in_time.submit(url, verify).result()


for run in (in_time, with_a_task):
    for url, verify in ((silent_url, True), ("http://127.0.0.1:9", False)):
        before = dict(os.environ)
        try:
            run(url, verify)
        except BaseException as error:
            kept = error  # as Prefect keeps it in the run's state
            print(type(error).__name__, [name for name in os.environ if name not in before])
"""


@pytest.mark.load
def test_a_timeout_that_comes_during_a_login_leaves_nothing(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    """By Prefect's alarm in the main thread, and by its exception in another; on a server that
    does not answer, and when all is set but not yet told."""
    done = subprocess.run(
        [sys.executable, "-c", TIMEOUTS],
        capture_output=True,
        text=True,
        env=prefect_server.environment(tmp_path / "run"),
        cwd=Path(__file__).parents[2],
        timeout=100,
    )
    assert done.stdout.splitlines() == [
        *["FlowRunTimeoutError []"] * 2,
        *["TaskRunTimeoutError []"] * 2,
    ], done.stdout + done.stderr

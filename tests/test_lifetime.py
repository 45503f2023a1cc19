"""Activations that overlap, that are interrupted anywhere, and whose process is killed anywhere."""

from __future__ import annotations

import asyncio
import gc
import json
import linecache
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import permutations
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

import mlauth
from mlauth import EnvironmentSecrets, Profile, folders
from mlauth.environment import Activating
from mlauth.errors import ActivationError
from mlauth.record import RECORD, read_record
from mlauth.report import CheckReport
from mlauth.stores import memory
from mlauth.systems import Exports
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.usefixtures("clean_environment")


def activation(**env: str) -> AbstractContextManager[mlauth.Activation]:
    """Activate variables with these values."""
    for name, value in env.items():
        memory.put(f"{name}-{value}", value)
    references = {name: f"memory://{name}-{value}" for name, value in env.items()}
    return mlauth.activate(EnvironmentSecrets.of("test", {"env": references}))


def zenml(key: str) -> AbstractContextManager[mlauth.Activation]:
    """Activate a key for a server that is not asked."""
    memory.put("zenml", key)
    fields = {"store_url": "http://127.0.0.1:9", "api_key": "memory://zenml"}
    return mlauth.activate(Profile.model_validate({"zenml": fields}), verify=False)


class TestOverlapping:
    def test_the_inner_one_of_two_wins_and_is_undone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("A", "before")
        with activation(A="outer", B="outer"):
            with activation(A="inner", C="inner"):
                assert [os.environ[name] for name in "ABC"] == ["inner", "outer", "inner"]
                assert read_record()["secrets"] == ["A", "B", "C"]
            assert [os.environ.get(name) for name in "ABC"] == ["outer", "outer", None]
            assert read_record()["secrets"] == ["A", "B"]
        assert [os.environ.get(name) for name in "ABC"] == ["before", None, None]
        assert RECORD not in os.environ

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    @pytest.mark.parametrize("inherited", [None, '{"secrets": ["OTHER"], "owner": 1}'])
    def test_in_whatever_order_they_end_nothing_is_left_and_nothing_stale_comes_back(
        self, order: tuple[int, ...], inherited: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if inherited:
            monkeypatch.setenv(RECORD, inherited)
        monkeypatch.setenv("A", "before")
        before = dict(os.environ)
        values = [{"A": "zero"}, {"A": "one", "B": "one"}, {"A": "two", "B": "two", "C": "two"}]
        active = {number: activation(**env) for number, env in enumerate(values)}
        for each in active.values():
            each.__enter__()
        for number in order:
            active.pop(number).__exit__(None, None, None)
            for name in "ABC":  # the last active one with the variable decides
                wanted = [values[left][name] for left in active if name in values[left]]
                assert os.environ.get(name) == (wanted[-1] if wanted else before.get(name))
            if active:
                left = {name for number in active for name in values[number]}
                assert set(read_record()["secrets"]) - {"OTHER"} == left
        assert dict(os.environ) == before

    def test_zenmls_client_outlives_an_earlier_activation(self) -> None:
        from zenml.config.global_config import GlobalConfiguration

        before, theirs = dict(os.environ), GlobalConfiguration()
        first, second = zenml(api_key("first")), zenml(api_key("second"))
        first.__enter__()
        folder = Path(os.environ["ZENML_CONFIG_PATH"])
        second.__enter__()
        inner = GlobalConfiguration()
        first.__exit__(None, None, None)
        assert not folder.exists()
        assert GlobalConfiguration() is inner
        assert Path(os.environ["ZENML_CONFIG_PATH"]).is_dir()
        second.__exit__(None, None, None)
        assert GlobalConfiguration() is theirs
        assert dict(os.environ) == before

    def test_what_the_steps_of_a_run_exported_may_be_replaced_for_a_while(self) -> None:
        before = dict(os.environ)
        with ThreadPoolExecutor(1) as pool:  # Prefect runs steps like this
            exports = [Exports({"A": SecretStr("of the run")})]
            of_the_run = Activating(exports, CheckReport("test"))
            pool.submit(of_the_run.activate, lambda _: None, owner=os.getpid()).result()
        with activation(A="of the flow"):
            assert os.environ["A"] == "of the flow"
        assert os.environ["A"] == "of the run"
        assert read_record()["secrets"] == ["A"]
        of_the_run.undo()
        assert dict(os.environ) == before

    @settings(
        max_examples=50,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ABC"), st.text("xyz", min_size=1)))
    )
    def test_whatever_begins_and_ends(self, moves: list[tuple[int, str, str]]) -> None:
        before, active = dict(os.environ), dict[int, AbstractContextManager[mlauth.Activation]]()
        for number, name, value in moves:
            if number in active:
                active.pop(number).__exit__(None, None, None)
            else:
                active[number] = activation(**{name: value})
                active[number].__enter__()
        for each in active.values():
            each.__exit__(None, None, None)
        assert dict(os.environ) == before


class TestThreadsAndTasks:
    def test_threads_with_the_same_values_may_overlap(self) -> None:
        before, meeting = dict(os.environ), threading.Barrier(8)

        def work(number: int) -> None:
            with activation(A="same", **{f"OWN_{number}": str(number)}):
                meeting.wait(20)
                assert (os.environ["A"], os.environ[f"OWN_{number}"]) == ("same", str(number))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert dict(os.environ) == before

    def test_threads_with_another_value_are_refused_by_name_and_change_nothing(self) -> None:
        with activation(A="outer"), ThreadPoolExecutor(1) as pool:
            before = dict(os.environ)
            with pytest.raises(ActivationError) as caught:
                pool.submit(activation(A="canary", B="canary").__enter__).result()
            assert dict(os.environ) == before
        said = str(caught.value)
        assert "has an activation with A, and a process has one environment" in said
        assert "canary" not in said
        assert said.isprintable()

    def test_zenmls_client_is_one_for_the_process_so_a_second_thread_is_refused(self) -> None:
        with zenml(api_key()), ThreadPoolExecutor(1) as pool:
            with pytest.raises(ActivationError, match="ZENML_CONFIG_PATH"):
                pool.submit(zenml(memory._secrets["zenml"].get_secret_value()).__enter__).result()
            assert len(list(Path(os.environ["TMPDIR"]).glob("mlauth-*"))) == 1

    def test_a_thread_may_activate_once_the_other_has_ended(self) -> None:
        def work() -> str:
            with activation(A="two"):
                return os.environ["A"]

        with activation(A="one"):
            pass
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() == "two"

    def test_many_threads_leave_the_environment_as_it_was(self) -> None:
        before = dict(os.environ)

        def work(number: int) -> None:
            for turn in range(25):
                name, value = "AB"[turn % 2], str(number % 2)
                with suppress(ActivationError), activation(**{name: value}):
                    assert os.environ[name] == value

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert dict(os.environ) == before

    def test_tasks_with_another_value_are_refused_and_nested_ones_are_not(self) -> None:
        async def other() -> None:
            with activation(A="other"):
                pass

        async def same() -> str:
            with activation(A="one", B="two"), activation(B="nested"):
                await asyncio.sleep(0)
                return os.environ["B"]

        async def main() -> None:
            with activation(A="one"):
                with pytest.raises(ActivationError, match="another thread or task"):
                    await asyncio.create_task(other())
                assert await asyncio.create_task(same()) == "nested"
            await asyncio.create_task(other())

        before = dict(os.environ)
        asyncio.run(main())
        assert dict(os.environ) == before

    def test_a_task_that_is_cancelled_puts_everything_back(self) -> None:
        async def work(inside: asyncio.Event) -> None:
            with activation(A="one"):
                inside.set()
                await asyncio.sleep(600)

        async def main() -> None:
            inside = asyncio.Event()
            task = asyncio.create_task(work(inside))
            await inside.wait()
            assert os.environ["A"] == "one"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        before = dict(os.environ)
        asyncio.run(main())
        assert dict(os.environ) == before


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit, RuntimeError])
def test_undo_is_exact_whatever_is_raised(raised: type[BaseException]) -> None:
    before = dict(os.environ)

    def body() -> None:
        with zenml(api_key()), activation(A="one"):
            raise raised

    with pytest.raises(raised):
        body()
    assert dict(os.environ) == before
    assert list(Path(os.environ["TMPDIR"]).glob("mlauth-*")) == []


def test_a_generator_that_is_closed_puts_everything_back() -> None:
    def values() -> Iterator[str]:
        with activation(A="one"):
            yield os.environ["A"]

    before, generator = dict(os.environ), values()
    assert next(generator) == "one"
    generator.close()
    assert dict(os.environ) == before


OURS = ("activation.py", "environment.py", "folders.py", "record.py", "isolation.py")


@contextmanager
def at_line(
    number: int, then: Callable[[], None], files: tuple[str, ...] = OURS
) -> Iterator[list[str]]:
    """Call a function at the n-th line of these files that this thread runs from here on.

    Two events do not count, because an error from a tracer would leave a lock held there for ever,
    and a signal does not: the line that leaves a `with`, where Python looks for signals only after
    `__exit__`, and the same line again, as in the loop of a comprehension of Python 3.12.
    """
    lines: list[str] = []
    last: dict[int, int] = {}

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object] | None:
        if not frame.f_code.co_filename.endswith(files) or "mlauth" not in frame.f_code.co_filename:
            return None
        line_before, last[id(frame)] = last.get(id(frame), 0), frame.f_lineno
        is_left = line_before > frame.f_lineno and (
            linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
        )
        if event == "line" and not is_left and line_before != frame.f_lineno:
            lines.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(lines) == number:
                then()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.load
def test_an_activation_that_the_garbage_collector_ends_inside_of_another_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At each line of an activation's own code, one after the other."""

    def abandoned() -> Iterator[None]:
        with activation(A="outer", B="outer"):
            yield

    monkeypatch.setenv("A", "before")
    before, points = dict(os.environ), 0
    gc.disable()
    gc.freeze()  # so the collector skips the objects that exist by now
    try:
        while True:
            points += 1
            generator = abandoned()
            next(generator)
            circle: list[object] = [generator]
            circle.append(circle)
            del generator, circle  # from here on, only the garbage collector can end it
            with at_line(points, gc.collect) as lines, activation(A="inner", C="inner"):
                assert [os.environ[name] for name in "AC"] == ["inner", "inner"], lines[-1]
            gc.collect()
            assert dict(os.environ) == before, lines[points - 1 : points]
            if points > len(lines):
                break
    finally:
        gc.unfreeze()
        gc.enable()
    assert points > 80


@pytest.mark.load
def test_undo_is_exact_wherever_ctrl_c_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each line of an activation's own code, one after the other."""
    from zenml.config.global_config import GlobalConfiguration

    monkeypatch.setenv("ZENML_STORE_API_TOKEN", "left-over")
    key, theirs = api_key("canary"), GlobalConfiguration()
    before, points = dict(os.environ), 0
    while True:
        points += 1
        try:
            with at_line(points, interrupt) as lines, zenml(key):
                pass
        except KeyboardInterrupt:
            assert dict(os.environ) == before, lines[-1]
            assert GlobalConfiguration() is theirs, lines[-1]
            # If the interrupt comes before the folder is noted, the next process removes it.
            for folder in Path(os.environ["TMPDIR"]).glob("mlauth-*"):
                assert {path.name for path in folder.iterdir()} <= {"zenml"}  # no secret
                folders.remove(str(folder))
        else:
            break
    assert points > 80
    assert {line.partition(":")[0] for line in lines} > {"activate", "_set", "undo", "enter"}
    assert dict(os.environ) == before


KILLED = """
import json, os, signal, sys
from pathlib import Path
from tests.test_lifetime import at_line, zenml

import yaml, psutil  # as in a process that has used them
key, temporary = sys.argv[1:]
left, points = 0, 0
while True:
    points += 1
    pid = os.fork()
    if pid == 0:
        with at_line(points, lambda: os.kill(os.getpid(), signal.SIGKILL)), zenml(key):
            pass
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    folders = list(Path(temporary).glob("mlauth-*"))
    left += len(folders)
    for path in Path(temporary).rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    with zenml(key):  # the next one sweeps
        assert len(list(Path(temporary).glob("mlauth-*"))) == 1
    assert not list(Path(temporary).glob("mlauth-*"))
    if status == 0:
        break
print(json.dumps({"points": points, "left": left}))
"""


@pytest.mark.load
def test_a_process_that_is_killed_anywhere_leaves_no_secret_and_is_swept(
    clean_environment: Path,
) -> None:
    """At each line of an activation's own code, one after the other."""
    config = clean_environment / ".config" / "zenml"
    config.mkdir(parents=True)
    (config / "config.yaml").write_text("analytics_opt_in: false\n")
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, api_key("canary"), os.environ["TMPDIR"]],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["points"] > 80
    assert told["left"] > 20  # it was killed with its folder there, too


FORKED = """
import gc, os, threading
from mlauth import masking
from tests.test_lifetime import activation

gc.disable()

def abandoned():
    with activation(A="one"):
        yield

generator = abandoned()
next(generator)
circle = [generator]
circle.append(circle)
del generator, circle

def values():  # asked for by a thread that holds a lock, while the other one forks
    held.set()
    forks.wait(20)
    gc.collect()
    yield "canary"

held, forks = threading.Event(), threading.Event()
thread = threading.Thread(target=masking.register, args=(values(),))
thread.start()
held.wait()
threading.Timer(0.3, forks.set).start()
if os.fork() == 0:
    with activation(B="of the child"):
        os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
thread.join()
assert "A" not in os.environ
"""


def test_a_fork_waits_for_locks_and_holds_none_that_their_holders_wait_for() -> None:
    root = str(Path(__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", FORKED],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
        timeout=30,
    )

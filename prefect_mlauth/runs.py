"""Finds out in which process of Prefect a step runs. Facts: sources of Prefect 3.3.7 to 3.8.8.

There are three ways:
(A) `prefect flow-run execute` (container work pools) runs the steps in a child process, which ends
before the flow starts.
(B) The process worker and `serve` run the steps in the engine's process.
(C) To run the hooks of a crash, a runner loads the flow, and runs the steps in its own process.
This may be a worker, a script that serves flows, or `flow-run execute`.
From Prefect 3.8 on, A and B are alike: a process runs the steps, and then replaces itself by the
engine (exec; on Windows it starts the engine).

The variable `PREFECT__FLOW_RUN_ID` decides nothing: the engine may get the id as an argument, and a
worker may have inherited the variable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, TypeAlias

from mlauth.environment import Activation
from mlauth.errors import ActivationError

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

_ENGINE = "prefect.engine"
_RESOLVER = "prefect.runner._workspace_resolver"
_SUPERVISOR = "prefect.runner._workspace_supervisor"  # in Prefect 3.8, it becomes the engine
_ENGINES = {_ENGINE, "prefect.flow_engine"}
_CALLS = "prefect._internal.concurrency.calls"
_RUNNERS = ("prefect.runner.", "prefect.workers.")
# Methods of `Runner` (all versions) and `HookRunner` (from 3.7 on) that load a flow and run hooks.
_HOOKS = {
    "_run_on_cancellation_hooks",
    "_run_on_crashed_hooks",
    "run_cancellation_hooks",
    "run_crashed_hooks",
}


def main_module() -> str:
    """Return the name of the module that Python was started with, `python -m NAME`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "")


def in_resolver() -> bool:
    """Say whether this is the child process of (A), which ends before the flow starts."""
    return main_module() == _RESOLVER


def in_engine() -> bool:
    """Say whether this process runs a flow for a worker."""
    return main_module() in _ENGINES


def in_hook() -> bool:
    """Say whether this is (C): a runner of Prefect runs this for the hooks of a crashed run.

    Nothing may be set there, because the runner lives on, and the runs that it starts would inherit
    the variables. No flow follows in that process. Everywhere else a flow may follow, so there a
    step sets its variables or fails.

    Raises:
        ActivationError: a runner or worker of Prefect runs this for an unknown reason.
    """
    if "prefect.runner" not in sys.modules:
        return False
    callers = [(str(frame.f_globals.get("__name__")), frame.f_code.co_name) for frame in _callers()]
    prefects = [(module, name) for module, name in callers if module.startswith(_RUNNERS)]
    if any(name in _HOOKS for _, name in prefects):
        return True
    if prefects and not (main_module() in {_RESOLVER, _SUPERVISOR, *_ENGINES} or _in_run()):
        module, name = prefects[0]
        raise ActivationError(
            f"nothing is set: {module}.{name} of this version of Prefect runs this, and mlauth "
            "does not know if a flow follows in this process, or if other runs would inherit the "
            "credentials: install a version of Prefect that mlauth supports, or log in inside of "
            "the flow"
        )
    return False


def _in_run() -> bool:
    from prefect.context import FlowRunContext, TaskRunContext

    return bool(FlowRunContext.get() or TaskRunContext.get())


def _callers() -> Iterator[FrameType]:
    """Yield the frames of this thread, and of the coroutine that waits for it.

    Prefect runs a step, and a hook that is no coroutine, in a thread of its own, and imports flows
    in a thread of anyio. The coroutine that waits has the `Call` that runs here, or this thread, in
    a local variable.
    """
    here: list[object] = [threading.current_thread()]
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the only way to see who calls
    while frame is not None:
        yield frame
        if frame.f_globals.get("__name__") == _CALLS:
            here.append(frame.f_locals.get("self"))
        frame = frame.f_back
    for task in _tasks():
        frames = list(_awaited(task.get_coro()))
        values = [value for frame in frames for value in frame.f_locals.values()]
        if any(value is each for value in values for each in here if each is not None):
            yield from frames


def _tasks() -> list[asyncio.Task[Any]]:
    """Return the tasks of every event loop of this process.

    `asyncio.all_tasks` cannot be used: it needs the event loop, which belongs to another thread.
    The first name is from Python 3.10 and 3.11, the others are from 3.12 and 3.13
    (`Lib/asyncio/tasks.py`).
    """
    found: list[asyncio.Task[Any]] = []
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        done = False
        while not done:
            with suppress(RuntimeError):  # another thread changed the set meanwhile
                found += list(getattr(asyncio.tasks, name, ()))
                done = True
    return found


def _awaited(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine, of the coroutine that it waits for, and so on."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None)


def owner() -> int:
    """Return the process that lives as long as the run: the parent in (A), else this process."""
    return os.getppid() if in_resolver() else os.getpid()


def flow_run_id() -> str:
    """Return the id of the flow run that this step belongs to, or an empty text."""
    if in_resolver() or (main_module() == _ENGINE and len(sys.argv) > 1):
        return sys.argv[1]
    return os.environ.get("PREFECT__FLOW_RUN_ID", "")


def run_logger() -> Logger:
    """Return the logger of the flow run, whose lines the UI shows; without a run, another one."""
    from prefect.logging import get_logger, get_run_logger

    if _in_run():
        return get_run_logger()
    run_id = flow_run_id()
    if not run_id:
        return get_logger("mlauth")
    return logging.LoggerAdapter(
        logging.getLogger("prefect.flow_runs"),
        {"flow_run_id": run_id, "flow_run_name": run_id, "flow_name": "<unknown>"},
    )


def tell(logger: Logger, activation: Activation) -> None:
    """Log the warnings, the accounts and the names of the variables, for people."""
    for warning in activation.warnings:
        logger.warning("mlauth: %s", warning)
    proven = "".join(f"{each.summary()}; " for each in activation.report.systems if each.proven)
    logger.info("mlauth: %sset %s", proven, ", ".join(activation.variables))

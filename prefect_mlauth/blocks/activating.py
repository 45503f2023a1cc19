"""One object for `with` and `async with`: credentials in the environment while it lasts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from mlauth.activation import Activation, Exported, Prepared, caller, export
from mlauth.credentials import Exports
from mlauth.errors import ActivationError
from prefect_mlauth import handlers, runs


class Activating:
    """Sets the variables on entry, and puts back exactly what was there before on exit.

    The environment belongs to the whole process: it can be nested, but flows and tasks that run
    at the same time in this process all see what is set, and cannot set other values.

    Args:
        prepare: reads and checks the credentials; in `async with` it runs in a thread.
    """

    def __init__(self, prepare: Callable[[], Prepared]) -> None:
        self._prepare = prepare
        self._active: list[Exported] = []

    def __enter__(self) -> Activation:
        _refuse_in_worker()
        return self._export(self._prepare())

    def __exit__(self, *raised: object) -> None:
        self._active.pop().undo()

    async def __aenter__(self) -> Activation:
        _refuse_in_worker()
        # Only what waits for others runs in the thread: a task that is cancelled there has not
        # exported anything.
        return self._export(await asyncio.to_thread(self._prepare))

    async def __aexit__(self, *raised: object) -> None:
        self.__exit__()

    def _export(self, ready: Prepared) -> Activation:
        # Processes that start meanwhile, such as those of a ProcessPoolTaskRunner, mask too.
        masking = handlers.for_children()
        exports = [*ready.exports, Exports(settings=masking)]
        exported = export(exports, owner=os.getpid(), by=caller())
        self._active.append(exported)
        names = tuple(name for name in exported.names if name not in masking)
        warnings = (*ready.warnings, *exported.warnings())
        runs.tell(_logger(), warnings, ready.report.facts, names)
        return Activation(names, ready.report, warnings)


def _refuse_in_worker() -> None:
    if runs.in_long_lived_process():
        raise ActivationError(
            "a block sets nothing here: Prefect runs this hook in a worker, or in a script that "
            "serves flows, whose environment other runs inherit; hooks run without credentials"
        )


def _logger() -> runs.Logger:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("mlauth")

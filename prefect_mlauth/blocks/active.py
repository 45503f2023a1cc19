"""One object for `with` and `async with`: it keeps credentials in the environment meanwhile."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

from mlauth.activation import active
from mlauth.environment import Activating, Activation
from mlauth.errors import ActivationError
from mlauth.masking import guard_output
from prefect_mlauth import handlers, runs


class Active(ExitStack, AsyncExitStack):
    """Sets the variables on entry, and restores the environment exactly on exit.

    It can be nested. But the environment belongs to the whole process: all flows and tasks that run
    in this process at the same time see the variables, and cannot set other values.

    `__exit__` and `__aexit__` are inherited on purpose. If they were defined here, an interrupt
    could come in their first line, before anything is restored.

    Args:
        prepare: reads and checks the credentials; in `async with` it runs in a thread.
    """

    def __init__(self, prepare: Callable[[], Activating]) -> None:
        super().__init__()
        self._prepare = prepare
        self._active: list[bool] = []

    def __enter__(self) -> Activation:  # type: ignore[override]  # the value after `as`
        _refuse_in_worker()
        return self._enter(self._prepare)

    async def __aenter__(self) -> Activation:  # type: ignore[override]  # the value after `as`
        _refuse_in_worker()
        # Only the slow part runs in a thread, and it exports nothing: so a task that is cancelled
        # meanwhile leaves nothing behind.
        ready = await asyncio.to_thread(self._prepare)
        return self._enter(lambda: ready)

    def _enter(self, prepared: Callable[[], Activating]) -> Activation:
        if self._active:
            raise ActivationError("this login is active already: ask its block for another one")
        # With these variables, processes that start meanwhile mask, too (ProcessPoolTaskRunner).
        masking = handlers.for_children()
        guard_output()
        manager = active(prepared, _tell, masking)
        try:
            self.callback(self._active.clear)
            self._active.append(True)
            return self.enter_context(manager)
        except BaseException:
            manager.__exit__(*sys.exc_info())
            self.close()
            raise


def _refuse_in_worker() -> None:
    if runs.in_hook():
        raise ActivationError(
            "a block sets nothing here: Prefect runs this hook in a worker, or in a script that "
            "serves flows, whose environment other runs inherit; hooks run without credentials"
        )


def _tell(activation: Activation) -> None:
    runs.tell(runs.run_logger(), activation)

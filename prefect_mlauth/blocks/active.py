"""One object for `with` and `async with`: credentials in the environment while it lasts."""

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
    """Sets the variables on entry, and puts back exactly what was there before on exit.

    The environment belongs to the whole process: it can be nested, but flows and tasks that run
    at the same time in this process all see what is set, and cannot set other values.

    What ends it is inherited: a line of ours there would be one at which an interrupt could come
    before anything is put back.

    Args:
        prepare: reads and checks the credentials; in `async with` it runs in a thread.
    """

    def __init__(self, prepare: Callable[[], Activating]) -> None:
        super().__init__()
        self._prepare = prepare
        self._active: list[bool] = []

    def __enter__(self) -> Activation:  # type: ignore[override]  # what `as` gives
        _refuse_in_worker()
        return self._enter(self._prepare)

    async def __aenter__(self) -> Activation:  # type: ignore[override]  # what `as` gives
        _refuse_in_worker()
        # Only what waits for others runs in the thread: a task that is cancelled there has not
        # exported anything.
        ready = await asyncio.to_thread(self._prepare)
        return self._enter(lambda: ready)

    def _enter(self, prepared: Callable[[], Activating]) -> Activation:
        if self._active:
            raise ActivationError("this login is active already: ask its block for one more")
        # Processes that start meanwhile, such as those of a ProcessPoolTaskRunner, mask too.
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

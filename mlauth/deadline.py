"""One time limit for a whole operation, whatever hangs in it.

Work runs in daemon threads: neither a call that waits for a limit nor the end of the process
waits for a thread that is stuck in an SDK (a `ThreadPoolExecutor` would be joined at exit).
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from mlauth.errors import DeadlineExceeded, InvalidCredentials, MLAuthError, bare

T = TypeVar("T")
logger = logging.getLogger("mlauth")
THREAD = "mlauth"  # the name of every thread of ours
DAY = 24 * 60 * 60  # the longest limit: Python's waiting functions refuse much larger numbers


class Deadline:
    """A point in time, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        """Start the clock.

        Args:
            seconds: how long from now; more than 0, and at most a day.

        Raises:
            InvalidCredentials: the number is outside of these limits, or no number.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise InvalidCredentials("timeout is not a number of seconds")
        if not 0 < seconds <= DAY:
            raise InvalidCredentials(
                f"timeout must be more than 0 and at most {DAY:,} seconds (a day)"
            )
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def inner(self) -> Deadline:
        """Return a deadline a little before this one.

        Code that waits until the inner one can still say itself why it is late.
        """
        inner = Deadline(self.seconds)
        inner._end = self._end - min(0.5, self.seconds / 10)
        return inner

    def remaining(self) -> float:
        """Return the seconds that are left, 0 when the time is up."""
        return max(0.0, self._end - time.monotonic())

    def run(self, function: Callable[[], T], what: str) -> T:
        """Run a function; see `run_all`."""
        (result,) = self.run_all([function], what)
        if isinstance(result, BaseException):
            raise result
        return result

    def run_all(self, functions: Sequence[Callable[[], T]], what: str) -> list[T | BaseException]:
        """Run functions concurrently, each in a daemon thread, in the caller's context variables.

        Args:
            functions: the functions.
            what: names the work in the error of a function that is late.

        Returns:
            For each function its result, or the exception that it raised (as one of ours, without
            frames), or a `DeadlineExceeded`. The result of a function that is late is dropped.
        """
        started = [self.start(function, what) for function in functions]
        results: list[T | BaseException] = []
        for each in started:
            result = self.wait(each, what)
            results.append(result)
        return results

    def start(self, function: Callable[[], T], what: str) -> Future[T]:
        """Start a function as `run_all` does; `wait` gives its result."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                result = function()
            except BaseException as error:
                future.set_exception(_leaving(error, what))
            else:
                future.set_result(result)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name=THREAD, daemon=True).start()
        return future

    def wait(self, started: Future[T], what: str) -> T | BaseException:
        """Wait for a function that `start` started; returns the same as `run_all` for each."""
        try:
            error = started.exception(timeout=max(0.001, self.remaining()))
        except FutureTimeoutError:
            return DeadlineExceeded(f"{what}: no answer within {self.seconds:g} s")
        return error or started.result()


def run_here(function: Callable[[], T], what: str) -> T:
    """Run what a system or store of somebody else's does, in this thread.

    Args:
        function: what to run.
        what: names the work in the error that stands for an exception which is none of ours.

    Raises:
        MLAuthError: it raised an exception. The error has no frames: their locals hold values.
    """
    try:
        return function()
    except Exception as error:
        ended = _leaving(error, what)
    raise ended


def _leaving(error: BaseException, what: str) -> BaseException:
    """Return an error as it may leave a thread: one of ours, without frames that hold values."""
    if isinstance(error, Exception) and not isinstance(error, MLAuthError):
        frames = traceback.extract_tb(error.__traceback__)
        logger.debug("%s: %s\n%s", what, type(error).__name__, "".join(frames.format()))
        place = f"{os.path.basename(frames[-1].filename)} line {frames[-1].lineno}"
        error = MLAuthError(
            f"{what}: {type(error).__name__} at {place}, which is a defect of mlauth or of a "
            "library that it uses: report this line (the log has more at level DEBUG)"
        )
    return bare(error)

"""Ctrl-C, SIGTERM and SIGHUP while servers run: nothing is forgotten half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came while servers were running.

    It is a `KeyboardInterrupt` so that whatever handles Ctrl-C handles it as well, and the
    context managers on the way end their servers.

    Attributes:
        signum: the number of the signal.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


_ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_watched: list[int] = []


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold signals back until the block is done, so that no process is forgotten half-way."""
    if not _in_main_thread():
        yield  # Python handles signals in the main thread only
        return
    came: list[int] = []
    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, *_ENDING_SIGNALS):
            handler = signal.getsignal(number)
            if handler is not None:  # None: installed by C code, which cannot be put back
                previous[number] = handler
                signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _terminated(signum: int, _frame: FrameType | None) -> None:
    raise Terminated(signum)


def watch_signals() -> None:
    """While servers run, SIGTERM and SIGHUP unwind the stack as Ctrl-C does.

    A handler that the program has installed itself stays. In other threads than the main one
    nothing can be installed: there `atexit` alone ends the servers.
    """
    if _in_main_thread():
        for number in _ENDING_SIGNALS:
            if number not in _watched and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminated)
                _watched.append(number)


def unwatch_signals() -> None:
    """Put back what `watch_signals` replaced."""
    if _in_main_thread():
        while _watched:
            number = _watched.pop()
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)

"""Ctrl-C, SIGTERM and SIGHUP while servers run: nothing is forgotten half-way."""

from __future__ import annotations

import signal
from types import FrameType

from mlauth.signals import ENDING, in_main_thread


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


_watched: list[int] = []


def _terminated(signum: int, _frame: FrameType | None) -> None:
    raise Terminated(signum)


def watch_signals() -> None:
    """While servers run, SIGTERM and SIGHUP unwind the stack as Ctrl-C does.

    A handler that the program has installed itself stays. In other threads than the main one
    nothing can be installed: there `atexit` alone ends the servers.
    """
    if in_main_thread():
        for number in ENDING:
            if number not in _watched and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminated)
                _watched.append(number)


def unwatch_signals() -> None:
    """Put back what `watch_signals` replaced."""
    if in_main_thread():
        while _watched:
            number = _watched.pop()
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)

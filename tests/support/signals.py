"""Makes SIGTERM and SIGHUP end servers as Ctrl-C does, so that nothing is left behind."""

from __future__ import annotations

import signal
from types import FrameType

from mlauth.signals import ENDING, in_main_thread


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came while servers were running.

    It is a `KeyboardInterrupt`, so that code that handles Ctrl-C handles it as well, and the
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
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, while servers run.

    A handler that the program has installed itself stays. Only the main thread can install
    handlers; without them, `atexit` ends the servers.
    """
    if in_main_thread():
        for number in ENDING:
            if number not in _watched and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminated)
                _watched.append(number)


def unwatch_signals() -> None:
    """Restore the handlers that `watch_signals` replaced."""
    if in_main_thread():
        while _watched:
            number = _watched.pop()
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)

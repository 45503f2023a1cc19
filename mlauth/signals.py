"""Holds back signals that would end the process in the middle of work that must be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Python ignores these signals from its start on
# (https://docs.python.org/3/library/subprocess.html#popen-constructor, `restore_signals`).
_IGNORED = tuple(
    getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ", "SIGXFZ") if hasattr(signal, name)
)


def in_main_thread() -> bool:
    """Say whether this is the thread in which Python handles signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def as_python_found_them() -> Iterator[None]:
    """Restore the signals that Python ignores, for a program that replaces this process."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in _IGNORED}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Hold signals back until the block is done.

    The block gets a list of the signals that came. It may remove some of them; the first that is
    left takes effect at its end.
    """
    came: list[int] = []
    if not in_main_thread():
        yield came  # Python handles signals in the main thread only
        return
    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, *ENDING):
            handler = signal.getsignal(number)
            if handler is not None:  # None says that C code installed it: Python cannot restore it
                previous[number] = handler
                signal.signal(number, lambda number, _frame: came.append(number))
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])

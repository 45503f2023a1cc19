"""What a fork must not find half-done: in the child, only the thread that forked goes on.

A lock that another thread holds would stay locked in the child for ever. Python's own locks of
modules that are being imported are such locks, too.
"""

from __future__ import annotations

import logging  # noqa: F401 - hooks that were registered later run earlier, see `_hold_all`
import os
import threading
import time
from importlib import import_module
from typing import Any

_locks: list[threading.RLock] = []
_forking = threading.RLock()
_held: list[threading.RLock] = []  # of `_locks`, by the thread that has `_forking`


def lock() -> threading.RLock:
    """Return a lock, for a module to keep: a fork waits until no other thread holds it."""
    made = threading.RLock()
    _locks.append(made)
    return made


def _hold_all() -> None:
    """Hold every lock, and none while a thread that holds another one waits for it.

    The hook of `logging` holds a lock too, which a module needs while it is imported: ours has to
    come first. Those of other modules may come before ours, so it does not wait for ever.
    """
    _forking.acquire()
    locks, end = list(_locks), time.monotonic() + 30
    while not all(_hold(each) for each in locks) and time.monotonic() < end:
        _release()


def _hold(each: threading.RLock) -> bool:
    held = each.acquire(timeout=0.05)
    if held:
        _held.append(each)
    return held


def _release() -> None:
    while _held:
        _held.pop().release()


def _release_all() -> None:
    _release()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_release_all)

importing = lock()


def load(name: str) -> Any:
    """Import a module in the middle of work, which a fork waits for."""
    with importing:
        return import_module(name)

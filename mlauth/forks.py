"""Locks that a fork waits for.

Only the thread that forks goes on in the child, so a lock that another thread holds would stay
locked there for ever. Python's import locks have the same problem, so imports take a lock of ours.
"""

from __future__ import annotations

import logging  # noqa: F401 - its hook must be registered before ours, see `_hold_all`
import os
import threading
import time
from importlib import import_module
from typing import Any

_locks: list[threading.RLock] = []
_forking = threading.RLock()
_held: list[threading.RLock] = []  # those that the forking thread holds


def lock() -> threading.RLock:
    """Return a lock for a module; a fork waits until no other thread holds it."""
    made = threading.RLock()
    _locks.append(made)
    return made


def _hold_all() -> None:
    """Take all locks. Where one is busy, release the others and try again: so nothing deadlocks.

    The hook of `logging` takes a lock that modules need while they are imported, so our hook must
    run first. Hooks run in the reverse order of their registration. Hooks of other modules may
    still run before ours, so this gives up after 30 seconds.
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
    """Import a module; a fork waits until that is done."""
    with importing:
        return import_module(name)

"""What a fork must not find half-done: in the child, only the thread that forked goes on.

A lock that another thread holds would stay locked in the child for ever. Python's own locks of
modules that are being imported are such locks, too.
"""

from __future__ import annotations

import os
import threading
from importlib import import_module
from typing import Any


def lock() -> threading.RLock:
    """Return a lock, for a module to keep: a fork waits until no other thread holds it."""
    made = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=made.acquire, after_in_parent=made.release, after_in_child=made.release
        )
    return made


importing = lock()


def load(name: str) -> Any:
    """Import a module in the middle of work, which a fork waits for."""
    with importing:
        return import_module(name)

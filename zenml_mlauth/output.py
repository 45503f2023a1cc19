"""Masks what a step prints and logs: on the console and in ZenML's log store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from mlauth import redaction
from mlauth.activation import resume
from mlauth.credentials.zenml import API_KEY, API_TOKEN


def mask_output() -> None:
    """Mask the values that were exported in this process. Calling it again is harmless."""
    resume()
    redaction.register(os.environ.get(name, "") for name in (API_KEY, API_TOKEN))
    for stream in (sys.stdout, sys.stderr):
        # ZenML, too, replaces `write`, to store what is printed. It makes no log record in the
        # usual way of it, so ours has to come before.
        if not isinstance(stream.write, _MaskedWrite):
            stream.write = _MaskedWrite(stream.write)  # type: ignore[method-assign]


class _MaskedWrite:
    def __init__(self, inner: Callable[[str], Any]) -> None:
        self._inner = inner

    def __call__(self, text: str) -> Any:
        return self._inner(redaction.mask(text))

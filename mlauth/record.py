"""What activations did to this environment: `MLAUTH_ACTIVATION`, names and never values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

RECORD = "MLAUTH_ACTIVATION"
_before: dict[str, str | None] = {}  # what variables held before this process exported them


def read_record() -> dict[str, Any]:
    """Return what activations before left in the environment: names, folders, the owner."""
    try:
        record = json.loads(os.environ.get(RECORD, "{}"))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def remember(names: Iterable[str]) -> None:
    """Keep what variables hold that are about to be exported for the first time."""
    exported = read_record().get("secrets", [])
    for name in set(names) - set(exported):
        _before[name] = os.environ.get(name)


def own_environment() -> dict[str, str]:
    """Return the environment as it would be without what mlauth exported for the flow.

    An identity that a flow was given is the flow's: mlauth never reads a store as that. What a
    variable held before is known only in the process that exported it; elsewhere it is left out.
    """
    environment = dict(os.environ)
    for name in read_record().get("secrets", []):
        before = _before.get(name)
        if before is None:
            environment.pop(name, None)
        else:
            environment[name] = before
    return environment

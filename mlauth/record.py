"""What activations did to this environment: `MLAUTH_ACTIVATION`, names and never values.

A variable that says as whom stores are read, and that an activation gives another value, keeps the
worker's own in `MLAUTH_OWN_…`: every process of the run reads stores as the worker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlauth import masking
from mlauth.never_pickled import NeverPickled

RECORD, OWN = "MLAUTH_ACTIVATION", "MLAUTH_OWN_"
_NAMES = ("secrets", "settings", "emptied")  # what was done with the variables of these names


def read_record(text: str | None = None) -> dict[str, Any]:
    """Return what activations before left in the environment: names, folders, the owner.

    Whoever sets variables for this process can have written it, so what is not of its kind is left
    out.

    Args:
        text: the record, if not that of the environment.
    """
    try:
        record = json.loads(os.environ.get(RECORD, "{}") if text is None else text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(record, dict):
        return {}
    found: dict[str, Any] = {
        kind: [each for each in record[kind] if isinstance(each, str) and each.isprintable()]
        for kind in (*_NAMES, "folders")
        if isinstance(record.get(kind), list)
    }
    for kind, its_type in (("owner", int), ("handed_on", bool)):
        if type(record.get(kind)) is its_type:
            found[kind] = record[kind]
    return found


@dataclass(frozen=True)
class Record:
    """What one activation records."""

    secrets: list[str]
    settings: list[str]
    emptied: list[str]
    folders: list[str]
    owner: int


def write_record(before: str, records: Sequence[Record]) -> None:
    """Write the record into the environment.

    Args:
        before: what it was before the first of the activations.
        records: those of the activations of this process.
    """
    record, owner = read_record(before), records[-1].owner
    # Those of another owner, from which this environment was inherited, are its to remove.
    folders = record.get("folders", []) if record.get("owner") == owner else []
    for each in records:
        for kind in _NAMES:
            record[kind] = sorted({*record.get(kind, []), *getattr(each, kind)})
        folders = [*folders, *each.folders]
    record |= {"folders": folders, "owner": owner, "handed_on": owner != os.getpid()}
    os.environ[RECORD] = json.dumps(record)


def resume() -> None:
    """Take up the activations of another process: mask their values, drop what they emptied."""
    record = read_record()
    masking.register(os.environ.get(name, "") for name in record.get("secrets", []))
    masking.guard_logging()
    for name in record.get("emptied", []):
        if os.environ.get(name) == "":
            del os.environ[name]


class _Environment(NeverPickled, Mapping[str, str]):
    """Variables that can be had by name only: a traceback with local variables shows none."""

    def __init__(self) -> None:
        self._variables: dict[str, str] = {}
        for name in os.environ:
            with suppress(KeyError):  # another thread removed it meanwhile
                self._variables[name] = os.environ[name]

    def put_back(self, name: str) -> None:
        """Let a variable be what it was before an activation."""
        self._variables.pop(name, None)
        with suppress(KeyError):
            self._variables[name] = os.environ[OWN + name]

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


def environment() -> Mapping[str, str]:
    """Return what the environment holds now, in an object that shows no value."""
    return _Environment()


def own_environment() -> Mapping[str, str]:
    """Return the environment as it would be without what mlauth exported for the flow.

    An identity that a flow was given is the flow's: mlauth never reads a store as that. A variable
    that says nothing of an identity is left out, whatever it held before.
    """
    environment, record = _Environment(), read_record()
    for kind in _NAMES:
        for name in record.get(kind, []):
            environment.put_back(name)
    return environment

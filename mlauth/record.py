"""The record of the activations in this environment: `MLAUTH_ACTIVATION`, names and never values.

Every process of a run reads stores as the worker. So where an activation replaces a variable of the
worker's identity, the worker's own value is kept in `MLAUTH_OWN_…`.
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
_NAMES = ("secrets", "settings", "emptied")  # each is a list of names of variables


def read_record(text: str | None = None) -> dict[str, Any]:
    """Return the record that earlier activations left in the environment.

    Anyone who sets variables for this process may have written it, so parts of a wrong type are
    left out.

    Args:
        text: a record to read in place of the one in the environment.
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
        before: the record from before the first activation of this process.
        records: the records of this process's activations.
    """
    record, owner = read_record(before), records[-1].owner
    # Another owner, from whom this environment was inherited, removes its folders itself.
    folders = record.get("folders", []) if record.get("owner") == owner else []
    for each in records:
        for kind in _NAMES:
            record[kind] = sorted({*record.get(kind, []), *getattr(each, kind)})
        folders = [*folders, *each.folders]
    record |= {"folders": folders, "owner": owner, "handed_on": owner != os.getpid()}
    os.environ[RECORD] = json.dumps(record)


def resume() -> None:
    """Continue the activations of another process: mask their values, remove emptied variables."""
    record = read_record()
    masking.register(os.environ.get(name, "") for name in record.get("secrets", []))
    masking.guard_logging()
    for name in record.get("emptied", []):
        if os.environ.get(name) == "":
            del os.environ[name]


class _Environment(NeverPickled, Mapping[str, str]):
    """Variables behind an object whose `repr` shows none: tracebacks may show local variables."""

    def __init__(self) -> None:
        self._variables: dict[str, str] = {}
        for name in os.environ:
            with suppress(KeyError):  # another thread removed it meanwhile
                self._variables[name] = os.environ[name]

    def put_back(self, name: str) -> None:
        """Give a variable its value from before the activations, or remove it."""
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
    """Return the environment as it is now, in an object that shows no value."""
    return _Environment()


def own_environment() -> Mapping[str, str]:
    """Return the environment without the variables that mlauth exported for the flow.

    An exported identity is the flow's, and mlauth never reads a store with it: the worker's own
    values take its place. Other exported variables are left out, whatever they held before.
    """
    environment, record = _Environment(), read_record()
    for kind in _NAMES:
        for name in record.get(kind, []):
            environment.put_back(name)
    return environment

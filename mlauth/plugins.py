"""Loads systems and stores of other installed distributions, which add them with entry points."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from mlauth.errors import MLAuthError
from mlauth.forks import importing
from mlauth.text import plain

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@cache
def entries(group: str) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group, by name; finding them takes milliseconds."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def load(
    group: str, name: str, error: type[MLAuthError], problem: Callable[[Any], str | None]
) -> Any:
    """Load an entry point of another distribution.

    Args:
        group: the group of the entry point, for instance `mlauth.stores`.
        name: its name, one of `entries`.
        error: the class of the error for an entry point that cannot be used. Its line names the
            distribution and the entry point.
        problem: says why the loaded object cannot be used, or returns None.
    """
    found = entries(group)[name]
    what = f"the {group.removeprefix('mlauth.').removesuffix('s')} {plain(name)!r}"
    names = " and ".join(sorted(plain(each.dist.name) if each.dist else "?" for each in found))
    if len(found) > 1:
        raise error(f"{what} is in several installed distributions ({names}): keep one")
    try:
        with importing:  # a fork waits for this
            loaded = found[0].load()
        why = problem(loaded)
        if why is None:
            return loaded
    except Exception as raised:
        absent = raised.name if isinstance(raised, ImportError) else None
        missing = f" of {plain(absent)}" if absent else ""
        why = f"cannot be imported ({type(raised).__name__}{missing})"
    raise error(
        f"{what} of the installed distribution {names} cannot be used: {plain(found[0].value)} "
        f"{why}; update {names}, or remove it"
    )

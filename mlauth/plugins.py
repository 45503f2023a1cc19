"""What other installed distributions give by entry points: systems and stores."""

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
    """Load what another distribution gives under a name.

    Args:
        group: of entry points, for instance `mlauth.stores`.
        name: of one of `entries`.
        error: what is raised if it cannot be used; the line names distribution and entry point.
        problem: says why what was loaded cannot be used, or returns None.
    """
    found = entries(group)[name]
    what = f"the {group.removeprefix('mlauth.').removesuffix('s')} {plain(name)!r}"
    names = " and ".join(sorted(plain(each.dist.name) if each.dist else "?" for each in found))
    if len(found) > 1:
        raise error(f"{what} is in several installed distributions ({names}): keep one")
    try:
        with importing:  # which a fork waits for
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

"""Optional libraries: each is imported when a system or store first needs it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from mlauth.errors import MissingDependency
from mlauth.forks import load


def sdk(name: str, extra: str) -> Any:
    """Import a module of an extra.

    Args:
        name: the module.
        extra: the extra of mlauth that installs it.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return load(name)
    except ImportError as error:
        missing = (error.name or name).partition(".")[0]
        raise MissingDependency(
            f"the library for {extra} is not installed here ({missing} is missing): put "
            f"mlauth[{extra}] into the worker's image or environment"
        ) from None


def extras_of(names: Iterable[str], distribution: str = "mlauth") -> set[str]:
    """Return the extras that a distribution has for systems and stores.

    Args:
        names: names of systems and stores. They are compared in their normal form:
            https://packaging.python.org/en/latest/specifications/name-normalization/
        distribution: the distribution.
    """
    wanted = {_normal(name) for name in names}
    provided = metadata.metadata(distribution).get_all("Provides-Extra") or ()
    return wanted & {_normal(extra) for extra in provided}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

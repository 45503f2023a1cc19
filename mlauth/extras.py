"""Libraries that mlauth does without until something of theirs is used."""

from __future__ import annotations

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

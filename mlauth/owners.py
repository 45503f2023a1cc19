"""Refuses two values for one variable where several systems are active together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from pydantic import SecretStr

from mlauth.systems import Credentials, Exports


def trespass(credentials: Credentials, others: Iterable[Credentials]) -> str | None:
    """Say which variable that a person named belongs to another system, or return None."""
    for owner in others:
        for name in credentials.variables() if owner is not credentials else ():
            if any(fnmatchcase(name.upper(), pattern) for pattern in owner.owned):
                return (
                    f"{name} belongs to [{owner.system}], which is there too: remove it from "
                    f"[{credentials.system}]"
                )
    return None


def two_values(exports: Mapping[str, Exports]) -> dict[str, str]:
    """Find variables that would get different values.

    Args:
        exports: what each system wants to set or to empty.

    Returns:
        For each refused system, the reason. Of two systems, the later one is refused.
    """
    first: dict[str, tuple[str, SecretStr]] = {}
    refused: dict[str, str] = {}
    for system, each in exports.items():
        values = {name: SecretStr(text) for name, text in each.settings.items()} | each.secrets
        for name, value in (values | dict.fromkeys(each.emptied, SecretStr(""))).items():
            owner, held = first.setdefault(name, (system, value))
            if held != value:
                refused[system] = (
                    f"{name} would get one value from [{owner}] and another from [{system}]: "
                    "remove one of them"
                )
    return refused

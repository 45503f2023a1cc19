"""Refuses two values for one variable where several systems are active together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import SecretStr

from mlauth.systems import Credentials, Exports


def trespass(credentials: Credentials, others: Iterable[Credentials]) -> str | None:
    """Say which of the variables that a person named belongs to another system, or return None."""
    for name in credentials.variables():
        owner = _owner(name, credentials, others)
        if owner:
            return (
                f"{name} belongs to [{owner}], which is there too: remove it from "
                f"[{credentials.system}]"
            )
    return None


def two_values(found: Sequence[tuple[Credentials, Exports]]) -> dict[str, str]:
    """Find variables that would get different values, or one from a system that they are not of.

    Args:
        found: what each system wants to set or to empty.

    Returns:
        By system, why it cannot be: of two, it is said of the later one.
    """
    first: dict[str, tuple[str, SecretStr]] = {}
    refused: dict[str, str] = {}
    everybody = [credentials for credentials, _ in found]
    for credentials, each in found:
        system = credentials.system
        values = {name: SecretStr(text) for name, text in each.settings.items()} | each.secrets
        for name, value in (values | dict.fromkeys(each.emptied, SecretStr(""))).items():
            owner, held = first.setdefault(name, (system, value))
            if held != value:
                refused[system] = (
                    f"{name} would get one value from [{owner}] and another from [{system}]: "
                    "remove one of them"
                )
            elif whose := _owner(name, credentials, everybody):
                refused[system] = (
                    f"{name} belongs to [{whose}], which is there too, and [{system}] would set "
                    "it: remove one of them"
                )
    return refused


def _owner(name: str, credentials: Credentials, others: Iterable[Credentials]) -> str | None:
    """Return which of the others a variable belongs to, if it does not belong to these."""
    owners = [] if credentials.owns(name) else [each for each in others if each.owns(name)]
    return owners[0].system if owners else None

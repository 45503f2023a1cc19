"""`memory://name`: a dictionary of this process, for tests, documentation and notebooks."""

from __future__ import annotations

from pydantic import SecretStr

from mlauth.errors import SecretNotFound, SecretUnusable
from mlauth.references import SecretReference
from mlauth.stores import Access, Grammar, StoredSecret

_secrets: dict[str, SecretStr] = {}


def _problem(location: str) -> str | None:
    return None if location else "the name is empty"


GRAMMAR = Grammar(form="memory://name", problem=_problem)


def put(name: str, value: str) -> None:
    """Keep a value under a name, until this process ends or `clear` is called."""
    _secrets[name] = SecretStr(value)


def clear() -> None:
    """Forget every value."""
    _secrets.clear()


class Store:
    """Reads what `put` kept."""

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read a value; see `SecretStore.read`."""
        value = _secrets.get(reference.location)
        if value is None:
            raise SecretNotFound(
                f"{reference} cannot be read: nothing was put there in this process; "
                f"call mlauth.stores.memory.put({reference.location!r}, …) first"
            )
        if not value.get_secret_value():
            raise SecretUnusable(f"{reference} cannot be used: an empty text was put there")
        return StoredSecret(value)

    def describe(self, reference: SecretReference) -> Access:
        """See `SecretStore.describe`."""
        return Access(f"this process's memory, under {reference.location!r}", "this process")

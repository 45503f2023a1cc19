"""`memory://name`: a dictionary of this process, for tests, documentation and notebooks."""

from __future__ import annotations

from pydantic import SecretStr

from mlauth.errors import SecretNotFound
from mlauth.stores import Access, Grammar, Place, StoredSecret

_secrets: dict[str, SecretStr] = {}


def _problem(parts: tuple[str, ...]) -> str | None:
    return None if all(parts) else "the name, or a part of it, is empty"


GRAMMAR = Grammar(form="memory://name", problem=_problem)


def put(name: str, value: str) -> None:
    """Keep a value under a name until this process ends or `clear` is called."""
    _secrets[name] = SecretStr(value)


def clear() -> None:
    """Forget every value."""
    _secrets.clear()


class Store:
    """Reads the values that `put` keeps."""

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a value; see `Store.read`."""
        name = "/".join(place.parts)
        value = _secrets.get(name)
        if value is None:
            raise SecretNotFound(
                "no value was put there in this process; call "
                f"mlauth.stores.memory.put({name!r}, …) first"
            )
        return StoredSecret(value)

    def describe(self, place: Place) -> Access:
        """See `Store.describe`."""
        return Access(f"this process's memory, under {'/'.join(place.parts)!r}", "this process")

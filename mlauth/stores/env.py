"""`env://NAME`: a variable of this process's environment."""

from __future__ import annotations

import getpass
import os
import re

from pydantic import SecretStr

from mlauth.errors import SecretNotFound
from mlauth.stores import Access, Grammar, Place, StoredSecret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _problem(parts: tuple[str, ...]) -> str | None:
    if _NAME.match("/".join(parts)):
        return None
    return "the text after '://' is not the name of a variable (letters, digits and '_')"


GRAMMAR = Grammar(form="env://NAME", problem=_problem)


class Store:
    """Reads the environment."""

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a variable; see `Store.read`. An empty variable counts as missing."""
        value = os.environ.get(place.parts[0])
        if not value:
            state = "empty" if value == "" else "not set"
            raise SecretNotFound(
                f"the variable is {state} in this process; set it "
                "where the worker or the container starts, not with `export` in a step"
            )
        return StoredSecret(SecretStr(value))

    def describe(self, place: Place) -> Access:
        """See `Store.describe`."""
        return Access(f"environment variable {place}", f"this process ({user()})")


def user() -> str:
    """Return the name of the user of this process, or the user's number."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # in a container, the user may have no entry in /etc/passwd
        return f"user id {os.getuid()}"

"""`env://NAME`: a variable of this process's environment."""

from __future__ import annotations

import getpass
import os
import re

from pydantic import SecretStr

from mlauth.errors import SecretNotFound, SecretUnusable
from mlauth.references import SecretReference
from mlauth.stores import Access, Grammar, StoredSecret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _problem(location: str) -> str | None:
    if _NAME.match(location):
        return None
    return "what follows '://' is not the name of a variable (letters, digits and '_')"


GRAMMAR = Grammar(form="env://NAME", problem=_problem)


class Store:
    """Reads the environment."""

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read a variable; see `SecretStore.read`. An empty one counts as not there."""
        value = os.environ.get(reference.location)
        if not value:
            state = "empty" if value == "" else "not set"
            raise SecretNotFound(
                f"{reference} cannot be read: the variable is {state} in this process; set it "
                "where the worker or the container starts, not with `export` in a step"
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SecretUnusable(
                f"{reference} cannot be used: the variable's value is not UTF-8"
            ) from None
        return StoredSecret(SecretStr(value))

    def describe(self, reference: SecretReference) -> Access:
        """See `SecretStore.describe`."""
        return Access(f"environment variable {reference.location}", f"this process ({user()})")


def user() -> str:
    """Return the name of the user that this process runs as, or its number."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's user that has no entry in the user database
        return f"user id {os.getuid()}"

"""`file:///absolute/path`: a file, as Kubernetes, Docker and CSI drivers mount secrets."""

from __future__ import annotations

import os
import stat

from pydantic import SecretStr

from mlauth.errors import SecretDenied, SecretNotFound, SecretUnusable, StoreUnavailable
from mlauth.references import SecretReference
from mlauth.stores import Access, Grammar, StoredSecret
from mlauth.stores.env import user

# Far over every secret that a service hands out; keeps a wrong path from filling the memory.
_MOST_BYTES = 1024 * 1024


def _problem(location: str) -> str | None:
    if not location.startswith("/"):
        return "the path is not absolute (three slashes: file:///…)"
    if location.endswith("/") or "\0" in location:
        return "the path does not name a file"
    return None


GRAMMAR = Grammar(form="file:///run/secrets/zenml/api-key", problem=_problem)


class Store:
    """Reads files."""

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read a file, less one trailing newline; see `SecretStore.read`."""
        path = _path(reference)
        try:
            # Not blocking: opening a pipe that nobody writes to would hang.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise SecretUnusable(f"{reference} cannot be read: it is not a regular file")
                content = file.read(_MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise SecretNotFound(
                f"{reference} cannot be read: there is no such file; is the secret mounted?"
            ) from None
        except IsADirectoryError:
            raise SecretUnusable(
                f"{reference} cannot be read: it is a directory; name the file in it"
            ) from None
        except PermissionError:
            raise SecretDenied(
                f"{reference} cannot be read: {user()} may not read it; "
                "give the worker's user the right to read the file and its directories"
            ) from None
        except OSError as error:
            raise StoreUnavailable(f"{reference} cannot be read: {error.strerror}") from None
        if len(content) > _MOST_BYTES:
            raise SecretUnusable(f"{reference} cannot be used: it is larger than 1 MiB")
        try:
            value = content.decode()
        except UnicodeDecodeError:
            raise SecretUnusable(f"{reference} cannot be used: it is not UTF-8 text") from None
        value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
        if not value:
            raise SecretUnusable(f"{reference} cannot be used: the file is empty")
        return StoredSecret(SecretStr(value))

    def describe(self, reference: SecretReference) -> Access:
        """See `SecretStore.describe`; a note says if others may read the file."""
        path = _path(reference)
        notes: tuple[str, ...] = ()
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            pass
        else:
            if os.name == "posix" and mode & 0o077:
                notes = (f"mode {mode:04o}: other users of this machine may read it; chmod 600",)
        return Access(path, user(), notes)


def _path(reference: SecretReference) -> str:
    # file:///C:/secrets/key names the path C:/secrets/key on Windows.
    return reference.location.lstrip("/") if os.name == "nt" else reference.location

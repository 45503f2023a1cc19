"""`file:///absolute/path`: a file, as Kubernetes, Docker and CSI drivers mount secrets."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from contextlib import suppress

from pydantic import SecretStr

from mlauth.errors import SecretDenied, SecretNotFound, SecretUnusable, StoreUnavailable
from mlauth.references import SecretReference
from mlauth.stores import Access, Grammar, StoredSecret
from mlauth.stores.env import user

# Far over every secret that a service hands out; keeps a wrong path from filling the memory.
_MOST_BYTES = 1024 * 1024
# Faults of the path itself, which no later attempt is free of. Others may be gone in a moment: of
# the disk or network (EIO, ESTALE), or because something is used up here (EMFILE, ENOMEM).
_NEVER = {
    getattr(errno, name)
    for name in ["ELOOP", "ENAMETOOLONG", "ENXIO", "ENODEV", "EINVAL", "EOVERFLOW", "EOPNOTSUPP"]
}


def _problem(location: str) -> str | None:
    if not location.startswith("/"):
        return "the path is not absolute (three slashes: file:///…)"
    if location.endswith("/") or "\0" in location:
        return "the path does not name a file"
    return None


GRAMMAR = Grammar(form="file:///run/secrets/zenml/api-key", problem=_problem)


class Store:
    """Reads and writes files."""

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read a file, less one trailing newline; see `SecretStore.read`."""
        path = _path(reference)
        try:
            # Not blocking: opening a pipe that nobody writes to would hang.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise SecretUnusable(
                        f"{reference} cannot be read: it is not a regular file; name the file"
                    )
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
            if error.errno in _NEVER:
                raise SecretUnusable(
                    f"{reference} cannot be read: {error.strerror}; name the file itself"
                ) from None
            raise StoreUnavailable(f"{reference} cannot be read: {error.strerror}") from None
        except UnicodeEncodeError:
            raise SecretUnusable(
                f"{reference} cannot be read: this process has a locale in which no file can have "
                "that name; give it a UTF-8 one (LANG=C.UTF-8)"
            ) from None
        if len(content) > _MOST_BYTES:
            raise SecretUnusable(
                f"{reference} cannot be used: it is larger than 1 MiB; is it the right file?"
            )
        try:
            value = content.decode()
        except UnicodeDecodeError:
            raise SecretUnusable(
                f"{reference} cannot be used: it is not UTF-8 text; store it as text"
            ) from None
        value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
        if not value:
            raise SecretUnusable(
                f"{reference} cannot be used: the file is empty; put the secret there"
            )
        return StoredSecret(SecretStr(value))

    def write(self, reference: SecretReference, value: SecretStr, *, timeout: float) -> str | None:
        """Replace a file in one step, or make it with mode 0600; see `WritableStore.write`.

        Whoever reads meanwhile has the old value or the new one. Mode and owner stay.
        """
        if reference.key is not None:
            raise SecretUnusable(f"{reference} cannot be written: name the whole file, without key")
        try:
            content = value.get_secret_value().encode()
        except UnicodeEncodeError:
            raise SecretUnusable(f"{reference} cannot be written: it is not UTF-8 text") from None
        if content.endswith(b"\n"):
            content += b"\n"  # reading drops one
        if not 0 < len(content) <= _MOST_BYTES:
            raise SecretUnusable(
                f"{reference} cannot be written: a file takes 1 byte to 1 MiB, not "
                f"{len(content):,} bytes"
            )
        path = os.path.realpath(_path(reference))  # through links, which stay
        try:
            _replace(path, content)
        except IsADirectoryError:
            raise SecretUnusable(
                f"{reference} cannot be written: it is not a regular file; name the file"
            ) from None
        except (FileNotFoundError, NotADirectoryError):
            raise SecretNotFound(
                f"{reference} cannot be written: there is no directory for it; make it first"
            ) from None
        except PermissionError:
            raise SecretDenied(
                f"{reference} cannot be written: {user()} may not replace the file; "
                "give this user the right to write to its directory, and the file itself"
            ) from None
        except OSError as error:
            advice = (
                "a mounted secret is changed where it is mounted from: name that store instead"
                if error.errno == errno.EROFS
                else "put that right and write again"
            )
            raise StoreUnavailable(
                f"{reference} cannot be written: {error.strerror}; {advice}"
            ) from None
        return None

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


def _replace(path: str, content: bytes) -> None:
    """Write to a file beside it, to the disk, and put that in its place."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise IsADirectoryError
    folder, name = os.path.split(path)
    descriptor, beside = tempfile.mkstemp(prefix=f".{name}.", dir=folder)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            if before is not None and os.name == "posix":
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name too
        finally:
            os.close(descriptor)


def local_path(location: str, *, windows: bool = os.name == "nt") -> str:
    """Return the path that a location names (RFC 8089 and, for Windows, its appendix E).

    Args:
        location: of a reference to a file; it starts with a slash.
        windows: whether it is one of Windows: with `file:///C:/key` a drive, with
            `file:///run/key` the root of the current drive, with `file:////server/share/key` a
            file of another machine.
    """
    if not windows:
        return location
    if re.match(r"/+[A-Za-z]:", location):
        return location.lstrip("/")
    return re.sub(r"^/{2,}", "//", location)


def _path(reference: SecretReference) -> str:
    return local_path(reference.location)

"""`file:///absolute/path`: a file, as Kubernetes, Docker and CSI drivers mount secrets."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydantic import SecretBytes, SecretStr

from mlauth.deadline import Deadline
from mlauth.errors import SecretDenied, SecretNotFound, SecretUnusable, StoreUnavailable
from mlauth.stores import MOST_BYTES, Access, Grammar, Place, StoredSecret
from mlauth.stores.env import user

# These faults are in the path itself, so another attempt fails, too. Others may be gone in a
# moment: faults of disk and network (EIO, ESTALE), or a limit that is reached (EMFILE, ENOMEM).
_NEVER = {
    getattr(errno, name)
    for name in ["ELOOP", "ENAMETOOLONG", "ENXIO", "ENODEV", "EINVAL", "EOVERFLOW", "EOPNOTSUPP"]
}
_PREFIX = ".mlauth-write-"  # for the new file beside the old one, until it replaces it
_STANDING_IN = 4096  # the size of a trial file in bytes: larger than any key


def _problem(parts: tuple[str, ...]) -> str | None:
    if parts[0] or not parts[1:]:
        return "the path is not absolute (three slashes: file:///…)"
    if not parts[-1] or "\0" in "".join(parts):
        return "the path does not name a file"
    if "/" in "".join(parts):
        return "no file or directory has a slash (%2F) in its name: write '/' between two names"
    return None


GRAMMAR = Grammar(form="file:///run/secrets/team/api-key", problem=_problem)


class Store:
    """Reads and writes files."""

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a file, and drop one trailing newline; see `Store.read`."""
        path = _path(place)
        try:
            # Without O_NONBLOCK, opening a pipe that nobody writes to would hang.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise SecretUnusable("it is not a regular file; name the file")
                # The limit keeps a huge file out of memory. A newline is dropped below.
                content = SecretBytes(file.read(MOST_BYTES + 3))
        except (FileNotFoundError, NotADirectoryError):
            raise SecretNotFound("there is no such file; is the secret mounted?") from None
        except IsADirectoryError:
            raise SecretUnusable("it is a directory; name the file in it") from None
        except PermissionError:
            raise SecretDenied(
                f"{user()} may not read it; give the worker's user the right to read the file and "
                "its directories"
            ) from None
        except OSError as error:
            if error.errno in _NEVER:
                raise SecretUnusable(f"{error.strerror}; name the file itself") from None
            raise StoreUnavailable(str(error.strerror)) from None
        except UnicodeEncodeError:
            raise SecretUnusable(
                "this process has a locale in which no file can have that name; give it a UTF-8 "
                "one (LANG=C.UTF-8)"
            ) from None
        value = content.get_secret_value().decode(errors="surrogateescape")
        value = value[:-2] if value.endswith("\r\n") else value.removesuffix("\n")
        return StoredSecret(SecretStr(value))

    def write(
        self, place: Place, value: SecretStr, *, timeout: float, before: Callable[[], None]
    ) -> str | None:
        """Replace a file in one step, or make it with mode 0600; see `WritableStore.write`.

        At any time, readers get either the old value or the new one. Mode and owner stay. If the
        process is killed here, the value can stay in a hidden file in the same directory, with mode
        0600. The next `write` or `prove_writable` in that directory removes it.
        """
        content = SecretBytes(value.get_secret_value().encode())
        if content.get_secret_value().endswith(b"\n"):
            content = SecretBytes(content.get_secret_value() + b"\n")  # reading drops one newline
        path = os.path.realpath(_path(place))  # links stay; the file behind them is replaced
        deadline = Deadline(timeout)
        with _explained(), _beside(path, content) as beside:
            before()
            if not deadline.remaining():
                raise StoreUnavailable("no time was left: give a slow disk a longer timeout")
            os.replace(beside, path)
            _sync(os.path.dirname(path))  # the new name must be on the disk, too
        return None

    def prove_writable(self, place: Place, *, timeout: float) -> None:
        """Do what `write` does, without the last step; see `WritableStore.prove_writable`."""
        path = os.path.realpath(_path(place))
        with _explained(), _beside(path, SecretBytes(b"?" * _STANDING_IN)):
            if path in _mount_points():
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def describe(self, place: Place) -> Access:
        """See `Store.describe`; a note says if other users may read the file."""
        path = _path(place)
        notes: tuple[str, ...] = ()
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            pass
        else:
            if os.name == "posix" and mode & 0o077:
                notes = (f"mode {mode:04o}: other users of this machine may read it; chmod 600",)
        return Access(path, user(), notes)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the system into lines that say why a file cannot be written."""
    try:
        yield
    except IsADirectoryError:
        raise SecretUnusable("it is not a regular file; name the file") from None
    except (FileNotFoundError, NotADirectoryError):
        raise SecretNotFound("there is no directory for it; make it first") from None
    except PermissionError:
        raise SecretDenied(
            f"{user()} may not replace the file; give this user the right to write to its "
            "directory, and the file itself"
        ) from None
    except OSError as error:
        advice = (
            "it is mounted, and can only be changed at its origin: name that store instead"
            if error.errno in (errno.EROFS, errno.EBUSY)
            else "correct that, and write again"
        )
        raise StoreUnavailable(f"{error.strerror}; {advice}") from None


@contextmanager
def _beside(path: str, content: SecretBytes) -> Iterator[str]:
    """Make a new file beside another one, with its mode and owner; it is removed at the end."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise IsADirectoryError
    folder = os.path.dirname(path)
    _remove_left_ones(folder)
    descriptor, beside = _locked(folder)
    try:
        with open(descriptor, "wb") as file:  # closing it ends the lock
            if before is not None and os.name == "posix":
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(content.get_secret_value())
            file.flush()
            os.fsync(descriptor)
            if os.name == "posix":
                yield beside
        if os.name != "posix":
            yield beside  # on Windows, an open file cannot replace another one
    finally:
        with suppress(OSError):
            os.unlink(beside)


def _locked(folder: str) -> tuple[int, str]:
    """Make a file that `_remove_left_ones` does not remove as long as it is open."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)  # mode 0600
        _lock(descriptor, at_once=False)
        if os.name != "posix" or os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # another process removed the file before it was locked: try again


def _lock(descriptor: int, *, at_once: bool) -> bool:
    """Lock an open file; return whether that was possible."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if at_once else 0))
    except OSError:  # another process has the lock, or the file system has no locks
        return False
    return True


def _remove_left_ones(folder: str) -> None:
    """Remove the files that killed processes left in a directory: they are not locked any more."""
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for name in left:
        with suppress(OSError):
            if os.name != "posix":
                os.unlink(name)  # Windows refuses this while a process has the file open
                continue
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(descriptor, at_once=True):
                    os.unlink(name)
            finally:
                os.close(descriptor)


def _mount_points() -> set[str]:
    """Return all mount points. One of them can be a single file, which cannot be replaced."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            points = [line.split(" ")[4] for line in lines]
    except OSError:
        return set()
    # Blanks, tabs, line ends and backslashes are written as three octal digits, see proc(5).
    return {re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), each) for each in points}


def _sync(folder: str) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def local_path(location: str, *, windows: bool = os.name == "nt") -> str:
    """Return the path that a location names (RFC 8089 and, for Windows, its appendix E).

    Args:
        location: the location in a `file` reference; it starts with a slash.
        windows: whether this is Windows. There, `file:///C:/key` names a drive, `file:///run/key`
            means the current drive, and `file:////server/share/key` is on another machine.
    """
    if not windows:
        return location
    if re.match(r"/+[A-Za-z]:", location):
        return location.lstrip("/")
    return re.sub(r"^/{2,}", "//", location)


def _path(place: Place) -> str:
    return local_path("/".join(place.parts))

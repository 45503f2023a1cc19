"""A run's private folder. The run removes it at its end; after a kill, the next run does.

Only this user may look into it. It never holds a secret.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable

_NAME = re.compile(r"mlauth-(?P<place>\w+)\.(?P<pid>\d+)\.(?P<began>\d+)\.\w+\Z")


def make(owner: int) -> str:
    """Remove the private folders of dead owners, then make one.

    Args:
        owner: the process that lives as long as the folder is needed.

    Raises:
        OSError: there is no place for it.
    """
    sweep()
    prefix = f"mlauth-{_place()}.{owner}.{_began(owner) or 0}."
    # With TMPDIR=".", Python before 3.12 returns a relative path; Prefect changes the directory.
    return os.path.abspath(tempfile.mkdtemp(prefix=prefix))


def remove(folder: str) -> None:
    """Remove a private folder. Any other folder stays: a record may name anything."""
    if _NAME.match(os.path.basename(folder)):
        shutil.rmtree(folder, ignore_errors=True)


def remove_at_exit(folders: Iterable[str], is_owner: Callable[[], bool]) -> None:
    """Remove private folders when this process ends; a fork of it does not.

    Args:
        folders: the folders.
        is_owner: asked at the end, when the main module is known.
    """
    pid, folders = os.getpid(), list(folders)

    def clean_up() -> None:
        if os.getpid() == pid and is_owner():
            for folder in folders:
                remove(folder)

    atexit.register(clean_up)


def sweep() -> None:
    """Remove the private folders of this user whose owners are dead (after a kill)."""
    try:
        with os.scandir(tempfile.gettempdir()) as entries:
            # Another container may share the temporary directory, but not the process ids.
            found = [
                (entry, match)
                for entry in entries
                if (match := _NAME.match(entry.name)) and match["place"] == _place()
            ]
    except PermissionError:
        return  # a directory that cannot be listed may still be writable
    for entry, match in found:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # swept by another process meanwhile
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        # A process that began at another time only got the same process id later.
        alive = _began(int(match["pid"])) in (match["began"], None)
        if stat.S_ISDIR(status.st_mode) and ours and not alive:
            remove(entry.path)


def _began(pid: int) -> str | None:
    """Return when a process began, on a clock that nobody can set.

    Returns:
        Digits that stay the same as long as the process lives. An empty text if it has ended, even
        if it is still a zombie. None if this user is not allowed to know.
    """
    try:
        # See proc(5). The fields after the name in brackets begin with the third one, the state.
        # The 22nd is the start time, in ticks since the machine started.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):
            return ""
    except PermissionError:
        return None
    import psutil  # only systems without /proc get here

    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return "" if ended else str(int(process.create_time() * 1000))
    except psutil.NoSuchProcess:
        return ""
    except psutil.AccessDenied:
        return None


def _place() -> str:
    """Return a name for this machine or container: process ids and times are unique in it only."""
    names = [socket.gethostname()]
    for kind in ("pid", "time"):
        try:
            names.append(os.readlink(f"/proc/self/ns/{kind}"))
        except OSError:
            names.append("")
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]

"""Starts processes, and ends them with everything that they started."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from mlauth.errors import MLAuthError
from mlauth.signals import uninterrupted

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ServerError(MLAuthError):
    """A server or a worker did not start, died, or refused what it was asked."""


def spawn(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], **streams: Any
) -> subprocess.Popen[Any]:
    """Start a process as the leader of a session of its own; a missing program is a ServerError."""
    try:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            **streams,
        )
    except OSError as error:
        where = error.filename or command[0]
        raise ServerError(f"{where} could not be started: {error.strerror}") from None


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def tree(root: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The living processes that a process started, itself included.

    They are its descendants and, on systems with sessions, the processes in its session: a child
    whose parent died is no descendant any more, but still in the session.
    """
    members: dict[int, psutil.Process] = {}
    try:
        leader = psutil.Process(root.pid)
    except psutil.NoSuchProcess:
        leader = None
    if root.returncode is None and leader is not None:
        members[root.pid] = leader
        with suppress(psutil.Error):
            members.update((child.pid, child) for child in leader.children(recursive=True))
    # If the leader was reaped and its number is used again, the session is somebody else's.
    if hasattr(os, "getsid") and (root.returncode is None or leader is None):
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == root.pid:
                    members.setdefault(process.pid, process)
            except OSError:
                continue
    return [process for process in members.values() if is_alive(process)]


def end_tree(root: subprocess.Popen[Any], grace: float) -> None:
    """End a process and everything that it started: ask the root, ask the rest, then kill.

    Args:
        root: a process that `spawn` started.
        grace: how many seconds the root has to end by itself.
    """
    members = {process.pid: process for process in tree(root)}
    if root.poll() is None:
        root.terminate()
        with suppress(subprocess.TimeoutExpired):
            root.wait(grace)
    for step in ("terminate", "kill", "kill"):
        members.update((process.pid, process) for process in tree(root))
        left = [process for process in members.values() if is_alive(process)]
        if not left:
            break
        for process in left:
            with suppress(psutil.Error):
                getattr(process, step)()
        # The root is ours to reap: psutil would take its exit status from `subprocess`.
        psutil.wait_procs([process for process in left if process.pid != root.pid], timeout=2)
        with suppress(subprocess.TimeoutExpired):
            root.wait(0 if step == "terminate" else 2)
    root.poll()


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. After that, or after an interrupt, nothing of its tree is left.

    Raises:
        ServerError: it cannot be started, or is not done in time.
    """
    with uninterrupted():
        process = spawn(
            command,
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ServerError(f"{_shown(command)} was not done after {timeout:g} s in {cwd}") from None
    finally:
        with uninterrupted():
            end_tree(process, grace=2)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _shown(command: Sequence[str]) -> str:
    """Return the part of a command that names it, without values in its arguments."""
    return " ".join(command[1:5])


def without_colours(text: str) -> str:
    """Return a text without the codes of colours."""
    return _ANSI.sub("", text)

"""A process with a folder and a log that is ready when its context is entered."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from mlauth.never_pickled import NeverPickled
from mlauth.signals import uninterrupted
from tests.support.environment import child_environment, private_folder
from tests.support.processes import ServerError, end_tree, spawn, tree, without_colours
from tests.support.signals import unwatch_signals, watch_signals

Managed = TypeVar("Managed", bound="ManagedProcess")

_running: set[ManagedProcess] = set()


@atexit.register
def _stop_all() -> None:
    for process in list(_running):
        process.stop()


class ManagedProcess(NeverPickled, ABC):
    """A process with a folder and a log; it is ready when its context is entered.

    A subclass has the command (`_command`), its environment (`_environment`), and a test whether it
    is ready (`_is_ready`).

    Args:
        folder: the process writes only into this folder, which is made if it is not there.
        env: variables to add to its environment; they win.
        python: the interpreter that runs it, by default this one.

    Attributes:
        folder: the folder, absolute.
        log: the file that holds what the process printed.
        start_timeout: how many seconds it may take to be ready.
        stop_timeout: how many seconds it may take to end before it is killed.
    """

    title = "process"
    start_timeout = 120.0
    stop_timeout = 10.0

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.log = self.folder / "log.txt"
        self._extra = {name: SecretStr(value) for name, value in (env or {}).items()}
        self._python = python
        self._process: subprocess.Popen[Any] | None = None
        self._owner = 0
        self._log_start = 0

    @abstractmethod
    def _command(self) -> list[str]:
        """The arguments after `python -m`; none of them a secret."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """Return the variables of the process beside `child_environment`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Say whether it is ready; an `httpx.HTTPError` means not yet."""

    def _secrets(self) -> list[str]:
        """Return the values that no message may hold, even if the process printed them."""
        return []

    def _try_again(self) -> bool:
        """Say whether another start may succeed, and prepare for it."""
        return False

    def launch(self) -> None:
        """Start the process and return at once; does nothing when it is running.

        Raises:
            ServerError: it cannot be started.
        """
        if self._process is not None:
            return
        private_folder(self.folder)
        extra = {name: value.get_secret_value() for name, value in self._extra.items()}
        environment = child_environment(self.folder, self._environment() | extra)
        watch_signals()
        try:
            with (
                open(self.log, "ab", opener=_open_private) as log,
                uninterrupted(),
            ):
                self._log_start = log.tell()
                self._process = spawn(
                    [self._python, "-m", *self._command()],
                    cwd=self.folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                self._owner = os.getpid()
                _running.add(self)
        finally:
            if not _running:
                unwatch_signals()

    def wait_ready(self) -> None:
        """Wait until the process can be used.

        Raises:
            ServerError: it died, or was not ready in time; the process is ended, and the message
                holds the last line of its log and the log's path.
        """
        deadline = time.monotonic() + self.start_timeout
        while True:
            process = self._process
            if process is None:
                raise ServerError(f"{self.title} was not launched")
            try:
                self._poll_until_ready(process, deadline)
                return
            except ServerError:
                again = process.returncode is not None and self._try_again()
                self.stop()
                if not again or time.monotonic() >= deadline:
                    raise
                self.launch()
            except BaseException:
                self.stop()
                raise

    def _poll_until_ready(self, process: subprocess.Popen[Any], deadline: float) -> None:
        while True:
            try:
                # This is the pause between two questions, and it ends early if the process dies.
                status: int | None = process.wait(0.1)
            except subprocess.TimeoutExpired:
                status = None
            if status is not None:
                raise self._failure(f"ended with status {status}")
            try:
                if self._is_ready():
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() >= deadline:
                raise self._failure(f"was not ready after {self.start_timeout:g} s")

    def _failure(self, what: str) -> ServerError:
        last = self._masked(_last_line(self._log_of_this_start()))
        return ServerError(f"{self.title} {what}; its log {self.log} ends with: {last}")

    def _log_of_this_start(self) -> str:
        with open(self.log, "rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", "replace")

    def _masked(self, text: str) -> str:
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text

    def pids(self) -> list[int]:
        """The numbers of the living processes of its tree, the first one's included."""
        return [] if self._process is None else sorted(p.pid for p in tree(self._process))

    def stop(self) -> None:
        """End the process and everything that it started, and wait for that; may be repeated.

        In a fork of the process that launched it, nothing happens.
        """
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        with uninterrupted():
            end_tree(process, self.stop_timeout)
            self._process = None
            _running.discard(self)
        if not _running:
            unwatch_signals()

    def __enter__(self: Managed) -> Managed:
        try:
            self.launch()
            self.wait_ready()
        except BaseException:  # a signal may have come before `__exit__` is due
            self.stop()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def running(*processes: ManagedProcess) -> Iterator[None]:
    """Start several processes side by side, which is quicker than one after the other.

    Args:
        processes: what to start; all are ready when the block begins, all gone when it ends.

    Raises:
        ServerError: one of them did not start; the others are ended.
    """
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.stop)
            process.launch()
        for process in processes:
            process.wait_ready()
        yield


def _last_line(text: str) -> str:
    """The last line of a text that is not blank, without colours; `nothing` when there is none."""
    lines = [line.strip() for line in without_colours(text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"

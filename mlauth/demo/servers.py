"""Launchers of real servers on loopback: ZenML, Prefect, and a Prefect process worker.

`mlauth demo` and the tests use the same ones. Each launcher is a context manager: on entry the
server is ready, on exit the whole tree of its processes is gone, after an exception, Ctrl-C or
SIGTERM too. A server keeps everything (home, configuration, database, log) in the folder that it
is given, and inherits no variable of ZenML, Prefect or mlauth from the process that starts it.

Example::

    with ZenMLServer("demo/zenml") as zenml, PrefectServer("demo/prefect") as prefect:
        account = zenml.create_service_account("prefect-prod")
        key_id, key = zenml.create_api_key(account, "demo")
        with ProcessWorker("demo/worker", prefect, pool="demo"):
            deploy("deployments/zenml-on-prefect", "prod", prefect)
            result = run_deployment(prefect, "train/prod")
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import psutil  # type: ignore[import-untyped,unused-ignore]  # stubs are not always there
from pydantic import SecretStr
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from mlauth.errors import MLAuthError

LOOPBACK = "127.0.0.1"

_FOREIGN_PREFIXES = ("ZENML_", "PREFECT_", "MLAUTH_", "OTEL_", "OPENTELEMETRY_")
_FOREIGN_NAMES = frozenset(
    {
        "DISABLE_CREDENTIALS_DISK_CACHING",
        # With these unset, programs look under HOME, which is in the folder.
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
    }
)
_PORT_ATTEMPTS = 5
_WORKER_DONE_TIMEOUT = 15.0  # after the run's final state; reached only when its worker was killed
_FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_ACCESS = re.compile(r'\S+:\d+ - "([A-Z]+) ([^\s?"]+)\S* HTTP/[0-9.]+" \d{3}')


class ServerError(MLAuthError):
    """A server or a worker did not start, died, or refused what it was asked."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came while servers were running.

    It is a `KeyboardInterrupt` so that whatever handles Ctrl-C handles it as well, and the
    context managers on the way end their servers.

    Attributes:
        signum: the number of the signal.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


# --- Environment and folders --------------------------------------------------------------------


def child_environment(
    folder: str | os.PathLike[str], extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The complete environment of a child process that keeps what it writes in a folder.

    It is this process's without the variables of ZenML, Prefect, mlauth and OpenTelemetry, with
    HOME and the temporary directory in the folder, telemetry off, and no proxy for loopback.

    Args:
        folder: where `home` and `tmp` are made if they are not there.
        extra: variables to add; they win.

    Returns:
        A new dictionary, for `subprocess` as it is.
    """
    folder = Path(folder).resolve()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN_NAMES and not name.startswith(_FOREIGN_PREFIXES)
    }
    home, temporary = _private(folder / "home"), str(_private(folder / "tmp"))
    environment.update(
        HOME=str(home),
        USERPROFILE=str(home),
        TMPDIR=temporary,
        TMP=temporary,
        TEMP=temporary,
        DO_NOT_TRACK="1",
        ZENML_ANALYTICS_OPT_IN="false",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PYTHONUNBUFFERED="1",
    )
    for name in ("NO_PROXY", "no_proxy"):
        others = environment.get(name)
        environment[name] = ",".join(filter(None, (others, LOOPBACK, "localhost")))
    environment.update(extra or {})
    return environment


def _private(folder: Path) -> Path:
    """Make a folder, with its parents, that is only its owner's; return it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _free_port() -> int:
    """A loopback port that is free now; somebody else may take it before it is used."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


# --- Signals ------------------------------------------------------------------------------------

_ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_running: set[ManagedProcess] = set()
_watched: list[int] = []


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back until the block is done, so that no process is forgotten half-way."""
    if not _in_main_thread():
        yield  # Python handles signals in the main thread only
        return
    came: list[int] = []
    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, *_ENDING_SIGNALS):
            handler = signal.getsignal(number)
            if handler is not None:  # None: installed by C code, which cannot be put back
                previous[number] = handler
                signal.signal(number, lambda number, _frame: came.append(number))
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _terminated(signum: int, _frame: FrameType | None) -> None:
    raise Terminated(signum)


def _watch_signals() -> None:
    """While servers run, SIGTERM and SIGHUP unwind the stack as Ctrl-C does.

    A handler that the program has installed itself stays. In other threads than the main one
    nothing can be installed: there `atexit` alone ends the servers.
    """
    if _in_main_thread():
        for number in _ENDING_SIGNALS:
            if number not in _watched and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminated)
                _watched.append(number)


def _unwatch_signals() -> None:
    if _in_main_thread() and not _running:
        while _watched:
            number = _watched.pop()
            if signal.getsignal(number) is _terminated:
                signal.signal(number, signal.SIG_DFL)


@atexit.register
def _stop_all() -> None:
    for process in list(_running):
        process.stop()


# --- Processes ----------------------------------------------------------------------------------


def _spawn(
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


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _tree(root: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The living processes that a process started, itself included.

    They are its descendants and, where there are sessions, those in the session that it leads:
    a child whose parent died is no descendant of it any more, but still in its session.
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
    # When the leader was reaped and its number is in use again, the session is somebody else's.
    if hasattr(os, "getsid") and (root.returncode is None or leader is None):
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == root.pid:
                    members.setdefault(process.pid, process)
            except OSError:
                continue
    return [process for process in members.values() if _is_alive(process)]


def _end_tree(root: subprocess.Popen[Any], grace: float) -> None:
    """End a process and everything that it started: ask the root, ask the rest, then kill.

    Args:
        root: a process that `_spawn` started.
        grace: how many seconds the root has to end by itself.
    """
    members = {process.pid: process for process in _tree(root)}
    if root.poll() is None:
        root.terminate()
        with suppress(subprocess.TimeoutExpired):
            root.wait(grace)
    for step in ("terminate", "kill", "kill"):
        members.update((process.pid, process) for process in _tree(root))
        left = [process for process in members.values() if _is_alive(process)]
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


def _run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; when it ends or is interrupted, nothing of its tree is left.

    Raises:
        ServerError: it cannot be started, or is not done in time.
    """
    with _uninterrupted():
        process = _spawn(
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
        with _uninterrupted():
            _end_tree(process, grace=2)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def _shown(command: Sequence[str]) -> str:
    """The part of a command that says what it is, without values that arguments may hold."""
    return " ".join(command[1:5])


def _last_line(text: str) -> str:
    """The last line of a text that is not blank, without colours; `nothing` when there is none."""
    lines = [line.strip() for line in _ANSI.sub("", text).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"


Managed = TypeVar("Managed", bound="ManagedProcess")


class ManagedProcess(ABC):
    """A process with a folder and a log that is ready when its context is entered.

    A subclass says what to run (`_command`), in which environment (`_environment`) and when it is
    ready (`_is_ready`).

    Args:
        folder: where everything that the process writes goes; made when it is not there.
        env: variables to add to its environment; they win.
        python: the interpreter that runs it, by default this one.
        start_timeout: how many seconds it may take to be ready.
        stop_timeout: how many seconds it may take to end before it is killed.

    Attributes:
        folder: the folder, absolute.
        log: the file that holds what the process printed.
    """

    title = "process"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        start_timeout: float = 120.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.log = self.folder / "log.txt"
        self._extra = dict(env or {})
        self._python = python
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[Any] | None = None
        self._owner = 0
        self._log_start = 0

    @abstractmethod
    def _command(self) -> list[str]:
        """The arguments after `python -m`; none of them a secret."""

    @abstractmethod
    def _environment(self) -> dict[str, str]:
        """What the process needs beside `child_environment`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it can be used now; an `httpx.HTTPError` means not yet."""

    def _secrets(self) -> list[str]:
        """Values that no message of ours may hold, whatever the process has printed."""
        return []

    def _try_again(self) -> bool:
        """Whether a start that failed may succeed when it is repeated; prepares for that."""
        return False

    def launch(self) -> None:
        """Start the process and return at once; does nothing when it is running.

        Raises:
            ServerError: it cannot be started.
        """
        if self._process is not None:
            return
        _private(self.folder)
        environment = child_environment(self.folder, self._environment() | self._extra)
        _watch_signals()
        try:
            with (
                open(self.log, "ab", opener=_open_private) as log,
                _uninterrupted(),
            ):
                self._log_start = log.tell()
                self._process = _spawn(
                    [self._python, "-m", *self._command()],
                    cwd=self.folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                self._owner = os.getpid()
                _running.add(self)
        finally:
            _unwatch_signals()

    def wait_ready(self) -> None:
        """Wait until the process can be used.

        Raises:
            ServerError: it died, or was not ready in time; the process is ended, and the message
                holds the last line of its log and the log's path.
        """
        deadline = time.monotonic() + self._start_timeout
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
                # The wait is the pause between two questions, and ends early when it dies.
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
                raise self._failure(f"was not ready after {self._start_timeout:g} s")

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
        return [] if self._process is None else sorted(p.pid for p in _tree(self._process))

    def stop(self) -> None:
        """End the process and all that it started, and wait for that; safe to repeat.

        In a fork of the process that launched it, nothing happens.
        """
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        with _uninterrupted():
            _end_tree(process, self._stop_timeout)
            self._process = None
            _running.discard(self)
        _unwatch_signals()

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


class _Server(ManagedProcess):
    """A process that answers HTTP on a loopback port, its own or a free one."""

    health = "/health"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        start_timeout: float = 120.0,
        stop_timeout: float = 10.0,
    ) -> None:
        super().__init__(
            folder,
            env=env,
            python=python,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )
        self._fixed_port = port
        self._port = port or 0
        self._attempts = 0

    @property
    def port(self) -> int:
        """The port; known once the server is ready.

        Raises:
            ServerError: the server was never launched, and no port was asked for.
        """
        if not self._port:
            raise ServerError(f"{self.title} has no port before it is launched")
        return self._port

    @property
    def _origin(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def launch(self) -> None:
        """Start the server on its port and return at once; does nothing when it is running.

        Raises:
            ServerError: it cannot be started.
        """
        if self._process is None and self._fixed_port is None:
            self._port = _free_port()
        super().launch()

    def _try_again(self) -> bool:
        taken = "already in use" in " ".join(self._log_of_this_start().split())
        self._attempts += 1
        return taken and self._fixed_port is None and self._attempts < _PORT_ATTEMPTS

    def _is_ready(self) -> bool:
        with _http(self._origin, timeout=2.0) as client:
            return client.get(self.health).status_code == 200 and self._owns_port()

    def _owns_port(self) -> bool:
        """Whether it is our process that answers, and not another that took the port before it."""
        if self._process is None:
            return False
        for process in _tree(self._process):
            try:
                connections = process.net_connections(kind="tcp")
            except psutil.AccessDenied:
                return True  # this system does not tell; the port was free a moment ago
            except psutil.Error:
                continue
            for connection in connections:
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self._port:
                    return True
        return False

    def __repr__(self) -> str:
        where = self._origin if self._port else "not launched"
        return f"<{type(self).__name__} {where} in {self.folder}>"


def _unverified_context() -> ssl.SSLContext:
    """TLS without verification, for launchers alone.

    The peer is a process of ours on loopback (`_owns_port` has looked), and tests give servers
    certificates that are expired or for another host on purpose.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_UNVERIFIED = _unverified_context()


def _http(base_url: str, *, timeout: float = 60.0) -> httpx.Client:
    """A client for a server of ours: no proxy, no netrc, no redirect."""
    return httpx.Client(base_url=base_url, timeout=timeout, trust_env=False, verify=_UNVERIFIED)


# --- ZenML --------------------------------------------------------------------------------------


class ZenMLServer(_Server):
    """A ZenML server with its own SQLite database and an administrator.

    Args:
        folder: where its configuration, database and log are kept.
        tls: the files of a certificate and its key; with them the URL is `https`.
        port: a port of loopback; by default a free one.
        env: variables to add to the server's environment.
        python: the interpreter that has `zenml[server]`, by default this one.
        start_timeout: how many seconds it may take to be ready.

    Attributes:
        admin_name: the administrator's name.
        admin_password: the administrator's password, new for each server object.
        database: the SQLite file.
    """

    title = "the ZenML server"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        tls: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        start_timeout: float = 120.0,
    ) -> None:
        super().__init__(folder, port=port, env=env, python=python, start_timeout=start_timeout)
        self.admin_name = "admin"
        self.admin_password = SecretStr(secrets.token_urlsafe(24))
        self._jwt_secret = SecretStr(secrets.token_hex(32))
        self._tls = None if tls is None else tuple(str(Path(path).resolve()) for path in tls)
        self._token: SecretStr | None = None
        self.database = self.folder / "config/local_stores/default_zen_store/zenml.db"

    @property
    def url(self) -> str:
        """The server's URL, without a slash at its end."""
        return self._origin

    @property
    def _origin(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        command = ["uvicorn", "zenml.zen_server.zen_server_api:app"]
        command += ["--host", LOOPBACK, "--port", str(self.port)]
        if self._tls is not None:
            certificate, key = self._tls
            command += ["--ssl-certfile", certificate, "--ssl-keyfile", key]
        return command

    def _environment(self) -> dict[str, str]:
        return {
            "ZENML_SERVER": "1",
            "ZENML_CONFIG_PATH": str(_private(self.folder / "config")),
            "ZENML_SERVER_AUTH_SCHEME": "OAUTH2_PASSWORD_BEARER",
            "ZENML_SERVER_AUTO_ACTIVATE": "true",
            "ZENML_DEFAULT_USER_NAME": self.admin_name,
            "ZENML_DEFAULT_USER_PASSWORD": self.admin_password.get_secret_value(),
            "ZENML_SERVER_JWT_SECRET_KEY": self._jwt_secret.get_secret_value(),
        }

    def _secrets(self) -> list[str]:
        return [self.admin_password.get_secret_value(), self._jwt_secret.get_secret_value()]

    def admin_token(self) -> SecretStr:
        """An access token of the administrator; one login a server, then the same token.

        Raises:
            ServerError: the server refused the login.
        """
        if self._token is None:
            answer = self._ask(
                "POST",
                "/login",
                data={
                    "grant_type": "password",
                    "username": self.admin_name,
                    "password": self.admin_password.get_secret_value(),
                },
            )
            self._token = SecretStr(answer["access_token"])
        return self._token

    def create_service_account(self, name: str) -> str:
        """Create an active service account.

        Args:
            name: the account's name.

        Returns:
            Its id.

        Raises:
            ServerError: the server refused, for example because the name is taken.
        """
        body = {"name": name, "active": True, "description": ""}
        return self._create("/service_accounts", body)

    def set_service_account_active(self, account: str, active: bool) -> None:
        """Switch a service account on or off.

        Args:
            account: its id or name.
            active: whether it can log in.

        Raises:
            ServerError: the server refused.
        """
        self._as_admin("PUT", f"/service_accounts/{_part(account)}", {"active": active})

    def create_api_key(self, account: str, name: str) -> tuple[str, SecretStr]:
        """Create an API key of a service account.

        Args:
            account: the account's id or name.
            name: the key's name.

        Returns:
            The key's id and the key.

        Raises:
            ServerError: the server refused.
        """
        answer = self._as_admin(
            "POST", f"/service_accounts/{_part(account)}/api_keys", {"name": name}
        )
        return str(answer["id"]), SecretStr(answer["body"]["key"])

    def set_api_key_active(self, account: str, key: str, active: bool) -> None:
        """Switch an API key on or off.

        Args:
            account: the account's id or name.
            key: the key's id or name.
            active: whether it can be used.

        Raises:
            ServerError: the server refused.
        """
        path = f"/service_accounts/{_part(account)}/api_keys/{_part(key)}"
        self._as_admin("PUT", path, {"active": active})

    def rotate_api_key(self, account: str, key: str, retain_minutes: int = 0) -> SecretStr:
        """Give an API key a new value.

        Args:
            account: the account's id or name.
            key: the key's id or name.
            retain_minutes: how long the old value works beside the new one.

        Returns:
            The new value.

        Raises:
            ServerError: the server refused.
        """
        path = f"/service_accounts/{_part(account)}/api_keys/{_part(key)}/rotate"
        answer = self._as_admin("PUT", path, {"retain_period_minutes": retain_minutes})
        return SecretStr(answer["body"]["key"])

    def create_project(self, name: str) -> str:
        """Create a project.

        Args:
            name: the project's name.

        Returns:
            Its id.

        Raises:
            ServerError: the server refused.
        """
        return self._create("/projects", {"name": name, "description": ""})

    def create_stack(self, name: str) -> str:
        """Create a stack from the components of the default stack.

        Args:
            name: the stack's name.

        Returns:
            Its id.

        Raises:
            ServerError: the server refused.
        """
        found = self._as_admin("GET", "/stacks?name=default&hydrate=true")
        components = {
            kind: [component["id"] for component in members]
            for kind, members in found["items"][0]["metadata"]["components"].items()
        }
        return self._create("/stacks", {"name": name, "components": components})

    def create_user(self, name: str, password: SecretStr) -> str:
        """Create an active user, a person, who is not an administrator.

        Args:
            name: the user's name.
            password: the user's password.

        Returns:
            The user's id.

        Raises:
            ServerError: the server refused.
        """
        body = {
            "name": name,
            "password": password.get_secret_value(),
            "active": True,
            "is_admin": False,
        }
        return self._create("/users", body)

    def requests(self) -> Counter[tuple[str, str]]:
        """How often the server answered each method and path, by its access log.

        Returns:
            A count for each `("POST", "/api/v1/login")`; paths without their query. The launcher's
            own requests count too, so compare two of them.
        """
        text = _ANSI.sub("", self.log.read_text("utf-8", "replace"))
        return Counter((method, path) for method, path in _ACCESS.findall(text))

    def _create(self, path: str, body: Mapping[str, Any]) -> str:
        return str(self._as_admin("POST", path, body)["id"])

    def _as_admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        token = self.admin_token().get_secret_value()
        return self._ask(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        with _http(self.url) as client:
            return _answer(self.title, client, method, f"/api/v1{path}", **options)


def _part(text: str) -> str:
    """A name or an id as one part of a URL's path."""
    return quote(text, safe="")


def _answer(title: str, client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The JSON that a server answers.

    Raises:
        ServerError: no answer, or a status of 400 and more. The server's own words are quoted only
            where they cannot repeat the request, which may hold a password.
    """
    what = f"{method} {client.base_url}".rstrip("/") + path.partition("?")[0]
    try:
        # 503: Prefect's SQLite database was locked for too long, and nothing was done.
        response = Retrying(
            retry=retry_if_result(lambda answer: answer.status_code == 503),
            stop=stop_after_attempt(8),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(client.request, method, path, **options)
    except httpx.HTTPError as error:
        raise ServerError(f"{title} gave no answer to {what}: {type(error).__name__}") from None
    if not response.is_success:
        said = "" if response.status_code == 422 else ": " + " ".join(response.text.split())[:300]
        raise ServerError(f"{title} answered {response.status_code} to {what}{said}")
    return response.json() if response.content else None


# --- Prefect ------------------------------------------------------------------------------------


# Prefect wraps what it says at 80 columns, so the last line of a log would be a single word.
_PLAIN_OUTPUT = {
    "COLUMNS": "250",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
}


class PrefectServer(_Server):
    """A Prefect server with its own SQLite database, its services and its UI.

    Args:
        folder: where its configuration, database and log are kept.
        port: a port of loopback; by default a free one.
        ui: whether the UI is served, which costs a copy of its files into the folder.
        env: variables to add to the server's environment.
        python: the interpreter that has Prefect, by default this one.
        start_timeout: how many seconds it may take to be ready.

    Attributes:
        database: the SQLite file.
    """

    title = "the Prefect server"
    health = "/api/health"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        port: int | None = None,
        ui: bool = True,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        start_timeout: float = 120.0,
    ) -> None:
        super().__init__(folder, port=port, env=env, python=python, start_timeout=start_timeout)
        self.database = self.folder / "prefect.db"
        self._ui = ui

    @property
    def ui_url(self) -> str:
        """The UI's URL, without a slash at its end."""
        return self._origin

    @property
    def api_url(self) -> str:
        """The API's URL, as `PREFECT_API_URL` takes it."""
        return f"{self._origin}/api"

    def flow_run_url(self, flow_run_id: str) -> str:
        """The page of a flow run in the UI.

        Args:
            flow_run_id: the run's id.

        Returns:
            A URL.
        """
        return f"{self.ui_url}/runs/flow-run/{flow_run_id}"

    def environment(self, folder: str | os.PathLike[str] | None = None) -> dict[str, str]:
        """The complete environment of a process that talks to this server.

        Args:
            folder: where HOME, PREFECT_HOME and temporary files of that process are; by default
                `client` in the server's folder.

        Returns:
            A new dictionary: `child_environment` with Prefect's variables.
        """
        folder = Path(folder or self.folder / "client").resolve()
        return child_environment(
            folder,
            {
                "PREFECT_API_URL": self.api_url,
                "PREFECT_HOME": str(_private(folder / "prefect")),
                "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
                **_PLAIN_OUTPUT,
            },
        )

    def _command(self) -> list[str]:
        # Not `--no-services`: without them events are not stored.
        switch = "--ui" if self._ui else "--no-ui"
        return ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(self.port), switch]

    def _environment(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(_private(self.folder / "prefect")),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.database}",
            # The UI asks the server where the API is, and that comes from these, not from --port.
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # By default the UI's files are copied into the installed package.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "ui"),
            # Events are in the database soon after they happened (the default is 5 s).
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
            **_PLAIN_OUTPUT,
        }

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the REST API.

        Args:
            method: the HTTP method.
            path: the path under `api_url`, with its leading slash.
            body: sent as JSON.

        Returns:
            The JSON of the answer, or None when it is empty.

        Raises:
            ServerError: no answer, or a status of 400 and more.
        """
        with _http(self.api_url) as client:
            return _answer(self.title, client, method, path, json=body)


class ProcessWorker(ManagedProcess):
    """A Prefect worker that runs flow runs as processes on this machine.

    It makes its work pool when there is none of that name, and is ready when the server says that
    it is online.

    Args:
        folder: where it, and the flow runs that it starts, write; HOME is in it.
        server: a Prefect server that is ready.
        pool: the name of the work pool.
        env: variables to add to the environment, which flow runs inherit.
        python: the interpreter that has Prefect, by default this one.
        start_timeout: how many seconds it may take to be online.

    Attributes:
        pool: the name of the work pool.
        name: the worker's own name, new for each worker object.
    """

    title = "the Prefect worker"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        server: PrefectServer,
        *,
        pool: str = "mlauth",
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        start_timeout: float = 120.0,
    ) -> None:
        super().__init__(folder, env=env, python=python, start_timeout=start_timeout)
        self.pool = pool
        self.name = f"mlauth-{secrets.token_hex(4)}"
        self._server = server

    def _command(self) -> list[str]:
        command = ["prefect", "worker", "start", "--name", self.name]
        return [*command, "--pool", self.pool, "--type", "process"]

    def _environment(self) -> dict[str, str]:
        environment = self._server.environment(self.folder)
        environment["PREFECT_WORKER_QUERY_SECONDS"] = "1"  # by default a run waits up to 10 s
        return environment

    def _is_ready(self) -> bool:
        path = f"/work_pools/{_part(self.pool)}/workers/filter"
        with _http(self._server.api_url, timeout=5.0) as client:
            response = client.post(path, json={})
        if response.status_code != 200:  # the pool is not there yet
            return False
        return any(
            worker["name"] == self.name and worker["status"] == "ONLINE"
            for worker in response.json()
        )


@dataclass(frozen=True)
class FlowRunResult:
    """How a flow run ended.

    Attributes:
        id: the flow run's id.
        state_type: `COMPLETED`, `FAILED`, `CRASHED` or `CANCELLED`.
        state_name: the state's name, which may say more.
        message: the state's message, or an empty text.
    """

    id: str
    state_type: str
    state_name: str
    message: str


class ExecutedFlowRun(subprocess.CompletedProcess[str]):
    """A `prefect flow-run execute` that has ended.

    Attributes:
        flow_run: how the flow run ended; its state is not a final one when the command failed
            before it could say so.
    """

    def __init__(self, process: subprocess.CompletedProcess[str], flow_run: FlowRunResult) -> None:
        super().__init__(process.args, process.returncode, process.stdout, process.stderr)
        self.flow_run = flow_run


def deploy(
    directory: str | os.PathLike[str],
    name: str | None,
    server: PrefectServer,
    env: Mapping[str, str] | None = None,
    extra_args: Sequence[str] = (),
    *,
    timeout: float = 120.0,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run `prefect deploy` without questions.

    Args:
        directory: the folder with `prefect.yaml`, and the working directory.
        name: the deployment's name in that file; None deploys all of them.
        server: where to.
        env: variables to add to the command's environment.
        extra_args: more arguments, none of them a secret.
        timeout: how many seconds it may take.
        python: the interpreter that has Prefect, by default this one.

    Returns:
        The finished command with its output as text.

    Raises:
        ServerError: the command failed or was not done in time.
    """
    which = ["--all"] if name is None else ["--name", name]
    command = [python, "-m", "prefect", "--no-prompt", "deploy", *which, *extra_args]
    cwd = Path(directory).resolve()
    done = _run(command, cwd=cwd, env=server.environment() | dict(env or {}), timeout=timeout)
    if done.returncode != 0:
        # Prefect wraps its messages to the width of a terminal, so one line of it says little.
        said = " ".join(_ANSI.sub("", done.stderr + " " + done.stdout).split())[-300:]
        raise ServerError(
            f"prefect deploy ended with status {done.returncode} in {cwd}, its output ends: {said}"
        )
    return done


def run_deployment(
    server: PrefectServer,
    deployment: str,
    parameters: Mapping[str, Any] | None = None,
    timeout: float = 180.0,
    *,
    job_variables: Mapping[str, Any] | None = None,
) -> FlowRunResult:
    """Start a flow run that a worker picks up, and wait for the end of the run and its process.

    Args:
        server: where the deployment is.
        deployment: its name as `flow/deployment`.
        parameters: of the flow run.
        timeout: how many seconds it may take.
        job_variables: of the flow run, over the deployment's.

    Returns:
        How it ended, well or not.

    Raises:
        ServerError: there is no such deployment, or the run was not done in time.
    """
    body: dict[str, Any] = {"parameters": dict(parameters or {})}
    if job_variables is not None:
        body["job_variables"] = dict(job_variables)
    flow_run_id = _create_flow_run(server, deployment, body)
    deadline = time.monotonic() + timeout
    while (result := _flow_run(server, flow_run_id)).state_type not in _FINAL_STATES:
        if time.monotonic() >= deadline:
            raise ServerError(
                f"flow run {flow_run_id} of {deployment} was still {result.state_name} "
                f"after {timeout:g} s; see {server.flow_run_url(flow_run_id)}"
            )
        time.sleep(0.25)
    # The state is final before the run's process sends its last log records and ends.
    deadline = min(deadline, time.monotonic() + _WORKER_DONE_TIMEOUT)
    while not _worker_is_done(server, flow_run_id) and time.monotonic() < deadline:
        time.sleep(0.25)
    return result


def execute_flow_run(
    server: PrefectServer,
    deployment: str,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout: float = 180.0,
    python: str = sys.executable,
) -> ExecutedFlowRun:
    """Run a flow run of a deployment as the container work pools do, by `flow-run execute`.

    Args:
        server: where the deployment is.
        deployment: its name as `flow/deployment`.
        cwd: the working directory, as an image would have one.
        env: variables to add to the command's environment; `PREFECT__FLOW_RUN_ID` is not taken.
        parameters: of the flow run.
        timeout: how many seconds it may take.
        python: the interpreter that has Prefect, by default this one.

    Returns:
        The finished command with its output as text, and how the flow run ended.

    Raises:
        ServerError: there is no such deployment, or the command was not done in time.
    """
    # Pending, as a worker leaves it for its container: no worker of the pool takes it.
    body = {"parameters": dict(parameters or {}), "state": {"type": "PENDING"}}
    flow_run_id = _create_flow_run(server, deployment, body)
    environment = server.environment() | dict(env or {})
    environment.pop("PREFECT__FLOW_RUN_ID", None)
    command = [python, "-m", "prefect", "flow-run", "execute", flow_run_id]
    done = _run(command, cwd=Path(cwd).resolve(), env=environment, timeout=timeout)
    return ExecutedFlowRun(done, _flow_run(server, flow_run_id))


def flow_run_logs(server: PrefectServer, flow_run_id: str) -> list[str]:
    """What a flow run has logged so far.

    Args:
        server: where the run is.
        flow_run_id: the run's id.

    Returns:
        The messages in their order, without times and levels.

    Raises:
        ServerError: the server refused.
    """
    messages: list[str] = []
    while True:
        body = {
            "logs": {"flow_run_id": {"any_": [flow_run_id]}},
            "sort": "TIMESTAMP_ASC",
            "limit": 200,
            "offset": len(messages),
        }
        page = server.request("POST", "/logs/filter", body)
        messages += [entry["message"] for entry in page]
        if len(page) < 200:
            return messages


def _create_flow_run(server: PrefectServer, deployment: str, body: Mapping[str, Any]) -> str:
    flow, _, name = deployment.partition("/")
    found = server.request("GET", f"/deployments/name/{_part(flow)}/{_part(name)}")
    path = f"/deployments/{found['id']}/create_flow_run"
    return str(server.request("POST", path, body)["id"])


def _worker_is_done(server: PrefectServer, flow_run_id: str) -> bool:
    """Whether a worker has said that the process of a flow run ended; then its logs are stored."""
    body = {
        "filter": {
            "event": {"name": ["prefect.worker.executed-flow-run"]},
            "related": {"id": [f"prefect.flow-run.{flow_run_id}"]},
        },
        "limit": 1,
    }
    return bool(server.request("POST", "/events/filter", body)["events"])


def _flow_run(server: PrefectServer, flow_run_id: str) -> FlowRunResult:
    run = server.request("GET", f"/flow_runs/{flow_run_id}")
    state = run["state"] or {}
    return FlowRunResult(
        id=str(run["id"]),
        state_type=state.get("type") or "",
        state_name=state.get("name") or "",
        message=state.get("message") or "",
    )

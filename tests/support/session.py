"""The servers of a test session: one of each, started when a test first asks for it.

With pytest-xdist, several processes run tests. Its controller outlives them, so it starts and ends
the servers, and the other processes ask it for them. So each server is started once, and none stays
behind if a process that runs tests crashes.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from mlauth.systems.zenml import isolation
from tests.support.environment import child_environment, private_folder
from tests.support.managed import ManagedProcess
from tests.support.servers import PrefectServer, ProcessWorker, ServerError, ZenMLServer

QUICK_HASHES = Path(__file__).parent / "quick_hashes"
SHORT_LOCKS = Path(__file__).parent / "short_locks"


@contextmanager
def untraced() -> Iterator[None]:
    """Start processes without coverage: servers run none of our code, and would run slower."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
            patch.delenv(name, raising=False)
        yield


class Servers:
    """Starts servers on request, and keeps them until it is closed.

    Its answers say where a server is, so that another process can talk to it.

    Args:
        load: whether the tests are those of a load, which is to meet a server that has to work
            for its logins.
    """

    def __init__(self, *, load: bool) -> None:
        self._quick = {} if load else {"PYTHONPATH": str(QUICK_HASHES)}
        self._answers: dict[str, Any] = {}
        self._lock = Lock()
        self._closed = False
        self._stack = ExitStack()

    def ask(self, folder: Path, name: str, *arguments: str) -> Any:
        """Start one of them, or do what needs to be done once, unless that was done before."""
        key = " ".join((name, *arguments))
        if key not in self._answers:
            start: Callable[..., Any] = getattr(self, f"_{name}")
            private = private_folder(folder / "-".join((name, *arguments)))
            self._answers[key] = start(private, *arguments)
        return self._answers[key]

    def close(self) -> None:
        """End everything that was started; nothing starts any more."""
        with self._lock:
            self._closed = True
        self._stack.close()

    def _started(self, process: ManagedProcess) -> None:
        with untraced(), self._lock:
            if self._closed:
                raise ServerError("the test session has ended")
            self._stack.callback(process.stop)
            process.launch()
        process.wait_ready()

    def _zenml(self, folder: Path) -> tuple[Path, int, str]:
        self.zenml = ZenMLServer(folder, env=self._quick)
        self._started(self.zenml)
        return folder, self.zenml.port, self.zenml.admin_password.get_secret_value()

    def _prefect(self, folder: Path) -> tuple[Path, int]:
        self.prefect = PrefectServer(folder, ui=False, env={"PYTHONPATH": str(SHORT_LOCKS)})
        self._started(self.prefect)
        return folder, self.prefect.port

    def _worker(self, folder: Path, _process: str) -> Path:
        # It imports Prefect and ZenML for every run, so it is not traced; other workers are.
        self._started(ProcessWorker(folder, self.prefect, pool=folder.name))
        return folder

    def _account(self, _folder: Path, name: str) -> str:
        account = self.zenml.create_service_account(name)
        return self.zenml.create_api_key(account, "documents")[1].get_secret_value()

    def _flavor(self, folder: Path) -> None:
        environment = {
            "ZENML_STORE_URL": self.zenml.url,
            "ZENML_STORE_API_TOKEN": self.zenml.admin_token().get_secret_value(),
            isolation.NO_DISK: "true",
        }
        command = [str(Path(sys.executable).with_name("zenml")), "alerter", "flavor", "register"]
        command.append("zenml_mlauth.ServiceAccountCheckFlavor")
        _run(command, folder, child_environment(folder, environment))

    def _blocks(self, folder: Path) -> str:
        command = [sys.executable, "-m", "prefect", "block", "register", "-m", "prefect_mlauth"]
        return _run(command, folder, self.prefect.environment(folder))


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    if done.returncode:
        raise ServerError(done.stdout + done.stderr)
    return done.stdout


class Desk:
    """Answers the other processes of the session, one after another.

    Args:
        servers: starts the servers.

    Attributes:
        key: proves that a process belongs to the session.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self.key = secrets.token_bytes(32)
        self._listener = Listener(backlog=64, authkey=self.key)
        Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        """Its socket, in a folder that is only this user's."""
        return str(self._listener.address)

    def _serve(self) -> None:
        while True:
            # One that ended while it asked, or while it waited, keeps nobody else waiting.
            gone = suppress(OSError, EOFError, AuthenticationError)
            with gone, self._listener.accept() as connection:
                try:
                    answer = self._servers.ask(*connection.recv())
                except ServerError as error:
                    connection.send((False, str(error)))
                else:
                    connection.send((True, answer))


def ask_desk(address: str, key: bytes, folder: Path, *words: str) -> Any:
    """Have `Servers.ask` answer in the process that has the desk.

    Raises:
        ServerError: the server did not start.
    """
    with Client(address, authkey=key) as connection:
        connection.send((folder, *words))
        done, answer = connection.recv()
    if not done:
        raise ServerError(answer)
    return answer

"""A real Prefect server on loopback, and a worker that runs flow runs as processes."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.environment import LOOPBACK, child_environment, private_folder
from tests.support.http_server import HTTPServer, ask, http_client, url_part
from tests.support.managed import ManagedProcess

# Prefect wraps its messages at 80 columns, so the last line of a log would be a single word.
PLAIN_OUTPUT = {
    "COLUMNS": "250",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_CLI_PROMPT": "false",
}


class PrefectServer(HTTPServer):
    """A Prefect server with its own SQLite database, its services and its UI.

    Args:
        folder: where its configuration, database and log are kept.
        ui: whether the UI is served, which costs a copy of its files into the folder.
        port: where one that another process started is; it is only asked.
        env: variables to add to the server's environment.
        python: the interpreter that has Prefect, by default this one.

    Attributes:
        database: the SQLite file.
    """

    title = "the Prefect server"
    health = "/api/health"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        ui: bool = True,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        super().__init__(folder, port=port, env=env, python=python)
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
                # Two writers can lock each other out of SQLite for the 60 s that Prefect sets.
                "PREFECT_API_REQUEST_TIMEOUT": "120",
                "PREFECT_HOME": str(private_folder(folder / "prefect")),
                "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
                **PLAIN_OUTPUT,
            },
        )

    def _command(self) -> list[str]:
        # Not `--no-services`: without them events are not stored.
        switch = "--ui" if self._ui else "--no-ui"
        return ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(self.port), switch]

    def _environment(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(private_folder(self.folder / "prefect")),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.database}",
            # The UI asks the server for the address of the API, which comes from these variables.
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # By default the UI's files are copied into the installed package.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "ui"),
            # Events are in the database soon after they happened (the default is 5 s).
            "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
            **PLAIN_OUTPUT,
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
        with http_client(self.api_url) as client:
            return ask(self.title, client, method, path, json=body)


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
    ) -> None:
        super().__init__(folder, env=env, python=python)
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
        path = f"/work_pools/{url_part(self.pool)}/workers/filter"
        with http_client(self._server.api_url, timeout=5.0) as client:
            response = client.post(path, json={})
        if response.status_code != 200:  # the pool is not there yet
            return False
        return any(
            worker["name"] == self.name and worker["status"] == "ONLINE"
            for worker in response.json()
        )

"""A real ZenML server on loopback."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tests.support.environment import LOOPBACK, private_folder
from tests.support.http_server import HTTPServer, ask, http_client, url_part
from tests.support.processes import without_colours

_ACCESS = re.compile(r'\S+:\d+ - "([A-Z]+) ([^\s?"]+)\S* HTTP/[0-9.]+" \d{3}')


class ZenMLServer(HTTPServer):
    """A ZenML server with its own SQLite database and an administrator.

    Args:
        folder: where its configuration, database and log are kept.
        tls: the files of a certificate and its key; with them the URL is `https`.
        port: where one that another process started is; it is only asked.
        env: variables to add to the server's environment.
        python: the interpreter that has `zenml[server]`, by default this one.

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
        port: int = 0,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        super().__init__(folder, port=port, env=env, python=python)
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
            "ZENML_CONFIG_PATH": str(private_folder(self.folder / "config")),
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
        self.request("PUT", f"/service_accounts/{url_part(account)}", {"active": active})

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
        answer = self.request(
            "POST", f"/service_accounts/{url_part(account)}/api_keys", {"name": name}
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
        path = f"/service_accounts/{url_part(account)}/api_keys/{url_part(key)}"
        self.request("PUT", path, {"active": active})

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
        path = f"/service_accounts/{url_part(account)}/api_keys/{url_part(key)}/rotate"
        answer = self.request("PUT", path, {"retain_period_minutes": retain_minutes})
        return SecretStr(answer["body"]["key"])

    def create_stack(self, name: str) -> str:
        """Create a stack from the components of the default stack.

        Args:
            name: the stack's name.

        Returns:
            Its id.

        Raises:
            ServerError: the server refused.
        """
        found = self.request("GET", "/stacks?name=default&hydrate=true")
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

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the REST API as the administrator.

        Args:
            method: the HTTP method.
            path: the path under `/api/v1`, with its leading slash.
            body: sent as JSON.

        Returns:
            The JSON of the answer, or None when it is empty.

        Raises:
            ServerError: no answer, or a status of 400 and more.
        """
        token = self.admin_token().get_secret_value()
        return self._ask(method, path, json=body, headers={"Authorization": f"Bearer {token}"})

    def requests(self) -> Counter[tuple[str, str]]:
        """How often the server answered each method and path, by its access log.

        Returns:
            A count for each `("POST", "/api/v1/login")`; paths without their query. The launcher's
            own requests count too, so compare two of them.
        """
        text = without_colours(self.log.read_text("utf-8", "replace"))
        return Counter((method, path) for method, path in _ACCESS.findall(text))

    def _create(self, path: str, body: Mapping[str, Any]) -> str:
        return str(self.request("POST", path, body)["id"])

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        with http_client(self.url) as client:
            return ask(self.title, client, method, f"/api/v1{path}", **options)

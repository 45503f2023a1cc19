"""Service accounts on the shared ZenML server, one for each test that needs one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.support.reverse_proxy import Proxy
from tests.support.servers import ZenMLServer

LOGIN = ("POST", "/api/v1/login")


@dataclass
class Account:
    """A service account with one key, kept in a file of mode 0600.

    `between` is a proxy before the server. A test that counts requests needs it, because other
    tests use the same server.
    """

    server: ZenMLServer
    name: str
    id: str
    key_id: str
    file: Path
    between: Proxy | None = None

    @property
    def url(self) -> str:
        return self.between.url if self.between else self.server.url

    @property
    def reference(self) -> str:
        return f"file://{self.file}"

    @property
    def key(self) -> str:
        return self.file.read_text()

    def logins(self) -> int:
        """Return the number of logins at `url` so far, of all accounts."""
        return self.asked(*LOGIN)

    def asked(self, method: str, path: str) -> int:
        assert self.between, "the test needs the fixture `counted`"
        return [(each.method, each.path) for each in self.between.requests].count((method, path))


def new_account(server: ZenMLServer, folder: Path, name: str = "flows") -> Account:
    name = f"{name}-{uuid.uuid4().hex[:8]}"
    account = server.create_service_account(name)
    key_id, key = server.create_api_key(account, "test")
    file = folder / name
    file.touch(0o600)
    file.write_text(key.get_secret_value())
    return Account(server, name, account, key_id, file)

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlauth import SecretReference
from mlauth.errors import SecretUnusable
from mlauth.storing import SecretStore
from mlauth.testing.stores import StoreContract


class TestEnvironment(StoreContract):
    scheme = "env"

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def put(self, value: str) -> str:
        self.monkeypatch.setenv("MLAUTH_TEST_SECRET", value)
        return "env://MLAUTH_TEST_SECRET"

    def missing(self) -> str:
        self.monkeypatch.delenv("MLAUTH_TEST_MISSING", raising=False)
        return "env://MLAUTH_TEST_MISSING"


def test_a_value_that_is_not_utf_8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"MLAUTH_TEST_SECRET", b"canary\xff")
    with pytest.raises(SecretUnusable, match="not UTF-8") as caught:
        SecretStore("env").read(SecretReference.parse("env://MLAUTH_TEST_SECRET"), timeout=5)
    assert "canary" not in str(caught.value)


def test_a_user_without_a_name_is_named_by_number() -> None:
    become = "os.setgid(54321); os.setuid(54321)" if os.getuid() == 0 else ""
    code = f"import os, pwd\nfrom mlauth.stores.env import user\n{become}\nprint(user())"
    environment = {k: v for k, v in os.environ.items() if k not in {"USER", "LOGNAME", "LNAME"}}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.startswith("user id 54321" if become else "user "), done.stderr

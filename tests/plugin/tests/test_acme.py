"""Acme's system and store do what all do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from stand_ins import WORKER, Vault, shop

from mlauth.testing.stores import RemoteStoreContract
from mlauth.testing.systems import ServiceContract
from mlauth.testing.web import Answer, Call, serve


class TestAcmeCredentials(ServiceContract):
    system = "acme"
    secrets: ClassVar = {"token": "acme_canary-7d1e"}
    account = "flows"

    def settings(self) -> dict[str, str]:
        return {"url": self.url}

    def answer(self, call: Call) -> Answer:
        return shop(self.secrets["token"], call)


class TestAcmeVault(RemoteStoreContract):
    scheme = "acmevault"

    @pytest.fixture(autouse=True)
    def _vault(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.vault = Vault()
        with serve(self.vault) as port:
            monkeypatch.setenv("ACME_VAULT_URL", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("ACME_VAULT_TOKEN", WORKER)
            yield

    def put(self, value: str) -> str:
        self.vault.secrets["key"] = value
        return "acmevault://flows/key"

    def missing(self) -> str:
        return "acmevault://flows/missing"

    def denied(self) -> str:
        return "acmevault://others/key"

    def unavailable(self) -> str:
        self.vault.down = True
        return "acmevault://flows/key"

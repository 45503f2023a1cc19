"""The block `Azure Key Vault Secret`, with Azure's own SDK and a server as strict as Azure."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

import mlauth
from mlauth.errors import (
    InvalidBlock,
    SecretDenied,
    SecretNotFound,
    SecretUnusable,
    StoreUnavailable,
)
from mlauth.masking import mask
from prefect_mlauth import AzureKeyVaultSecret
from tests.prefect_mlauth.conftest import Project, block_documents, digest
from tests.support.azure import Azure, become
from tests.support.key_vault import Vault
from tests.support.servers import PrefectServer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def _writer(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, azure.environment(azure.writer))


@pytest.fixture
def vault(azure: Azure) -> Vault:
    """A vault of the test's own."""
    return azure.vault()


def block(vault: Vault, version: str | None = None) -> AzureKeyVaultSecret:
    return AzureKeyVaultSecret(vault=vault.host.partition(".")[0], name="key", version=version)


def test_what_is_written_is_read_and_masked_in_logs(vault: Vault, canary: str) -> None:
    secret = block(vault)
    reference = secret.write_secret(canary.encode())
    assert mask(f"logged {canary}") == "logged ***"
    assert secret.read_secret() == canary.encode()
    assert mlauth.resolve(reference).get_secret_value() == canary


def test_a_version_stays_the_one_that_is_read(vault: Vault, canary: str) -> None:
    first = block(vault).write_secret(canary.encode())
    pinned = block(vault, first.partition("?version=")[2])
    second = pinned.write_secret(b"another value")
    assert first != second
    assert pinned.read_secret() == canary.encode()
    assert block(vault).read_secret() == b"another value"


def test_async_code_awaits_both(vault: Vault, canary: str) -> None:
    async def work() -> bytes:
        secret = block(vault)
        await secret.write_secret(canary.encode())
        return await secret.read_secret()

    assert asyncio.run(work()) == canary.encode()


def test_the_full_host_of_a_vault(vault: Vault, canary: str) -> None:
    vault.put("key", canary)
    assert AzureKeyVaultSecret(vault=vault.host, name="key").read_secret() == canary.encode()


def test_what_cannot_be_read_or_written_is_one_line(
    vault: Vault, azure: Azure, monkeypatch: pytest.MonkeyPatch, canary: str
) -> None:
    secret = block(vault)
    with pytest.raises(SecretNotFound, match="no such secret") as missing:
        secret.read_secret()
    with pytest.raises(SecretUnusable, match="the value is not UTF-8 text") as binary:
        secret.write_secret(b"\xff" + canary.encode())
    become(monkeypatch, azure.environment(azure.reader))
    with pytest.raises(SecretDenied) as denied:
        secret.write_secret(canary.encode())
    for caught in (missing, binary, denied):
        assert "\n" not in str(caught.value)
        assert canary not in str(caught.value)


def test_reading_and_writing_end_with_their_time_limit(
    vault: Vault, azure: Azure, monkeypatch: pytest.MonkeyPatch, canary: str
) -> None:
    """The time limit also holds for the identity, whose own limits are longer."""
    vault.put("key", canary)
    identity = azure.identity("get", "set")
    become(monkeypatch, azure.environment(identity))
    identity.troubles.hang(20)
    secret = AzureKeyVaultSecret(vault=vault.host, name="key", timeout=1.5)
    start = time.monotonic()
    for call in (secret.read_secret, lambda: secret.write_secret(b"canary-new")):
        with pytest.raises(StoreUnavailable, match=r"no (answer|token) (within|in time)") as late:
            call()
        assert "canary" not in str(late.value)
    assert time.monotonic() - start < 15  # the identity's own limits are 10 each
    assert vault.values("key") == [canary]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"name": "a_canary"}, "a secret's name has 1 to 127 letters, digits and hyphens"),
        ({"vault": "canary_"}, "a vault's name has 3 to 24 letters"),
        ({"vault": "acme/canary"}, "a vault's name has 3 to 24 letters"),
        ({"name": "canary/x"}, r"a secret's name has .* \(no '_', '.' or '/'\)"),
        ({"version": "canary"}, "version is not 32 digits"),
    ],
)
def test_names_that_key_vault_does_not_have_are_refused_and_not_repeated(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidBlock, match=said) as caught:
        AzureKeyVaultSecret(**{"vault": "acme", "name": "key", **fields})
    assert str(caught.value).startswith("Azure Key Vault Secret block: ")
    assert "canary" not in str(caught.value)


@pytest.mark.load
@pytest.mark.parametrize("flow", ["secret", "secret_async"])
def test_a_flow_reads_and_writes_a_secret(
    flow: str,
    project: Project,
    prefect_api: PrefectServer,
    azure: Azure,
    vault: Vault,
    canary: str,
) -> None:
    vault.put("key", canary)
    name = f"secret-{uuid.uuid4().hex[:8]}"
    block(vault).save(name)
    run = project.run(
        "execute",
        project.deploy(flow, file="block_flows.py"),
        BLOCK=name,
        **azure.environment(azure.writer),
    )
    assert run.result.state_type == "COMPLETED", run.text + run.output
    assert run.facts["old"] == digest(canary)
    assert run.facts["new"] == digest(f"{canary}-new")
    assert mlauth.resolve(run.facts["reference"]).get_secret_value() == f"{canary}-new"
    assert "printed b'***' ***" in run.logs
    assert project.places_of([canary], run) == []
    assert canary not in block_documents(prefect_api)

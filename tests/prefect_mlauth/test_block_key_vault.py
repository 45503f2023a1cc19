"""The block Azure Key Vault Secret: real flow runs, the real SDK, a strict vault."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from mlauth import azure_identity
from mlauth.demo.servers import PrefectServer
from mlauth.errors import SecretDenied, SecretNotFound, SecretUnusable
from prefect_mlauth import AzureKeyVaultSecret
from tests.prefect_mlauth.conftest import Project, block_documents, digest
from tests.servers.azure import Azure
from tests.servers.key_vault import Vault

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def canary() -> str:
    return f"canary-{uuid.uuid4().hex}"


@pytest.fixture
def vault(azure: Azure, canary: str) -> Vault:
    vault = azure.vault()
    vault.put("hf-token", f"{canary}-before")
    return vault


@pytest.fixture
def here(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads and writes."""
    azure_identity.tokens.cache_clear()
    for name, value in azure.environment(azure.writer).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("way", "flow"), [("worker", "replace"), ("execute", "replace_async")])
def test_a_flow_reads_and_writes_a_secret_of_which_the_block_has_only_the_name(
    way: str,
    flow: str,
    project: Project,
    azure: Azure,
    vault: Vault,
    canary: str,
    prefect_api: PrefectServer,
) -> None:
    name = f"hf-token-{uuid.uuid4().hex[:8]}"
    AzureKeyVaultSecret(vault=vault.name, name="hf-token").save(name)
    deployment = project.deploy(flow, file="key_vault_flows.py")
    run = project.run(
        way, deployment, BLOCK=name, NEW=f"{canary}-after", **azure.environment(azure.writer)
    )
    assert run.result.state_type == "COMPLETED", run.text + run.output
    assert run.facts["before"] == digest(f"{canary}-before")
    assert run.facts["after"] == digest(f"{canary}-after")
    assert run.facts["written"].startswith(f"azurekv://{vault.name}/hf-token?version=")
    assert run.logs.count("printed ***") == 2
    assert [each.method for each in vault.requests] == ["GET", "GET", "PUT", "GET"]
    assert project.places_of([f"{canary}-before"], run) == []
    assert canary not in block_documents(project.server)


def test_the_version_of_the_block_is_read_and_writing_makes_a_new_one(
    here: None, vault: Vault, canary: str
) -> None:
    secret = AzureKeyVaultSecret(vault=vault.name, name="hf-token")
    written = secret.write_secret(f"{canary}-after".encode())
    version = written.partition("?version=")[2]
    vault.put("hf-token", "newer")
    pinned = AzureKeyVaultSecret(vault=vault.name, name="hf-token", version=version)
    assert pinned.read_secret() == f"{canary}-after".encode()
    assert secret.read_secret() == b"newer"


def test_async_code_awaits_both(here: None, vault: Vault, canary: str) -> None:
    async def replace() -> bytes:
        secret = AzureKeyVaultSecret(vault=vault.name, name="hf-token")
        await secret.write_secret(f"{canary}-after".encode())  # type: ignore[misc]
        return await secret.read_secret()  # type: ignore[misc,no-any-return]

    assert asyncio.run(replace()) == f"{canary}-after".encode()


def test_what_is_refused_is_one_line_and_leaves_the_secret(
    here: None, azure: Azure, vault: Vault, canary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = AzureKeyVaultSecret(vault=vault.name, name="hf-token")
    with pytest.raises(SecretUnusable, match="not UTF-8 text"):
        secret.write_secret(b"\xff\xfe")
    with pytest.raises(SecretUnusable, match="1 byte to 25 KB"):
        secret.write_secret(b"a" * 30_000)
    with pytest.raises(SecretNotFound, match="no such secret"):
        AzureKeyVaultSecret(vault=vault.name, name="other").read_secret()
    for name, value in azure.environment(azure.reader).items():
        monkeypatch.setenv(name, value)
    azure_identity.tokens.cache_clear()
    with pytest.raises(SecretDenied, match="Key Vault Secrets Officer") as caught:
        secret.write_secret(f"{canary}-after".encode())
    assert canary not in str(caught.value)
    assert secret.read_secret() == f"{canary}-before".encode()

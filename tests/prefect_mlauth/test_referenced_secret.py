"""The block `Referenced Secret`; the tests of the Key Vault block cover their common parts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlauth
from mlauth.azure.tokens import tokens
from mlauth.errors import InvalidBlock, SecretNotFound, SecretUnusable
from mlauth.masking import mask
from prefect_mlauth import ReferencedSecret
from tests.support.azure import Azure, become


def test_what_is_written_is_read_and_masked_in_logs(tmp_path: Path, canary: str) -> None:
    secret = ReferencedSecret(reference=f"file://{tmp_path}/key")
    assert secret.write_secret(canary.encode()) == secret.reference
    assert mask(f"logged {canary}") == "logged ***"
    assert secret.read_secret() == canary.encode()
    assert (tmp_path / "key").read_text() == canary


def test_one_key_is_written_and_the_others_stay(tmp_path: Path, canary: str) -> None:
    (tmp_path / "keys").write_text('{"a": "1", "b": "2"}')
    secret = ReferencedSecret(reference=f"file://{tmp_path}/keys#b")

    async def work() -> bytes:
        assert await secret.write_secret(canary.encode()) == secret.reference
        return await secret.read_secret()

    assert asyncio.run(work()) == canary.encode()
    assert (tmp_path / "keys").read_text() == f'{{"a": "1", "b": "{canary}"}}'


@pytest.fixture
def vault(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    become(monkeypatch, azure.environment(azure.writer))
    yield azure.vault().name
    tokens.cache_clear()


def test_a_version_stays_the_one_that_is_read(vault: str, canary: str) -> None:
    first = ReferencedSecret(reference=f"azurekv://{vault}/key").write_secret(canary.encode())
    pinned = ReferencedSecret(reference=first)
    second = pinned.write_secret(b"another value")
    assert first.startswith(f"azurekv://{vault}/key?version=")
    assert first != second
    assert pinned.read_secret() == canary.encode()
    assert mlauth.resolve(second).get_secret_value() == "another value"


def test_what_cannot_be_read_or_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canary: str
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", canary)
    fixed = ReferencedSecret(reference="env://TOKEN_OF_TEST")
    assert fixed.read_secret() == canary.encode()
    file = ReferencedSecret(reference=f"file://{tmp_path}/key")
    with pytest.raises(SecretUnusable, match="mlauth only reads from env") as fixed_only:
        fixed.write_secret(canary.encode())
    with pytest.raises(SecretNotFound, match="there is no such file") as missing:
        file.read_secret()
    with pytest.raises(SecretUnusable, match="the value is not UTF-8 text") as binary:
        file.write_secret(b"\xff" + canary.encode())
    for caught in (fixed_only, missing, binary):
        assert "\n" not in str(caught.value)
        assert canary not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("canary", "a literal stands where a secret reference belongs"),
        ("https://user:canary@host/path", "no store is called 'https'; mlauth knows"),
        ("env://canary-x", "is not the name of a variable"),
        ("file://canary", "the path is not absolute"),
        ("azurekv://acme-prod/key?version=canary", "version' is not 32 digits"),
        ("", "an empty text stands where"),
    ],
)
def test_what_is_no_reference_is_refused_and_not_repeated(reference: str, said: str) -> None:
    with pytest.raises(InvalidBlock) as caught:
        ReferencedSecret(reference=reference)
    assert str(caught.value).startswith("Referenced Secret block: reference: ")
    assert said in str(caught.value)
    assert "canary" not in str(caught.value)

"""`mlauth.storing`, which is the same for all stores; the contract suite tests the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from mlauth import SecretReference
from mlauth.errors import SecretNotFound, SecretUnusable
from mlauth.storing import SecretStore

CANARY = "canary-77"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def at(file: Path, key: str = "") -> SecretReference:
    return SecretReference.parse(f"file://{file}{key}")


def write(reference: SecretReference, value: str, **options: object) -> None:
    SecretStore("file").write(reference, SecretStr(value), timeout=5, **options)  # type: ignore[arg-type]


def test_a_key_of_what_is_not_there_is_made(file: Path) -> None:
    SecretStore("file").prove_writable(at(file, "#a"), timeout=5)
    assert not file.exists()
    write(at(file, "#a"), CANARY)
    assert file.read_text() == f'{{"a": "{CANARY}"}}'


@pytest.mark.parametrize("content", [CANARY, f'["{CANARY}"]', "3", "[" * 100_000])
def test_a_key_is_not_written_into_what_is_no_json_object(file: Path, content: str) -> None:
    file.write_text(content)
    store = SecretStore("file")
    for call in (
        lambda: write(at(file, "#a"), "new"),
        lambda: store.prove_writable(at(file, "#a"), timeout=5),
    ):
        with pytest.raises(SecretUnusable, match="is not a JSON object, so it has no keys") as why:
            call()
        assert str(why.value).startswith(f"{at(file, '#a')} cannot be written: ")
        assert CANARY not in str(why.value)
    assert file.read_text() == content


def test_a_value_that_somebody_else_wrote_meanwhile_is_not_overwritten(file: Path) -> None:
    file.write_text('{"a": "1", "b": "1"}')

    def another() -> None:
        file.write_text('{"a": "1", "b": "2"}')

    with pytest.raises(SecretUnusable, match="somebody else writes to it at the same time"):
        write(at(file, "#a"), CANARY, before=another)
    assert file.read_text() == '{"a": "1", "b": "2"}'


@pytest.mark.parametrize("value", ["", "\ud83d"])
def test_a_key_is_not_written_with_what_could_not_be_read(file: Path, value: str) -> None:
    file.write_text('{"a": "1"}')
    with pytest.raises(SecretUnusable, match="#a cannot be written: "):
        write(at(file, "#a"), value)
    assert file.read_text() == '{"a": "1"}'


def test_a_key_that_makes_the_whole_too_large_is_not_written(file: Path) -> None:
    file.write_text('{"a": "1"}')
    with pytest.raises(SecretUnusable, match="the store takes 1 byte to 1 MiB, not 1,048,5"):
        write(at(file, "#a"), "a" * (1024 * 1024 - 1))
    assert file.read_text() == '{"a": "1"}'


def test_a_version_is_not_written() -> None:
    reference = SecretReference.parse(f"azurekv://acme-prod/key?version={'0' * 32}")
    store = SecretStore("azurekv")
    for call in (
        lambda: store.write(reference, SecretStr(CANARY), timeout=5),
        lambda: store.prove_writable(reference, timeout=5),
    ):
        with pytest.raises(SecretUnusable, match="cannot be written: it names one version"):
            call()


def test_an_unreadable_secret_is_named_whole_and_a_missing_key_with_its_key(
    file: Path,
) -> None:
    with pytest.raises(SecretNotFound, match=r"^file://\S+/secret cannot be read: there is no"):
        SecretStore("file").read(at(file, "#a"), timeout=5)
    file.write_text("{}")
    with pytest.raises(SecretUnusable, match=r"^file://\S+/secret#a cannot be used: the secret"):
        SecretStore("file").read(at(file, "#a"), timeout=5)

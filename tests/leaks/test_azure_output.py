"""Whatever Key Vault and Microsoft Entra do, no output holds a secret or a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import mlauth
from mlauth import EnvironmentSecrets, SecretReference
from mlauth.azure import tokens as azure_tokens
from mlauth.cli import main
from mlauth.storing import SecretStore
from prefect_mlauth import AzureKeyVaultSecret, MLAuthProfile, steps
from tests.leaks.watching import Watch, said, watching
from tests.support.azure import Azure, become
from tests.support.canaries import canary, leaks
from tests.support.web import Answer

pytestmark = pytest.mark.load
NAME = "token"


@pytest.fixture
def watch(
    clean_environment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Watch]:
    with watching(capfd) as watch:
        yield watch
    azure_tokens.tokens.cache_clear()


class Place:
    """A vault with a secret, an identity, and all their values."""

    def __init__(self, azure: Azure, patch: pytest.MonkeyPatch) -> None:
        self.azure, self.vault = azure, azure.vault()
        self.identity = azure.identity("get", "set", "update")
        self.value, self.written = canary("value"), canary("written")
        self.vault.put(NAME, self.value)
        self.values = [self.value, self.written, self.identity.secret]
        self.be(azure.service_principal(self.identity), patch)

    def be(self, environment: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
        become(patch, environment)
        secret = {"IDENTITY_HEADER", "MSI_SECRET", "AZURE_CLIENT_SECRET"}
        self.values += [value for name, value in environment.items() if name in secret]


@pytest.fixture
def place(azure: Azure, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(azure, monkeypatch)


def command(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    return result.output + (said(result.exception) if result.exception else "")


def within(activating: Any) -> Any:
    with activating as active:
        return active


def nothing_said(text: str, place: Place) -> list[str]:
    """Return the output around each value, and around each token of Microsoft's shape."""
    return leaks(text, *place.values) + re.findall(r"eyJ[\w-]{10,}\.eyJ[\w.-]{10,}", text)


def ways(place: Place, patch: pytest.MonkeyPatch, timeout: float) -> dict[str, Callable[[], Any]]:
    """Return every way to read a secret of Key Vault."""
    vault, reference = place.vault.name, f"azurekv://{place.vault.name}/{NAME}"
    env = {"OTHER": reference}
    patch.setenv("MLAUTH_TIMEOUT", str(timeout))
    block = AzureKeyVaultSecret(vault=vault, name=NAME, timeout=timeout)
    return {
        "resolve": lambda: mlauth.resolve(reference, timeout=timeout),
        "check": lambda: mlauth.check(EnvironmentSecrets(env=env), timeout=timeout),
        "activate": lambda: within(mlauth.activate(EnvironmentSecrets(env=env), timeout=timeout)),
        "export_secrets": lambda: steps.export_secrets(env, timeout=timeout),
        "mlauth explain": lambda: command("explain", reference),
        "block activate": lambda: within(
            MLAuthProfile(content={"env": env}, timeout=timeout).activate()
        ),
        "block read": lambda: len(block.read_secret()),
    }


def page(value: str) -> bytes:
    return f"<html><title>Sign in</title>{value}</html>".encode()


def said_back(place: Place, status: int, body: object = None) -> Answer:
    """Put the application's secret, as it was sent, wherever an answer has room for it."""
    value = place.identity.secret
    headers = {
        "Location": f"https://elsewhere.example.com/{quote(value)}",
        "Set-Cookie": f"session={quote(value)}",
        "WWW-Authenticate": f'Bearer error="{quote(value)}"',
        "x-ms-request-id": quote(value),
    }
    error = {"error": {"code": value, "message": value, "innererror": {"code": value}}}
    return Answer(status, error if body is None else body, headers)


FAULTS: dict[str, Callable[[Place], None]] = {
    "the vault refuses": lambda place: place.vault.deny("ForbiddenByRbac"),
    "the vault says 400": lambda place: place.vault.troubles.say(said_back(place, 400), 9),
    "the vault says 401": lambda place: place.vault.troubles.say(said_back(place, 401), 9),
    "the vault says 403": lambda place: place.vault.troubles.say(said_back(place, 403), 9),
    "the vault says 404": lambda place: place.vault.troubles.say(said_back(place, 404), 9),
    "the vault throttles": lambda place: place.vault.troubles.say(said_back(place, 429), 99),
    "the vault fails": lambda place: place.vault.troubles.say(said_back(place, 500), 99),
    "the vault redirects": lambda place: place.vault.troubles.say(said_back(place, 307), 9),
    "a page": lambda place: place.vault.troubles.say(said_back(place, 200, page(place.value)), 9),
    "another shape": lambda place: place.vault.troubles.say(
        said_back(place, 200, {"value": None, "hello": place.value}), 9
    ),
    "the vault is silent": lambda place: place.vault.hang(9),
    "no identity": lambda place: place.identity.troubles.say(said_back(place, 401), 99),
    "no identity here": lambda place: place.identity.troubles.say(said_back(place, 400), 99),
    "the identity fails": lambda place: place.identity.troubles.say(said_back(place, 500), 99),
    "a page for a token": lambda place: place.identity.troubles.say(
        said_back(place, 200, page(place.identity.secret)), 99
    ),
}
SOME = ("resolve", "export_secrets", "mlauth explain", "block read")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_without_a_value(
    fault: str, place: Place, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, call in ways(place, monkeypatch, 0.6).items():
        if name in SOME:
            place.vault.troubles.clear()
            place.identity.troubles.clear()
            FAULTS[fault](place)
            watch.outcome(call)
    text = watch.text()
    assert watch.raised
    assert "azure." in text
    assert nothing_said(text, place) == []


@pytest.mark.parametrize("kind", ["managed", "workload"])
def test_a_token_of_another_kind_of_identity_is_told_without_it(
    kind: str,
    azure: Azure,
    place: Place,
    watch: Watch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = azure.identity("get")
    made = {
        "managed": lambda: azure.environment(identity),
        "workload": lambda: azure.workload_identity(tmp_path, identity),
    }[kind]()
    place.be(made, monkeypatch)
    for name, call in ways(place, monkeypatch, 20).items():
        if name in SOME:
            watch.outcome(call)
    assert not watch.raised
    assert nothing_said(watch.text(), place) == []


def test_a_success_is_told_without_a_value(
    place: Place, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ways(place, monkeypatch, 20).values():
        watch.outcome(call)
    assert not watch.raised
    text = watch.text()
    for logger in ("urllib3.connectionpool: ", "azure.", "msal", "mlauth: "):
        assert logger in text  # the loggers are not silent
    assert nothing_said(text, place) == []


@pytest.mark.parametrize("fault", ["refuses", "fails", "is silent", "is nobody's", "another shape"])
def test_a_write_that_fails_keeps_no_value_in_a_frame(
    fault: str, place: Place, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    {
        "refuses": lambda: place.vault.deny("ForbiddenByRbac"),
        "fails": lambda: place.vault.troubles.say(said_back(place, 500), 99),
        "is silent": lambda: place.vault.hang(9),
        "is nobody's": lambda: place.identity.troubles.say(said_back(place, 401), 99),
        "another shape": lambda: place.vault.troubles.say(Answer(200, {"id": 1}), 99),
    }[fault]()
    store = SecretStore("azurekv")
    reference = SecretReference.parse(f"azurekv://{place.vault.host}/{NAME}")
    for value in (place.written, place.written + "\ud800", place.written * 1000):
        watch.outcome(partial(store.write, reference, SecretStr(value), timeout=0.6))
    assert len(watch.raised) == 3
    assert nothing_said(watch.text(), place) == []

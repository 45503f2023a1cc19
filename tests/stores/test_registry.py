"""All stores: those of mlauth, and those of other distributions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import mlauth
from mlauth import SecretReference, plugins, stores
from mlauth.cli import main
from mlauth.errors import InvalidCredentials, InvalidReference, SecretUnusable
from mlauth.stores import memory
from mlauth.storing import SecretStore
from mlauth.systems.zenml.rotation import writable
from tests.support.distributions import install

STORE = """
from pydantic import SecretStr

from mlauth.errors import SecretNotFound
from mlauth.stores import Access, Grammar, StoredSecret, named

GRAMMAR = Grammar("acme://service/user", named("service", "user"))


class Store:
    def read(self, place, *, timeout):
        if place.parts != ("anvils", "DOMAIN/user"):
            raise SecretNotFound("there is no such user")
        return StoredSecret(SecretStr("canary-of-acme"))

    def describe(self, place):
        return Access(str(place), "nobody")
"""
Installs = Callable[..., None]
OURS = tuple(stores._OURS)


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    def put(
        entry: str = "acme = acme_store", *, of: str = "acme-anvils", module: str = STORE
    ) -> None:
        folder = install(tmp_path / of, "mlauth.stores", entry, of)
        (folder / "acme_store.py").write_text(module)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "acme_store", raising=False)
        plugins.entries.cache_clear()

    yield put
    plugins.entries.cache_clear()


def refusal(text: str) -> str:
    with pytest.raises(InvalidReference) as caught:
        SecretReference.parse(text)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_another_distribution_gives_one(installs: Installs) -> None:
    installs()
    assert stores.schemes() == (*OURS, "acme")
    assert mlauth.resolve("acme://anvils/DOMAIN%2Fuser").get_secret_value() == "canary-of-acme"
    assert "the user is missing; the form is acme://service/user" in refusal("acme://anvils")
    assert "the service is missing" in refusal("acme:///user")
    assert "there is one part too many after the user" in refusal("acme://anvils/DOMAIN/user")
    assert "acme references start with 'acme://'" in refusal("acme:anvils/user")


def test_it_is_not_written_to_where_it_can_only_be_read(installs: Installs) -> None:
    installs()
    reference = SecretReference.parse("acme://anvils/user")
    assert not SecretStore("acme").writable
    with pytest.raises(SecretUnusable, match="cannot be written: mlauth only reads from acme"):
        SecretStore("acme").write(reference, SecretStr("value"), timeout=5)


def test_an_unknown_scheme_is_answered_with_all_that_there_are(installs: Installs) -> None:
    installs()
    said = f"no store is called 'acne'; mlauth knows {', '.join(OURS)}, acme"
    assert refusal("acne://a/b") == said


def test_it_replaces_none_of_ours(installs: Installs) -> None:
    installs("env = acme_store")
    assert stores.schemes() == OURS
    assert str(SecretReference.parse("env://NAME")) == "env://NAME"


@pytest.mark.parametrize(
    ("entry", "module", "said"),
    [
        ("acme = acme_missing", STORE, "acme_missing cannot be imported (ModuleNotFoundError of"),
        ("acme = acme_store", "1 / 0", "acme_store cannot be imported (ZeroDivisionError)"),
        ("acme = acme_store", "import acme_sdk", "be imported (ModuleNotFoundError of acme_sdk)"),
        ("acme = acme_store", "", "acme_store has no GRAMMAR or no Store"),
        ("acme = acme_store", f"{STORE}\ndel Store", "acme_store has no GRAMMAR or no Store"),
        ("acme = acme_store", f"{STORE}\nStore.identity = 'A'", "identity is no tuple of names"),
    ],
)
def test_one_that_cannot_be_used_names_its_distribution(
    installs: Installs, entry: str, module: str, said: str
) -> None:
    installs(entry, module=module)
    refused = refusal("acme://a/b")
    assert refused.startswith("the store 'acme' of the installed distribution acme-anvils cannot")
    assert said in refused


@pytest.mark.parametrize("module", ["1 / 0", "", f"{STORE}\nStore.identity = None"])
def test_a_broken_store_disturbs_only_those_who_use_it(
    installs: Installs, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installs(module=module)
    monkeypatch.setenv("ACCOUNT", "of the worker")
    memory.put("account", "canary-of-the-flow")
    env = {"ACCOUNT": "memory://account"}
    with mlauth.activate(mlauth.EnvironmentSecrets.of("test", {"env": env})):
        assert os.environ["ACCOUNT"] == "canary-of-the-flow"
    assert mlauth.check(systems=["env"]).unusable == []
    with pytest.raises(InvalidCredentials, match="mlauth writes to azurekv and file only"):
        writable(SecretReference.parse("env://ACCOUNT"))


@pytest.mark.parametrize(
    "broken",
    [
        "def read(self, place, *, timeout): raise KeyError('canary')",
        "def describe(self, place): raise KeyError('canary')",
        "def hosts(self, place): raise KeyError('canary')",
        "def __init__(self): raise KeyError('canary')",
        "identity = ('ACCOUNT',)\n\nGRAMMAR = Grammar('acme://a', lambda parts: parts[9])",
    ],
)
def test_an_exception_of_one_is_one_line(installs: Installs, broken: str) -> None:
    installs(module=f"{STORE}\n    {broken}\n")
    done = CliRunner().invoke(main, ["explain", "acme://anvils/DOMAIN%2Fuser"])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert "Error at acme_store.py line" in " ".join(done.output.split())
    assert "is a defect of mlauth or of a library that it uses" in done.output
    assert "canary" not in done.output


def test_two_with_the_same_scheme_are_refused(installs: Installs) -> None:
    installs()
    installs(of="acme-rockets")
    assert "several installed distributions (acme-anvils and acme-rockets)" in refusal("acme://a/b")

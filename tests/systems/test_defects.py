"""A system of another package that does wrong ends in one line, and everything is undone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field, SecretStr

import mlauth
from mlauth import EnvironmentSecrets, Profile, Stage, Status, ZenMLCredentials, environment
from mlauth.errors import InvalidCredentials, MLAuthError
from mlauth.report import CheckReport
from mlauth.stores import memory
from mlauth.systems import Credentials, Exports, Proof
from tests.support.hub import TOKEN, HubCredentials
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.usefixtures("clean_environment")


class Nested(BaseModel):
    name: str


class Wrong(HubCredentials):
    """Another hub, one of whose parts raises."""

    system: ClassVar[str] = "wrong"
    title: ClassVar[str] = "Wrong"
    owned: ClassVar[tuple[str, ...]] = ("WRONG_*",)

    at: str = Field(default="", title="At", description="The part that raises.")
    sets: dict[str, str] = Field(default={}, title="Sets", description="What is set, too.")
    scope_sets: dict[str, str] = Field(default={}, title="Scope sets", description="And the scope.")
    nested: Nested | None = Field(default=None, title="Nested", description="Of another model.")

    def hosts(self) -> tuple[str, ...]:
        return self.raising("hosts", super().hosts())

    def ca(self, environment: Mapping[str, str]) -> str | None:
        return self.raising("ca", None)

    def configured(self, environment: Mapping[str, str]) -> list[str]:
        return self.raising("configured", [])

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        token = values["token"]
        return self.raising(
            "exports", Exports({"WRONG_TOKEN": token}, self.sets, scope=Scope(self)), token
        )

    def raising(self, part: str, otherwise: Any, secret: SecretStr | None = None) -> Any:
        if part == self.at:
            raise KeyError(secret.get_secret_value() if secret else part)
        return otherwise


class Scope:
    """The scope of its client."""

    def __init__(self, of: Wrong) -> None:
        self.of = of

    def enter(self, folder: str) -> Mapping[str, str]:
        Path(folder, "wrong").touch()
        return self.of.raising("enter", {"WRONG_DIRECTORY": folder} | self.of.scope_sets)

    def keep(self) -> Callable[[], None]:
        self.of.raising("keep", None)
        return lambda: self.of.raising("leave", None)

    def swap(self) -> None:
        self.of.raising("swap", None)


def wrong(**fields: Any) -> Wrong:
    memory.put("hub", TOKEN)
    return Wrong.of("test", {"url": "https://wrong.example.com", "token": "memory://hub", **fields})


def together(*found: Credentials) -> Profile:
    return Profile().model_copy(update={"systems": {each.system: each for each in found}})


@pytest.mark.parametrize(
    "at", ["hosts", "ca", "configured", "exports", "enter", "keep", "swap", "leave"]
)
def test_an_exception_is_one_line_without_a_value(at: str, tmp_path: Path) -> None:
    memory.put("zenml", api_key("canary"))
    fields = {"store_url": "https://zenml.example.com", "api_key": "memory://zenml"}
    before = dict(os.environ)
    with (
        pytest.raises(MLAuthError) as caught,
        mlauth.activate(together(wrong(at=at), ZenMLCredentials.of("test", fields)), verify=False),
    ):
        assert at == "leave"
    said = str(caught.value)
    assert "KeyError at test_defects.py line" in said
    assert "is a defect of mlauth or of a library that it uses" in said
    assert TOKEN not in repr(caught.value.__context__)
    assert dict(os.environ) == before
    assert environment._active == []
    assert not list(tmp_path.rglob("mlauth-*"))


def test_a_check_says_that_there_are_no_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wrong, "prove", lambda *_: Proof())
    report: CheckReport = mlauth.check(wrong(at="exports"))
    assert report.status is Status.FAILED
    assert report.results[-1].stage is Stage.CONFIGURED
    assert "wrong, configured: wrong: KeyError at test_defects.py" in report.summary()


def test_what_it_finds_in_the_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Mapping[str, str]) -> Any:
        raise KeyError(TOKEN)

    monkeypatch.setitem(mlauth.systems._OURS, "wrong", f"{__name__}:Wrong")
    monkeypatch.setattr(Wrong, "from_environment", broken)
    (report,) = mlauth.check(systems=["wrong"]).systems
    assert report.status is Status.FAILED
    assert "KeyError at test_defects.py line" in report.summary()
    assert TOKEN not in report.summary()


@pytest.mark.parametrize("name", ["ZENML_ACTIVE_PROJECT_ID", "zenml_store_url"])
def test_it_sets_no_variable_that_is_of_another(name: str) -> None:
    memory.put("zenml", api_key("canary"))
    fields = {"store_url": "https://zenml.example.com", "api_key": "memory://zenml"}
    both = together(ZenMLCredentials.of("test", fields), wrong(sets={name: "other"}))
    with pytest.raises(InvalidCredentials) as caught, mlauth.activate(both, verify=False):
        pass
    assert str(caught.value) == (
        f"{name} belongs to [zenml], which is there too, and [wrong] would set it: remove one of "
        "them"
    )
    with mlauth.activate(wrong(sets={name: "other"}), verify=False):
        assert os.environ[name] == "other"


@pytest.mark.parametrize("name", ["OTHER", "WRONG_TOKEN"])
def test_its_scope_sets_no_variable_that_a_system_sets(name: str) -> None:
    memory.put("other", "canary-other")
    env = EnvironmentSecrets.of("test", {"env": {"OTHER": "memory://other"}})
    before = dict(os.environ)
    with (
        pytest.raises(MLAuthError, match=f"^{name} would get one value from a system and another"),
        mlauth.activate(together(env, wrong(scope_sets={name: "else"})), verify=False),
    ):
        pass
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "fields", [{"sets": {"A": "ZENKEY_canary"}}, {"nested": {"name": "ZENKEY_canary"}}]
)
def test_a_key_inside_of_a_field_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        wrong(**fields)
    assert "a literal key stands where only names and references belong" in str(caught.value)
    assert "canary" not in str(caught.value)

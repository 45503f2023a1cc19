"""The systems that there are: ours, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlauth import systems
from mlauth.errors import UnknownSystem
from mlauth.systems.zenml import ZenMLCredentials
from tests.support.another_package import install

Installs = Callable[[str], None]


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    def put(entries: str) -> None:
        monkeypatch.syspath_prepend(install(tmp_path, entries))
        systems._others.cache_clear()

    yield put
    systems._others.cache_clear()


def test_ours_are_credentials_of_that_name() -> None:
    for name in systems.names():
        assert systems.load(name).system == name


def test_another_package_gives_one(installs: Installs) -> None:
    installs("acme = acme_anvils:AcmeCredentials")
    assert "acme" in systems.names()
    assert systems.place("acme") == "acme_anvils:AcmeCredentials"
    assert systems.load("acme").title == "Acme"


def test_another_package_replaces_none_of_ours(installs: Installs) -> None:
    installs("zenml = acme_anvils:AcmeCredentials")
    assert systems.load("zenml") is ZenMLCredentials
    assert list(systems.names()).count("zenml") == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere:Class", "cannot be imported (ModuleNotFoundError): reinstall the package"),
        ("acme_anvils:Class", "cannot be imported (AttributeError): reinstall the package"),
        ("acme_anvils:SecretStr", "which is no mlauth.systems.Credentials"),
    ],
)
def test_a_package_that_is_broken_is_one_line(installs: Installs, place: str, said: str) -> None:
    installs(f"acme = {place}")
    with pytest.raises(UnknownSystem) as caught:
        systems.load("acme")
    assert said in str(caught.value)
    assert place in str(caught.value)


def test_a_name_that_no_system_has_is_one_line_that_names_them() -> None:
    known = ", ".join(systems.names())
    with pytest.raises(UnknownSystem, match=f"no system is called 'zenm'; mlauth knows {known}"):
        systems.load("zenm")

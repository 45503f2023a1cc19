"""All systems: those of mlauth, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import mlauth
from mlauth import Profile, plugins, systems
from mlauth.cli import main
from mlauth.errors import InvalidProfile, UnknownSystem
from mlauth.systems.zenml import ZenMLCredentials
from tests.support.distributions import PLUGIN, install

Installs = Callable[..., None]

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    def put(entries: str, name: str = "acme-anvils") -> None:
        folder = install(tmp_path / name, "mlauth.systems", entries, name)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.syspath_prepend(PLUGIN)
        plugins.entries.cache_clear()

    yield put
    plugins.entries.cache_clear()


def test_ours_are_credentials_of_that_name() -> None:
    for name in systems.names():
        assert systems.load(name).system == name


def test_another_package_gives_one(installs: Installs) -> None:
    installs("acme = acme_mlauth.system:AcmeCredentials")
    assert "acme" in systems.names()
    assert systems.place("acme") == "acme_mlauth.system:AcmeCredentials"
    assert systems.load("acme").title == "Acme"


def test_another_package_replaces_none_of_ours(installs: Installs) -> None:
    installs("zenml = acme_mlauth.system:AcmeCredentials")
    assert systems.load("zenml") is ZenMLCredentials
    assert list(systems.names()).count("zenml") == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere:Class", "cannot be imported (ModuleNotFoundError of nowhere)"),
        ("acme_mlauth.system:Class", "cannot be imported (AttributeError)"),
        ("acme_mlauth.system:SecretStr", "is no mlauth.systems.Credentials"),
        ("acme_mlauth.system:Credentials", "is the system 'None', under the name of another"),
        ("mlauth.systems.zenml:ZenMLCredentials", "is the system 'zenml', under the name of anot"),
        ("no place", "cannot be imported"),
    ],
)
def test_a_package_that_is_broken_is_one_line(installs: Installs, place: str, said: str) -> None:
    installs(f"acme = {place}")
    with pytest.raises(UnknownSystem) as caught:
        systems.load("acme")
    line = str(caught.value)
    named = f"the system 'acme' of the installed distribution acme-anvils cannot be used: {place} "
    assert line.startswith(named)
    assert said in line
    assert line.endswith("; update acme-anvils, or remove it")


@pytest.mark.parametrize("title", ["ZenML", "Zen ML", "zenml!"])
def test_another_package_takes_no_title_of_ours(
    installs: Installs, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect knows a block by its title: the class that is made last would be that of both."""
    installs("acme = acme_mlauth.system:AcmeCredentials")
    monkeypatch.setattr(systems.load("acme"), "title", title)
    with pytest.raises(UnknownSystem, match="has the title of the system 'zenml'"):
        systems.load("acme")


def test_two_of_one_name_are_refused(installs: Installs) -> None:
    installs("acme = acme_mlauth.system:AcmeCredentials")
    installs("acme = acme_mlauth.system:AcmeCredentials", "acme-rockets")
    with pytest.raises(UnknownSystem, match=r"in several .* \(acme-anvils and acme-rockets\)"):
        systems.load("acme")


class TestOneThatIsBroken:
    """It takes nothing from those who do not name it."""

    @pytest.fixture(autouse=True)
    def _broken(
        self, clean_environment: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ZENML_STORE_URL", "http://127.0.0.1:9")
        installs("acme = nowhere:Class")

    def test_a_check_of_what_is_there_goes_on_and_says_so(self) -> None:
        report = mlauth.check()
        (line,) = report.warnings
        assert line.startswith("the system 'acme' of the installed distribution acme-anvils")
        assert report.to_dict()["unusable"] == [line]
        assert [each.system for each in report.systems] == ["zenml"]

    def test_the_command_says_so_in_one_line(self) -> None:
        done = CliRunner().invoke(main, ["check"])
        (line,) = [each for each in done.output.splitlines() if "acme" in each]
        assert line.startswith("mlauth: warning: the system 'acme' of the installed")
        assert "neither ZENML_STORE_API_KEY nor ZENML_STORE_API_TOKEN is set" in done.output

    def test_it_fails_where_it_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownSystem, match="nowhere:Class cannot be imported"):
            mlauth.check(systems=["acme"])
        file = tmp_path / "mlauth.toml"
        file.write_text('[profiles.p.acme]\nurl = "https://acme.example.com"\n')
        with pytest.raises(InvalidProfile, match=r"p\.acme: the system 'acme' of the installed"):
            mlauth.check("p", config=str(file))

    def test_a_section_that_is_misspelt_is_called_that(self) -> None:
        with pytest.raises(ValidationError, match=r"there is no such setting.*env, .*acme"):
            Profile.model_validate({"zenm": {}})


def test_another_package_takes_no_part_of_ours(installs: Installs) -> None:
    """`[zenml_admin]` has an administrator's password."""
    installs("zenml_admin = acme_mlauth.system:AcmeCredentials")
    section = {"user": "root", "password": "env://PASSWORD"}
    assert Profile.model_validate({"zenml_admin": section}).parts["zenml_admin"]


def test_a_name_that_no_system_has_is_one_line_that_names_them() -> None:
    known = ", ".join(systems.names())
    with pytest.raises(UnknownSystem, match=f"no system is called 'zenm'; mlauth knows {known}"):
        systems.load("zenm")

"""Two systems in one profile: each has its own report, and none changes the other's result."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import SecretStr

import mlauth
from mlauth import (
    EnvironmentSecrets,
    Profile,
    Stage,
    Status,
    ZenMLCredentials,
    rotating,
    systems,
)
from mlauth.errors import CheckFailed, InvalidCredentials, SecretUnusable, UnknownSystem
from mlauth.stages import Stages
from mlauth.stores import memory
from mlauth.systems import Credentials, Exports, Proof
from prefect_mlauth import runs, steps
from tests.support.azure import Azure, become
from tests.support.hub import TOKEN, HubCredentials, hub
from tests.support.profiles import write_profile
from tests.support.web import Answer, Call, Service, serve
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.usefixtures("clean_environment")

ZENML = {
    "/api/v1/info": {"version": "0.98.0"},
    "/api/v1/login": {"access_token": "canary.token", "expires_in": 3600},
    "/api/v1/current-user": {"name": "flows", "body": {"is_service_account": True}},
}


def zenml(call: Call) -> Answer:
    """Answer as a server of ZenML does that takes every key."""
    return Answer(200, ZENML[call.path])


@dataclass(frozen=True)
class Two:
    """A profile with both."""

    profile: Profile
    zenml: Credentials
    hub: HubCredentials


@pytest.fixture
def start() -> Iterator[Callable[..., Two]]:
    memory.put("zenml", api_key())
    memory.put("hub", TOKEN)
    with ExitStack() as stack:

        def begin(zenml: Service = zenml, hub: Service = hub) -> Two:
            urls = [f"http://127.0.0.1:{stack.enter_context(serve(each))}" for each in (zenml, hub)]
            first = ZenMLCredentials.of("test", {"store_url": urls[0], "api_key": "memory://zenml"})
            second = HubCredentials.of("test", {"url": urls[1], "token": "memory://hub"})
            return Two(together(first, second), first, second)

        yield begin


@pytest.fixture
def hanging() -> Iterator[Service]:
    """A service that takes requests, and does not answer while the test runs."""
    over = threading.Event()

    def hang(_call: Call) -> Answer:
        over.wait(60)
        return Answer(0)

    yield hang
    over.set()


def test_each_has_its_own_account_and_facts(start: Callable[..., Two]) -> None:
    two = start()
    report = mlauth.check(two.profile)
    assert report.status is Status.PASSED, report.summary()
    assert report.summary() == "the profile: passed as 'flows' (zenml), 'hub-prod' (hub)"
    first, second = report.systems
    assert (first.account, second.account) == ("flows", "hub-prod")
    assert first.facts["server_version"] == "0.98.0"
    assert second.facts["server_version"] == "7.1"
    said = json.loads(json.dumps(report.to_dict()))
    assert [each["account"] for each in said["systems"]] == ["flows", "hub-prod"]
    assert "facts" not in said


def test_an_activation_and_its_lines_name_each_account_with_its_own_server(
    start: Callable[..., Two], caplog: pytest.LogCaptureFixture
) -> None:
    two = start()
    caplog.set_level(logging.INFO)
    with mlauth.activate(two.profile) as activation:
        runs.tell(logging.getLogger("test"), activation)
    assert activation.accounts == {"zenml": "flows", "hub": "hub-prod"}
    assert activation.account is None
    (line,) = [text for text in caplog.messages if "set " in text]
    zenml_url, hub_url = (each.facts["server_url"] for each in activation.report.systems)
    assert line.startswith(
        f"mlauth: {zenml_url} (ZenML 0.98.0) took the key of 'flows'; "
        f"{hub_url} (Hub 7.1) took the key of 'hub-prod'; set DISABLE_"
    )


def test_a_system_that_is_not_zenml_is_told_of(
    start: Callable[..., Two], caplog: pytest.LogCaptureFixture
) -> None:
    two = start()
    caplog.set_level(logging.INFO)
    with mlauth.activate(two.hub) as activation:
        runs.tell(logging.getLogger("test"), activation)
    assert activation.account == "hub-prod"
    assert "(Hub 7.1) took the key of 'hub-prod'; set HUB_TOKEN, HUB_URL" in caplog.text


def test_a_step_returns_what_each_said(start: Callable[..., Two]) -> None:
    two = start()
    report = mlauth.check(two.profile)
    said = steps._facts(report)["systems"]
    url = two.hub.url
    assert said["hub"] == {"account": "hub-prod", "server_url": url, "server_version": "7.1"}
    assert said["zenml"]["account"] == "flows"
    assert steps._facts(mlauth.check(two.hub)) == said["hub"]


def test_a_token_that_is_refused_fails_though_another_service_hangs(
    start: Callable[..., Two], hanging: Service
) -> None:
    two = start(zenml=hanging)
    memory.put("hub", "hub_canary-of-somebody-else")
    report = mlauth.check(two.profile, timeout=2)
    first, second = report.systems
    assert first.status is Status.UNKNOWN
    assert "no answer within 2 s" in first.summary()
    assert (second.status, second.results[-1].stage) == (Status.FAILED, Stage.AUTHENTICATED)
    assert report.status is Status.FAILED
    assert report.summary() == second.summary()
    with (
        pytest.raises(CheckFailed, match=r"hub, authenticated: .* refuses the token"),
        mlauth.activate(two.profile, timeout=2),
    ):
        pass


def test_one_that_hangs_leaves_the_other_proven(
    start: Callable[..., Two], hanging: Service
) -> None:
    two = start(zenml=hanging)
    with mlauth.activate(two.profile, timeout=2) as activation:
        pass
    assert activation.accounts == {"hub": "hub-prod"}
    (warning,) = activation.warnings
    assert warning.startswith("not proven: zenml, reachable: http://127.0.0.1")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (Stage.REACHABLE, "no service has answered a request, but 'hub' lets the stage pass"),
        (Stage.AUTHENTICATED, "no service has answered a request that carried the credential, but"),
    ],
)
def test_a_system_that_lets_a_stage_pass_by_hand_fails(
    start: Callable[..., Two], monkeypatch: pytest.MonkeyPatch, stage: Stage, said: str
) -> None:
    def prove(self: HubCredentials, values: object, stages: Stages) -> Proof:
        if stage is not Stage.REACHABLE:
            with stages.connect(self.url) as service:
                service.request("GET", "/version")
        with stages.stage(stage):
            pass
        return Proof()

    monkeypatch.setattr(HubCredentials, "prove", prove)
    report = mlauth.check(start().hub)
    assert report.status is Status.FAILED
    assert said in report.summary()
    assert "this is a defect of that system, report it" in report.summary()


def test_a_secret_that_both_name_is_read_once(
    start: Callable[..., Two], azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = azure.vault()
    vault.put("shared", TOKEN)
    become(monkeypatch, azure.environment(azure.identity("get")))
    shared = f"azurekv://{vault.name}/shared"
    hub = HubCredentials.of("test", {"url": start().hub.url, "token": shared})
    env = EnvironmentSecrets.of("test", {"env": {"A_TOKEN": shared, "B_TOKEN": shared}})
    report = mlauth.check(together(hub, env))
    assert report.status is Status.PASSED, report.summary()
    assert vault.count("GET", "/secrets/shared", 200) == 1
    assert vault.count("GET", "/secrets/shared", 401) == 1  # its challenge

    vault.put("shared", "")
    with pytest.raises(SecretUnusable) as caught, mlauth.activate(together(hub, env)):
        pass
    assert str(caught.value).count(shared) == 1


class Mirror(HubCredentials):
    """Another system, which sets variables of the same names."""

    system: ClassVar[str] = "mirror"


def together(*found: Credentials) -> Profile:
    return Profile().model_copy(update={"systems": {each.system: each for each in found}})


class TestOneValueForEachVariable:
    """The flow runs with the value that the check has proven: nobody else sets the variable."""

    def refused(self, profile: Profile, line: str) -> None:
        before = dict(os.environ)
        for verify in (True, False):
            with (
                pytest.raises(InvalidCredentials) as caught,
                mlauth.activate(profile, verify=verify),
            ):
                pass
            assert str(caught.value) == line
        assert dict(os.environ) == before
        report = mlauth.check(profile)
        assert report.status is Status.FAILED
        assert line in report.summary()
        assert "canary" not in report.summary()

    @pytest.mark.parametrize("name", ["HUB_TOKEN", "hub_token", "HUB_OF_TOMORROW"])
    @pytest.mark.parametrize("value", [TOKEN, "canary-other"])
    def test_a_system_owns_its_names(
        self, name: str, value: str, start: Callable[..., Two]
    ) -> None:
        asked: list[Call] = []

        def listen(call: Call) -> Answer:
            asked.append(call)
            return hub(call)

        memory.put("other", value)
        env = EnvironmentSecrets.of("test", {"env": {name: "memory://other"}})
        self.refused(
            together(start(hub=listen).hub, env),
            f"{name} belongs to [hub], which is there too: remove it from [env]",
        )
        assert asked == []  # nothing was read or asked
        with mlauth.activate(env):  # without the other system, it may be set
            assert os.environ[name] == value

    def test_two_owners_with_two_values_are_refused(self, start: Callable[..., Two]) -> None:
        first, second = start().hub, start().hub
        mirror = Mirror.of("test", {"url": second.url, "token": "memory://hub"})
        self.refused(
            together(first, mirror),
            "HUB_URL would get one value from [hub] and another from [mirror]: remove one of them",
        )

    def test_two_owners_with_one_value_are_not(self, start: Callable[..., Two]) -> None:
        first = start().hub
        mirror = Mirror.of("test", {"url": first.url, "token": "memory://hub"})
        with mlauth.activate(together(first, mirror)) as activation:
            assert activation.accounts == {"hub": "hub-prod", "mirror": "hub-prod"}
            assert os.environ["HUB_TOKEN"] == TOKEN

    def test_a_variable_that_one_system_empties_cannot_be_set_by_another(
        self, start: Callable[..., Two]
    ) -> None:
        class Emptying(Mirror):
            def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
                return Exports(emptied=("HUB_TOKEN",))

        first = start().hub
        other = Emptying.of("test", {"url": first.url, "token": "memory://hub"})
        self.refused(
            together(other, first),
            "HUB_TOKEN would get one value from [mirror] and another from [hub]: "
            "remove one of them",
        )


class TestTheEnvironment:
    """`mlauth check` without a profile, with several systems."""

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(systems._OURS, "hub", "tests.support.hub:HubCredentials")

    @pytest.fixture
    def both(
        self, start: Callable[..., Two], monkeypatch: pytest.MonkeyPatch
    ) -> pytest.MonkeyPatch:
        two = start()
        assert isinstance(two.zenml, ZenMLCredentials)
        monkeypatch.setenv("ZENML_STORE_URL", two.zenml.store_url)
        monkeypatch.setenv("ZENML_STORE_API_KEY", api_key())
        monkeypatch.setenv("HUB_URL", two.hub.url)
        monkeypatch.setenv("HUB_TOKEN", TOKEN)
        return monkeypatch

    def test_every_system_that_is_there_is_asked(self, both: pytest.MonkeyPatch) -> None:
        report = mlauth.check()
        assert report.accounts == {"zenml": "flows", "hub": "hub-prod"}
        resolved = report.systems[1].results[1]
        assert (resolved.stage, resolved.detail) == (Stage.RESOLVED, "token from env://HUB_TOKEN")
        both.delenv("ZENML_STORE_URL")
        both.delenv("ZENML_STORE_API_KEY")
        assert mlauth.check().accounts == {"hub": "hub-prod"}

    def test_a_near_miss_is_there_too(self, both: pytest.MonkeyPatch) -> None:
        both.delenv("HUB_TOKEN")
        both.delenv("HUB_URL")
        both.setenv("HUB_KEY", TOKEN)
        report = mlauth.check()
        assert report.summary() == (
            "hub, configured: HUB_KEY is not read by Hub: the name is HUB_TOKEN"
        )
        assert report.accounts == {"zenml": "flows"}
        both.delenv("HUB_KEY")
        both.setenv("HUB_TOKEN", TOKEN)
        assert mlauth.check().summary() == "hub, configured: HUB_URL is not set"

    def test_systems_that_are_named_must_be_there_and_are_checked_alone(
        self, both: pytest.MonkeyPatch
    ) -> None:
        assert mlauth.check(systems=["hub"]).accounts == {"hub": "hub-prod"}
        assert mlauth.check(systems=["hub", "zenml"]).status is Status.PASSED
        assert len(mlauth.check(systems=["hub", "hub"]).systems) == 1
        both.delenv("HUB_TOKEN")
        both.delenv("HUB_URL")
        assert mlauth.check().status is Status.PASSED
        report = mlauth.check(systems=["hub", "zenml"])
        assert report.accounts == {"zenml": "flows"}
        assert report.summary() == (
            "hub, configured: no variable of Hub is set here (HUB_URL, HUB_TOKEN)"
        )
        with pytest.raises(UnknownSystem, match="no system is called 'hob'"):
            mlauth.check(systems=["hob"])

    def test_with_nothing_there_the_systems_are_named(self) -> None:
        summary = mlauth.check().summary()
        assert "no variable of ZenML is set here (ZENML_STORE_URL, ZENML_STORE_API_KEY)" in summary
        assert "no variable of Hub is set here (HUB_URL, HUB_TOKEN)" in summary

    def test_the_rules_for_all_keys_are_applied(self, both: pytest.MonkeyPatch) -> None:
        for token, said in (
            (f"{TOKEN}\n", "the value of env://HUB_TOKEN has white space in it or around it"),
            ("changeme", "is a placeholder"),
            ("canary", "is no token of the hub: those start with hub_"),
        ):
            both.setenv("HUB_TOKEN", token)
            report = mlauth.check(systems=["hub"])
            assert report.results[-1].stage is Stage.WELL_FORMED
            assert said in report.summary()
        both.setenv("HUB_URL", "http://hub.example.com")
        assert mlauth.check(systems=["hub"]).summary() == (
            "hub, configured: HUB_URL: http would send the key over the network in clear: use https"
        )


class TestAProfile:
    """A section of mlauth.toml is the name of a system, of whatever package that is."""

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(systems._OURS, "hub", "tests.support.hub:HubCredentials")

    def test_it_has_a_section_for_each(self, start: Callable[..., Two], tmp_path: Path) -> None:
        two = start()
        assert isinstance(two.zenml, ZenMLCredentials)
        hub = {"url": two.hub.url, "token": "memory://hub"}
        zenml = {"store_url": two.zenml.store_url, "api_key": "memory://zenml"}
        file = write_profile(tmp_path, "p", hub=hub, zenml=zenml)
        report = mlauth.check("p", config=str(file))
        assert report.accounts == {"hub": "hub-prod", "zenml": "flows"}
        only = mlauth.check("p", systems=["hub"], config=str(file))
        assert only.accounts == {"hub": "hub-prod"}
        said = mlauth.check("p", systems=["env"], config=str(file)).summary()
        assert said == f"env, configured: profile 'p' of {file} has no [env]: add it"

    def test_a_system_without_a_rotation_says_so(self, start: Callable[..., Two]) -> None:
        with pytest.raises(InvalidCredentials, match="mlauth cannot rotate a key of Hub"):
            rotating.rotate("hub", start().profile)

"""Systems with one defect each, and the test of the contract suite that must fail."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx
import pytest
from pydantic import Field

from mlauth.errors import StageFailed
from mlauth.net.http import Bearer
from mlauth.report import Stage
from mlauth.systems import Exports, Proof
from mlauth.testing.systems import ServiceContract
from mlauth.testing.web import Answer, Call
from tests.plugin.acme_mlauth.system import AcmeCredentials
from tests.plugin.tests.stand_ins import shop


class Right(AcmeCredentials):
    """Is right."""


class Untitled(AcmeCredentials):
    """Does not describe a field."""

    size: int = 0


class Clear(AcmeCredentials):
    """Takes the secret itself."""

    token: str = Field(title="Token", description="The token.")  # type: ignore[assignment]


class Foreign(AcmeCredentials):
    """Sets a variable that it does not own."""

    def exports(self, values: Any, proof: Any) -> Exports:
        return Exports({"HF_TOKEN": values["token"]})


class Shown(AcmeCredentials):
    """Has the secret among the settings."""

    def exports(self, values: Any, proof: Any) -> Exports:
        token = values["token"].get_secret_value()
        return Exports({"ACME_TOKEN": values["token"]}, {"ACME_URL": f"{self.url}/{token}"})


class Eager(AcmeCredentials):
    """Asks its service too early."""

    def configured(self, environment: Any) -> list[str]:
        httpx.get(f"{self.url}/health", trust_env=False)
        return []


class Talkative(AcmeCredentials):
    """Prints the secret unmasked."""

    def prove(self, values: Any, stages: Any) -> Proof:
        print(values["token"].get_secret_value())
        return super().prove(values, stages)


class Echoing(AcmeCredentials):
    """Has the secret in its message."""

    def prove(self, values: Any, stages: Any) -> Proof:
        try:
            return super().prove(values, stages)
        except StageFailed:
            with stages.stage(Stage.AUTHENTICATED):
                raise StageFailed(f"{values['token'].get_secret_value()} is refused") from None


class InTheURL(AcmeCredentials):
    """Sends the secret where proxies log it."""

    def prove(self, values: Any, stages: Any) -> Proof:
        with stages.connect(self.url) as service:
            service.request("GET", "/health", params={"t": values["token"].get_secret_value()})
        return super().prove(values, stages)


class Trusting(AcmeCredentials):
    """Takes every answer for success."""

    def prove(self, values: Any, stages: Any) -> Proof:
        with stages.connect(self.url) as service, stages.stage(Stage.AUTHENTICATED):
            service.request("GET", "/account", auth=Bearer(values["token"]))
            stages.account = "flows"
        return Proof()


class Careless(AcmeCredentials):
    """Takes every answer for the right one."""

    def prove(self, values: Any, stages: Any) -> Proof:
        with stages.connect(self.url) as service, stages.stage(Stage.AUTHENTICATED):
            answer = service.request("GET", "/account", auth=Bearer(values["token"]))
            if answer.status == 401:
                raise StageFailed("no")
            stages.account = answer.json["name"]
        return Proof()


class Alone(AcmeCredentials):
    """Asks the service without `Stages`, and follows redirects."""

    def prove(self, values: Any, stages: Any) -> Proof:
        headers = {"Authorization": Bearer(values["token"]).header()}
        httpx.get(f"{self.url}/account", headers=headers, follow_redirects=True, trust_env=False)
        return super().prove(values, stages)


# For each, what must fail; there may be more.
FAILS = {
    Right: None,
    Untitled: "test_every_field_says_what_it_is",
    Clear: "test_every_secret_is_a_reference",
    Foreign: "test_it_sets_what_it_owns_and_shows_no_value",
    Shown: "test_it_sets_what_it_owns_and_shows_no_value",
    Eager: "test_nobody_is_asked_but_by_a_check",
    Talkative: "test_what_the_service_takes_is_proven",
    Echoing: "test_a_credential_that_is_refused_fails_at_that_stage",
    InTheURL: "test_a_credential_is_in_no_url",
    Trusting: "test_a_credential_that_is_refused_fails_at_that_stage",
    Careless: "test_no_answer_makes_more_than_a_line",
    Alone: "test_a_redirect_gets_no_credential",
}


@pytest.fixture(params=FAILS, ids=lambda each: each.__name__, autouse=True)
def _model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TestBroken, "model", lambda self: request.param)


class TestBroken(ServiceContract):
    system = "acme"
    secrets: ClassVar = {"token": "acme_canary-7d1e"}
    account = "flows"

    def settings(self) -> dict[str, str]:
        return {"url": self.url}

    def answer(self, call: Call) -> Answer:
        return shop(self.secrets["token"], call)

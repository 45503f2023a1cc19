"""A second system for tests: a made-up hub of models, and its server on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, SecretStr

from mlauth.errors import (
    StageFailed,
)
from mlauth.net.http import Bearer
from mlauth.references import SecretReference
from mlauth.report import (
    Stage,
)
from mlauth.stages import Stages
from mlauth.systems import Address, Credentials, Exports, Proof
from tests.support.web import Answer, Call

TOKEN = "hub_canary-token"


class HubCredentials(Credentials):
    """Lets a flow fetch models."""

    system: ClassVar[str] = "hub"
    title: ClassVar[str] = "Hub"
    found_in: ClassVar[Mapping[str, str]] = {"url": "HUB_URL", "token": "HUB_TOKEN"}
    near_misses: ClassVar[Mapping[str, str]] = {"HUB_KEY": "HUB_TOKEN"}
    owned: ClassVar[tuple[str, ...]] = ("HUB_*",)

    url: Address = Field(title="URL", description="The hub.")
    token: SecretReference = Field(title="Token", description="Where the token lives.")

    ca_bundle: str | None = Field(default=None, title="CA bundle", description="The hub's CA.")

    def well_formed(self, field: str, value: SecretStr) -> str | None:
        right = value.get_secret_value().startswith("hub_")
        return None if right else "is no token of the hub: those start with hub_"

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        stages.facts["server_url"] = self.url
        with stages.connect(self.url) as service:
            with stages.stage(Stage.REACHABLE):
                stages.facts["server_version"] = service.request("GET", "/version").json
            with stages.stage(Stage.AUTHENTICATED):
                answer = service.request("GET", "/whoami", auth=Bearer(values["token"]))
                if answer.status != 200:
                    raise StageFailed(f"{self.url} refuses the token: make a new one")
                stages.account = answer.json["name"]
        return Proof()

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        return Exports({"HUB_TOKEN": values["token"]}, {"HUB_URL": self.url})


def hub(call: Call) -> Answer:
    """Answer as a hub that knows one token."""
    if call.path == "/version":
        return Answer(200, "7.1")
    known = call.headers.get("authorization") == f"Bearer {TOKEN}"
    return Answer(200, {"name": "hub-prod"}) if known else Answer(401, {})

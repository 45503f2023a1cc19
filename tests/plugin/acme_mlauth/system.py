"""Acme, a shop: the account that a flow orders as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, SecretStr

from mlauth.errors import StageFailed
from mlauth.net.http import Bearer
from mlauth.references import SecretReference
from mlauth.report import Stage
from mlauth.stages import Stages
from mlauth.systems import Address, Credentials, Exports, Proof

URL, TOKEN, CUSTOMER, PIN = "ACME_URL", "ACME_TOKEN", "ACME_CUSTOMER", "ACME_PIN"


class AcmeCredentials(Credentials):
    """Lets a flow order from an Acme shop.

    Sets `ACME_URL` and `ACME_TOKEN`, and `ACME_CUSTOMER` and `ACME_PIN` where they are given.
    """

    system: ClassVar[str] = "acme"
    title: ClassVar[str] = "Acme"
    found_in: ClassVar[Mapping[str, str]] = {"url": URL, "token": TOKEN}
    near_misses: ClassVar[Mapping[str, str]] = {"ACME_HOST": URL, "ACME_API_TOKEN": TOKEN}
    owned: ClassVar[tuple[str, ...]] = (URL, TOKEN, CUSTOMER, PIN)

    url: Address = Field(
        title="URL", description="The shop, https://….", examples=["https://acme.example.com"]
    )
    token: SecretReference = Field(
        title="Token",
        description="Where the account's token lives.",
        examples=["acmevault://flows/shop-token"],
    )
    customer: int | None = Field(
        default=None, title="Customer", description="For whom the flow orders.", gt=0
    )
    pin: SecretReference | None = Field(
        default=None, title="PIN", description="Where the PIN for large orders lives."
    )

    def well_formed(self, field: str, value: SecretStr) -> str | None:
        """See `Credentials.well_formed`."""
        if field != "token" or value.get_secret_value().startswith("acme_"):
            return None
        return "is no token of Acme: those start with acme_; store the whole token there"

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """Ask the shop for the account of the token; see `Credentials.prove`."""
        stages.facts["server_url"] = self.url
        with stages.connect(self.url) as shop:
            with stages.stage(Stage.REACHABLE):
                shop.request("GET", "/health")
            with stages.stage(Stage.AUTHENTICATED):
                answer = shop.request("GET", "/account", auth=Bearer(values["token"]))
                if answer.status == 401:
                    raise StageFailed(
                        f"{self.url} does not take the token: make a new one in the shop's settings"
                    )
                account = answer.json.get("name") if isinstance(answer.json, dict) else None
                if answer.status != 200 or not isinstance(account, str):
                    raise StageFailed(
                        f"{self.url}/account does not answer as a shop does ({answer.status}, "
                        f"{answer.content_type}): is it the shop's URL?"
                    )
                stages.account = account
        return Proof()

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        """Return what Acme's client reads; see `Credentials.exports`."""
        secrets = {TOKEN: values["token"]} | ({PIN: values["pin"]} if "pin" in values else {})
        customer = {CUSTOMER: str(self.customer)} if self.customer else {}
        return Exports(secrets, {URL: self.url, **customer})

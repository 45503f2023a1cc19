"""The service account of a ZenML server: its fields, and the variables of ZenML's client."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator

from mlauth.errors import InvalidCredentials
from mlauth.forks import importing
from mlauth.net.route import ca_problem, makes_a_detour, netrc_problem
from mlauth.record import environment
from mlauth.references import SecretReference
from mlauth.shapes import host_of
from mlauth.systems import Address, Credentials, Exports, Proof
from mlauth.systems.zenml.isolation import CLIENT, VERIFY_SSL, Isolation

if TYPE_CHECKING:
    from mlauth.stages import Stages

API_KEY, API_TOKEN = "ZENML_STORE_API_KEY", "ZENML_STORE_API_TOKEN"
URL, TYPE = "ZENML_STORE_URL", "ZENML_STORE_TYPE"
_PASSWORDS = ("ZENML_STORE_USERNAME", "ZENML_STORE_PASSWORD")


class Administrator(BaseModel):
    """A user of a ZenML server who may manage service accounts.

    Up to ZenML 0.80, a service account may rotate its own API key. Later, it may only do so if its
    roles allow it; otherwise an administrator must (seen on 0.98.0: 403).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    user: str = Field(title="User", description="The administrator's user name.")
    password: SecretReference = Field(
        title="Password", description="Where the administrator's password lives."
    )


class ZenMLCredentials(Credentials):
    """Lets a flow work on a ZenML server as a service account.

    Sets `ZENML_STORE_URL` and `ZENML_STORE_API_KEY`, and gives ZenML's client a private
    configuration directory, so that no key reaches the disk and no other run is disturbed.
    """

    system: ClassVar[str] = "zenml"
    title: ClassVar[str] = "ZenML"
    found_in: ClassVar[Mapping[str, str]] = {"store_url": URL, "api_key": API_KEY}
    # ZenML ignores these and runs on a local store instead.
    near_misses: ClassVar[Mapping[str, str]] = {
        "ZENML_URL": URL,
        "ZENML_SERVER_URL": URL,
        "ZENML_STORE_SERVER_URL": URL,
        "ZENML_HOST": URL,
        "ZENML_API_KEY": API_KEY,
        "ZENML_STORE_APIKEY": API_KEY,
        "ZENML_STORE_KEY": API_KEY,
        "ZENML_KEY": API_KEY,
        "ZENML_SERVICE_ACCOUNT_API_KEY": API_KEY,
        "ZENML_API_TOKEN": API_TOKEN,
        "ZENML_TOKEN": API_TOKEN,
        "ZENML_STORE_TOKEN": API_TOKEN,
    }
    parts: ClassVar[Mapping[str, type[BaseModel]]] = {"admin": Administrator}
    rotation: ClassVar[str] = "mlauth.systems.zenml.rotation"
    otherwise: ClassVar[str] = "run on a local store"
    owned: ClassVar[tuple[str, ...]] = ("ZENML_*", "DISABLE_CREDENTIALS_DISK_CACHING")

    store_url: Address = Field(
        title="Server URL",
        description="The ZenML server, https://…; http only to the flow's own machine.",
        examples=["https://zenml.example.com"],
    )
    api_key: SecretReference = Field(
        title="API key",
        description="Where the service account's API key lives.",
        examples=["file:///run/secrets/zenml/api-key"],
    )
    service_account: str | None = Field(
        default=None,
        title="Service account",
        description="The name of the service account that the key must belong to.",
        examples=["prefect-prod"],
    )
    stack: str | None = Field(
        default=None, title="Stack", description="The name of the stack to run on."
    )
    project: str | None = Field(
        default=None, title="Project", description="The name of the project to run in."
    )
    credential: Literal["api_key", "api_token"] = Field(
        default="api_key",
        title="Credential",
        description=(
            "The credential that the flow gets: the long-lived key (api_key), or only the token of "
            "one login (api_token)."
        ),
    )
    ca_bundle: str | None = Field(
        default=None,
        title="CA bundle",
        description=(
            "The certificates of the CA that issued the server's certificate: a file, or PEM text."
        ),
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow http",
        description="Allow http to other machines. The key then goes over the network in clear.",
    )

    # The variable of this environment that holds the key or token, if that is where they are from.
    _variable: str = PrivateAttr("")

    @field_validator("store_url")
    @classmethod
    def _has_no_api_path(cls, url: str) -> str:
        if url.endswith("/api/v1"):
            raise ValueError("must be the server's address, without /api/v1")
        return url

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ZenMLCredentials | None:
        """See `Credentials.from_environment`; the environment may have a token instead of a key."""
        cls.refuse_near_misses(environment)
        refuse_password(environment)
        variable = API_KEY if environment.get(API_KEY) else API_TOKEN
        if environment.get(URL) and not environment.get(variable):
            raise InvalidCredentials(f"neither {API_KEY} nor {API_TOKEN} is set")
        if environment.get(URL) and environment.get(TYPE, "rest") != "rest":
            raise InvalidCredentials(
                f"{TYPE} is not 'rest', so ZenML does not use {URL}: remove it"
            )
        found = cls._from_variables(environment, {**cls.found_in, "api_key": variable})
        if found is not None:
            found._variable = variable  # noqa: SLF001 - of this class
            refuse_detour(found.store_url)
        return found

    def ca(self, environment: Mapping[str, str]) -> str | None:
        """Return the field, or the CA bundle of ZenML's own client; see `Credentials.ca`."""
        if not self.store_url.startswith("https"):
            return None
        return self.ca_bundle or ca_of(environment)

    def configured(self, environment: Mapping[str, str]) -> list[str]:
        """Look for near misses and left-over variables; see `Credentials.configured`."""
        if self.ca_bundle:
            problem = ca_problem(self.ca_bundle, CLIENT)
            if problem:
                raise InvalidCredentials(f"{problem}: correct ca_bundle")
        else:
            refuse_ca(self.store_url, environment)
        refuse_password(environment)
        refuse_netrc(self.store_url)
        warnings = super().configured(environment)
        if not self.ca_bundle and is_off(environment.get(VERIFY_SSL, "")):
            warnings.append(
                f"{VERIFY_SSL} is off: mlauth verifies TLS all the same, but the flow's ZenML "
                "client will not; give ca_bundle and remove the variable"
            )
        if self._variable == API_KEY and environment.get(API_TOKEN):
            warnings.append(
                f"{API_TOKEN} is set too: ZenML's client ignores it and logs in with the key"
            )
        return warnings

    def well_formed(self, field: str, value: SecretStr) -> str | None:
        """Look at a key's shape; see `Credentials.well_formed`."""
        return None if self._variable == API_TOKEN else key_problem(value.get_secret_value())

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """Log in once and look at the account; see `Credentials.prove`."""
        with importing:
            from mlauth.systems.zenml.server import prove_server

        return prove_server(
            self.store_url,
            stages,
            key=None if self._variable == API_TOKEN else values["api_key"],
            token=values["api_key"] if self._variable == API_TOKEN else None,
            service_account=self.service_account,
            wanted={"stack": self.stack, "project": self.project},
        )

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        """Return the variables that ZenML's client reads; see `Credentials.exports`."""
        if proof is None:
            needing = [name for name in ("stack", "project") if getattr(self, name)]
            if self.credential == "api_token":
                needing.append("credential='api_token'")
            if needing:
                raise InvalidCredentials(
                    f"zenml: {', '.join(needing)} cannot be used without asking the server: "
                    "remove verify=False"
                )
            proof = Proof()
        settings = {URL: self.store_url}
        if os.environ.get(TYPE, "rest") != "rest":
            settings[TYPE] = "rest"  # a type that is left over would win over the URL
        for name, variable in (
            ("stack", "ZENML_ACTIVE_STACK_ID"),
            ("project", "ZENML_ACTIVE_PROJECT_ID"),
        ):
            if name in proof.ids:
                settings[variable] = proof.ids[name]
        if self.credential == "api_token":
            secrets, emptied = {API_TOKEN: proof.secrets["token"]}, API_KEY
        else:
            secrets, emptied = {API_KEY: values["api_key"]}, API_TOKEN
        return Exports(
            secrets,
            settings,
            (emptied,),
            (host_of(self.store_url),) if makes_a_detour(self.store_url) else (),
            Isolation(self.store_url, trusts_run=self.ca(environment()) is not None),
        )


def is_off(value: str) -> bool:
    """Say whether ZenML reads a value of `ZENML_STORE_VERIFY_SSL` as false."""
    return value.lower() in {"0", "false", "f", "n", "no", "off"}


def ca_of(environment: Mapping[str, str]) -> str | None:
    """Return the CA bundle (path or PEM text) of ZenML's own client, or None.

    The client takes every text for a CA bundle that is not exactly a word for yes or no, even an
    empty one.
    """
    value = environment.get(VERIFY_SSL, "true")
    return None if is_off(value) or value.lower() in {"1", "true", "t", "y", "yes", "on"} else value


def refuse_ca(url: str, environment: Mapping[str, str]) -> None:
    """Refuse a CA bundle in the environment that ZenML's client cannot use.

    Raises:
        InvalidCredentials: the client cannot use it.
    """
    ca = ca_of(environment)
    problem = ca_problem(ca, CLIENT) if ca is not None and url.startswith("https") else None
    if problem:
        raise InvalidCredentials(f"{problem}: correct {VERIFY_SSL}")


def refuse_netrc(url: str) -> None:
    """Refuse an entry of `.netrc`, which ZenML's client would send in place of its token.

    Raises:
        InvalidCredentials: there is an entry for the server, or for every host.
    """
    problem = netrc_problem(url, CLIENT)
    if problem:
        raise InvalidCredentials(problem)


def refuse_detour(url: str) -> None:
    """Refuse a proxy between ZenML's client and a server on this machine.

    Raises:
        InvalidCredentials: the client would send its key there.
    """
    if makes_a_detour(url):
        host = urlsplit(url).hostname
        raise InvalidCredentials(
            f"{url} is this machine, but ZenML's client would send its key to the proxy of "
            f"{urlsplit(url).scheme.upper()}_PROXY or ALL_PROXY: put {host} into NO_PROXY"
        )


def refuse_password(environment: Mapping[str, str]) -> None:
    """Refuse a left-over user name and password.

    No step could repair that: in a run of `prefect flow-run execute`, a variable that a step
    deletes comes back, and ZenML's client tries even an empty password.

    Raises:
        InvalidCredentials: one of them is set.
    """
    found = [name for name in _PASSWORDS if name in environment]
    if found:
        raise InvalidCredentials(
            f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} set in this environment, "
            "and ZenML's client would log in with a password: remove them where the worker or "
            "the container gets its variables"
        )


def key_problem(key: str) -> str | None:
    """Say why a text does not have the shape of a ZenML API key, or return None."""
    prefix, _, encoded = key.partition("_")
    if prefix == "ZENPROKEY" and encoded:
        return None
    if prefix != "ZENKEY":
        hint = " (a login token?)" if key.startswith("eyJ") else ""
        return f"is not a ZenML API key: keys start with ZENKEY_{hint}; name the place of a key"
    try:
        content = json.loads(base64.b64decode(encoded, validate=True))
        complete = isinstance(content, dict) and content["id"] and content["key"]
    except (ValueError, KeyError, RecursionError):
        complete = False
    return (
        None
        if complete
        else "starts like a ZenML API key but is cut short or damaged: store it whole"
    )

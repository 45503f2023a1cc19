"""The service account of a ZenML server: its fields, and what ZenML's own client reads."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from mlauth.errors import InvalidCredentials
from mlauth.net.route import (
    ca_problem,
    has_plain_host,
    is_loopback,
    makes_a_detour,
    netrc_problem,
)
from mlauth.references import SecretReference, holds_key
from mlauth.stages import Stages
from mlauth.systems import Credentials, Exports, Proof
from mlauth.systems.zenml.isolation import VERIFY_SSL, Isolation
from mlauth.systems.zenml.server import CLIENT, prove_server

API_KEY, API_TOKEN = "ZENML_STORE_API_KEY", "ZENML_STORE_API_TOKEN"
URL, TYPE = "ZENML_STORE_URL", "ZENML_STORE_TYPE"
# Names that people write for those above. ZenML ignores them and runs on a local store instead.
NEAR_MISSES = {
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
_PASSWORDS = ("ZENML_STORE_USERNAME", "ZENML_STORE_PASSWORD")
_PLACEHOLDER = re.compile(
    r"<.*>|\$?\{.*\}|\$\w+|x{3,}|\*{3,}|\.{3,}|(your|my|change|replace|insert|todo|example|dummy|"
    r"placeholder|secret|none|null)([-_ ].*|me)?",
    re.IGNORECASE,
)


class ZenMLCredentials(Credentials):
    """Lets a flow work on a ZenML server as a service account.

    Sets `ZENML_STORE_URL` and `ZENML_STORE_API_KEY`, and gives ZenML's client a private
    configuration directory, so that no key reaches the disk and no other run is disturbed.
    """

    system: ClassVar[str] = "zenml"
    title: ClassVar[str] = "ZenML"
    owned: ClassVar[tuple[str, ...]] = ("ZENML_*", "DISABLE_CREDENTIALS_DISK_CACHING")

    store_url: str = Field(
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
            "What the flow's environment gets: the long-lived key (api_key), or only the token of "
            "one login (api_token)."
        ),
    )
    ca_bundle: str | None = Field(
        default=None,
        title="CA bundle",
        description=(
            "A file with the CA certificates that the server's certificate is from, or their PEM "
            "text."
        ),
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow http",
        description="Let http go beyond the flow's own machine, in clear.",
    )

    @field_validator("store_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        problem = url_problem(url)
        if problem:
            raise ValueError(problem)
        return url.rstrip("/")

    @field_validator("service_account", "stack", "project", "ca_bundle")
    @classmethod
    def _is_not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty: leave it away, or give a name")
        if value is not None and "{{" in value:
            raise ValueError("is a template that nothing replaced: check the name in it")
        if value is not None and holds_key(value):
            raise ValueError(
                "a literal key stands where a name belongs; it has probably been stored in clear: "
                "rotate it, and put it into a store"
            )
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> ZenMLCredentials:
        if (
            self.store_url.startswith("http://")
            and not self.allow_insecure
            and not is_loopback(self.store_url)
        ):
            raise ValueError(
                "store_url: http would send the key over the network in clear: use https, or set "
                "allow_insecure if the network is protected otherwise"
            )
        return self

    def hosts(self) -> tuple[str, ...]:
        """See `Credentials.hosts`."""
        return (host_of(self.store_url),)

    def ca(self, environment: Mapping[str, str]) -> str | None:
        """Return the field, or what ZenML's own client was given; see `Credentials.ca`."""
        if not self.store_url.startswith("https"):
            return None
        return self.ca_bundle or ca_of(environment)

    def configured(self, environment: Mapping[str, str]) -> list[str]:
        """Look for near misses and left-overs; see `Credentials.configured`."""
        if self.ca_bundle:
            problem = ca_problem(self.ca_bundle, CLIENT)
            if problem:
                raise InvalidCredentials(f"{problem}: correct ca_bundle")
        else:
            refuse_ca(self.store_url, environment)
        refuse_password(environment)
        refuse_netrc(self.store_url)
        warnings = near_misses(environment)
        if not self.ca_bundle and is_off(environment.get(VERIFY_SSL, "")):
            warnings.append(
                f"{VERIFY_SSL} is off: mlauth verifies TLS all the same, but the flow's ZenML "
                "client will not; give ca_bundle and remove the variable"
            )
        return warnings

    def well_formed(self, values: Mapping[str, SecretStr]) -> None:
        """Look at the key's shape; see `Credentials.well_formed`."""
        problem = key_problem(values["api_key"].get_secret_value())
        if problem:
            raise InvalidCredentials(f"the value of {self.api_key} {problem}")

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """Log in once and look at the account; see `Credentials.prove`."""
        return prove_server(
            self.store_url,
            stages,
            key=values["api_key"],
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
                    f"zenml: {', '.join(needing)} cannot be had without asking the server: "
                    "leave verify=False away"
                )
            proof = Proof()
        settings = {URL: self.store_url}
        if os.environ.get(TYPE, "rest") != "rest":
            settings[TYPE] = "rest"  # left over from another store, it would win over the URL
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
            Isolation(self.store_url, trusts_run=self.ca(os.environ) is not None),
        )


class Administrator(BaseModel):
    """A user of a ZenML server who may manage service accounts.

    A service account may rotate its own API key up to ZenML 0.80, and where roles allow it;
    otherwise only an administrator may (seen on 0.98.0: 403).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    user: str = Field(title="User", description="The administrator's user name.")
    password: SecretReference = Field(
        title="Password", description="Where the administrator's password lives."
    )


def url_problem(url: str) -> str | None:
    """Say what is wrong with a server's URL, without echoing what may hold a password."""
    if "{{" in url or "${" in url:
        return "is a template that nothing replaced: check the name in it"
    if re.search(r"\s", url):
        return "has white space in it, which ZenML keeps: remove it"
    if not url.isprintable():
        return "has characters in it that no URL has: type it again"
    if not re.match(r"https?://", url):
        return "must start with https:// (in lower case)"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if "@" in parts.netloc:
        return "has a user or password in it: remove it, and rotate it if it was real"
    if not parts.hostname or parts.query or parts.fragment:
        return "must be only the server's address: https://host[:port][/path]"
    if not has_plain_host(url):
        return (
            "has a host that not every program reads alike: write it with letters, digits, '.' and "
            "'-' only, or as an IPv6 address in brackets"
        )
    if parts.path.rstrip("/").endswith("/api/v1"):
        return "must be the server's address, without /api/v1"
    return None


def host_of(url: str) -> str:
    """Return the host of a URL in which `url_problem` finds nothing wrong."""
    return urlsplit(url).hostname or ""


def is_off(value: str) -> bool:
    """Say whether ZenML reads a value of `ZENML_STORE_VERIFY_SSL` as false."""
    return value.lower() in {"0", "false", "f", "n", "no", "off"}


def ca_of(environment: Mapping[str, str]) -> str | None:
    """Return the CA bundle, path or PEM text, that the user gave ZenML's own client.

    That takes everything for one that is not exactly a word for yes or no, even an empty text.
    """
    value = environment.get(VERIFY_SSL, "true")
    return None if is_off(value) or value.lower() in {"1", "true", "t", "y", "yes", "on"} else value


def refuse_ca(url: str, environment: Mapping[str, str]) -> None:
    """Refuse a CA bundle of the environment that ZenML's client cannot use.

    Raises:
        InvalidCredentials: it cannot.
    """
    ca = ca_of(environment)
    problem = ca_problem(ca, CLIENT) if ca is not None and url.startswith("https") else None
    if problem:
        raise InvalidCredentials(f"{problem}: correct {VERIFY_SSL}")


def refuse_netrc(url: str) -> None:
    """Refuse an entry of `.netrc`, which ZenML's client would send in place of its token.

    Raises:
        InvalidCredentials: there is one for the server, or for every host.
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

    In a run of `prefect flow-run execute` a variable that a step deletes comes back, and ZenML's
    client tries even an empty password, so nothing that a step does would help.

    Raises:
        InvalidCredentials: one is set.
    """
    found = [name for name in _PASSWORDS if name in environment]
    if found:
        raise InvalidCredentials(
            f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} set in this environment, "
            "and ZenML's client would log in with a password: remove them where the worker or "
            "the container gets its variables"
        )


def near_misses(environment: Mapping[str, str], wrong_if_missing: bool = False) -> list[str]:
    """Name variables that ZenML ignores.

    Args:
        environment: the variables.
        wrong_if_missing: whether a near miss is an error where the right name is not set.

    Returns:
        Warnings, one line each.

    Raises:
        InvalidCredentials: see `wrong_if_missing`.
    """
    warnings = []
    for wrong, right in NEAR_MISSES.items():
        if wrong not in environment:
            continue
        if wrong_if_missing and not environment.get(right):
            raise InvalidCredentials(
                f"{wrong} is not read by ZenML, which would run on a local store: "
                f"the name is {right}"
            )
        warnings.append(f"{wrong} is ignored by ZenML (it reads {right}): remove it")
    return warnings


def key_problem(key: str) -> str | None:
    """Say why a text cannot be a ZenML API key, without showing it, or return None."""
    if key.startswith("\ufeff"):
        return "starts with a byte order mark: store it again as plain UTF-8"
    if key != key.strip() or re.search(r"\s", key):
        return "has white space around or in it: store it again without (printf, not echo)"
    if len(key) > 1 and (key[0] in "\"'" or key[-1] in "\"'"):
        return "is in quotes: store it again without them"
    if "://" in key:
        return "is itself a reference or a URL: put the key there, or name the place it points to"
    if _PLACEHOLDER.fullmatch(key):
        return "is a placeholder: put the real key there"
    prefix, _, encoded = key.partition("_")
    if prefix == "ZENPROKEY" and encoded:
        return None
    if prefix != "ZENKEY":
        hint = " (a login token?)" if key.startswith("eyJ") else ""
        return f"is not a ZenML API key: those start with ZENKEY_{hint}; name the place of one"
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

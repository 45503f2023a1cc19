"""`azurekv://vault/secret`: Azure Key Vault. Secrets are read by name, and never listed.

Protocol: https://learn.microsoft.com/rest/api/keyvault/secrets (azure-keyvault-secrets 4.12).
Errors: https://learn.microsoft.com/azure/key-vault/general/rest-error-codes.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from mlauth.azure import clouds
from mlauth.azure.clouds import AUTHORITY, host_of
from mlauth.azure.identity import (
    VARIABLES,
    ServicePrincipal,
    WorkloadIdentity,
    choose,
    of_worker,
)
from mlauth.azure.tokens import Tokens, tokens
from mlauth.deadline import THREAD, Deadline
from mlauth.errors import (
    SecretDenied,
    SecretNotFound,
    SecretUnusable,
    StoreError,
    StoreUnreachable,
    bare,
)
from mlauth.extras import sdk
from mlauth.net.faults import TRANSIENT, Fault, FaultError, busy, explain
from mlauth.net.retrying import retry
from mlauth.record import own_environment
from mlauth.stores import Access, Grammar, Place, StoredSecret, named, outcome
from mlauth.text import plain

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.core.exceptions import HttpResponseError
    from azure.keyvault.secrets import KeyVaultSecret, SecretClient

T = TypeVar("T")

_EXTRA = "azurekv"
_SUFFIXES = {  # how the names of vaults end in each cloud
    clouds.PUBLIC: ".vault.azure.net",
    clouds.CHINA: ".vault.azure.cn",
    clouds.CHINA_BEFORE: ".vault.azure.cn",
    clouds.GOVERNMENT: ".vault.usgovcloudapi.net",
}


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Drop the traceback that the SDK logs for an error that is no JSON: our message is enough."""
    return record.threadName != THREAD or record.levelno != logging.WARNING


for _module in ("_utils.model_base", "_model_base"):  # the second is for older versions
    logging.getLogger(f"azure.keyvault.secrets._generated.{_module}").addFilter(_is_not_ours)


def _problem(parts: tuple[str, ...]) -> str | None:
    if parts[1:2] == ("secrets",) and parts[2:]:
        return "remove 'secrets/', and name a version as ?version="
    wrong = named("vault", "secret")(parts)
    if wrong:
        return wrong
    vault, name = parts
    if "." in vault:
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", vault) or not host_of(f"https://{vault}"):
            return "the vault is not a host name (with a port, if it has one)"
    elif not re.fullmatch(r"(?!.*--)[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]", vault):
        return (
            "a vault's name has 3 to 24 letters, digits and single hyphens, starts with a letter "
            "and ends with a letter or digit"
        )
    if not re.fullmatch(r"[A-Za-z0-9-]{1,127}", name):
        return "a secret's name has 1 to 127 letters, digits and hyphens (no '_', '.' or '/')"
    return None


def _version_problem(version: str) -> str | None:
    return None if re.fullmatch(r"[0-9a-f]{32}", version) else "is not 32 digits of 0-9 and a-f"


GRAMMAR = Grammar(
    form="azurekv://acme-prod/zenml-api-key",
    problem=_problem,
    options={"version": _version_problem},
    most_bytes=25 * 1024,  # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets
)


class Store:
    """Reads and writes secrets of Key Vaults, with one client for each vault."""

    identity = VARIABLES

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vaults: dict[str, _Vault] = {}

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """See `Store.read`."""
        deadline, version = Deadline(timeout), place.options.get("version")
        vault, name = self._vault(place)
        return vault.call(
            lambda client, options: _stored(client.get_secret(name, version, **options)),
            place,
            deadline,
        )

    def write(
        self, place: Place, value: SecretStr, *, timeout: float, before: Callable[[], None]
    ) -> str | None:
        """Make a new version; see `WritableStore.write`."""
        deadline = Deadline(timeout)
        vault, name = self._vault(place)
        return vault.call_alone(
            lambda client, options: (
                client.set_secret(name, value.get_secret_value(), **options).properties.version
            ),
            place,
            deadline,
            before,
        )

    def prove_writable(self, place: Place, *, timeout: float) -> None:
        """Set the tags that a secret already has; see `WritableStore.prove_writable`.

        With access policies, this needs the same right as writing (Set). A role needs
        `secrets/update/action` for this, and `secrets/setSecret/action` to write:
        https://learn.microsoft.com/azure/role-based-access-control/permissions/security
        """
        deadline = Deadline(timeout)
        vault, name = self._vault(place)

        def update(client: SecretClient, options: Mapping[str, Any]) -> None:
            latest = client.get_secret(name, **options).properties
            vault.in_time()
            client.update_secret_properties(name, latest.version, tags=latest.tags or {}, **options)

        try:
            vault.call_alone(update, place, deadline)
        except SecretDenied as error:
            raise SecretDenied(
                f"{error} (a custom role needs secrets/update/action beside "
                "secrets/getSecret/action and secrets/setSecret/action)"
            ) from None

    def describe(self, place: Place) -> Access:
        """See `Store.describe`; the notes name the time limits of the identity."""
        environment = own_environment()
        url = str(place)
        try:
            url = "https://{}/secrets/{}".format(*_parts(place, environment))
            identity = of_worker()
        except StoreError as error:
            return Access(url, f"nobody: {error}")
        return Access(url, str(identity), (f"time limits: {identity.limits()}",))

    def hosts(self, place: Place) -> tuple[str, ...]:
        """Return the vault, and Microsoft Entra if it is asked; see `RemoteStore.hosts`."""
        environment = own_environment()
        asked = []
        with suppress(StoreError):  # without a host or an identity, reading will raise the error
            asked.append(_parts(place, environment)[0])
            # Endpoints of other identities get no credential: they only give one out.
            if isinstance(choose(environment), (ServicePrincipal, WorkloadIdentity)):
                authority = clouds.authority(asked[0], _SUFFIXES, environment)
                asked += clouds.asked(authority, environment)
        return tuple(urlsplit(f"//{host}").hostname or host for host in asked)

    def _vault(self, place: Place) -> tuple[_Vault, str]:
        environment = own_environment()
        host, name = _parts(place, environment)
        with self._lock:
            if host not in self._vaults:
                authority = clouds.authority(host, _SUFFIXES, environment)
                found = tokens(of_worker(), authority, _EXTRA)
                self._vaults[host] = _Vault(host, found, _audience(host, environment))
            return self._vaults[host], name


class _Vault:
    """One vault. The first call gets challenge and token, and other calls wait for these."""

    def __init__(self, host: str, tokens: Tokens, audience: str | None) -> None:
        self._host = host
        self._tokens = tokens
        self._audience = audience
        self._first = threading.Lock()
        self._primed = threading.Event()
        self._calling = threading.local()
        secrets = sdk("azure.keyvault.secrets", _EXTRA)
        # The SDK's retries can take days, and its redirects go anywhere. So both are off, and
        # `mlauth.net.retrying` retries within the deadline.
        self._client: SecretClient = secrets.SecretClient(
            f"https://{host}",
            self,
            retry_total=0,
            permit_redirects=False,
            transport=sdk("mlauth.azure.transport", _EXTRA).transport(),
        )

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token for the client, which calls this after the vault's challenge."""
        asked = {scope.removesuffix("/.default").rstrip("/").lower() for scope in scopes}
        if self._audience is None or asked != {self._audience}:
            raise FaultError(self._another_service())
        deadline: Deadline = self._calling.deadline
        token = self._tokens.get(self._audience, deadline=deadline, **options)
        self._primed.set()
        self.in_time()  # the client sends its request next
        return token

    def in_time(self) -> None:
        """Raise an error if the deadline of this thread's call is over: no request begins then."""
        deadline: Deadline = self._calling.deadline
        if not deadline.remaining():
            raise FaultError(
                Fault(
                    f"{self._host} was not asked, because no time was left: give a busy service, "
                    "or the identity's endpoint, a longer timeout",
                    unknown=True,
                )
            )

    def call(
        self,
        function: Callable[[SecretClient, Mapping[str, Any]], T],
        place: Place,
        deadline: Deadline,
    ) -> T:
        """Call the client; other calls wait until the first one has challenge and token."""
        first = self._first.acquire(blocking=False)
        try:
            if not first:
                self._primed.wait(deadline.remaining())
            return self.call_alone(function, place, deadline)
        finally:
            if first:
                self._primed.set()

    def call_alone(
        self,
        function: Callable[[SecretClient, Mapping[str, Any]], T],
        place: Place,
        deadline: Deadline,
        before: Callable[[], None] = lambda: None,
    ) -> T:
        """Call the client, with retries; `before` is called right before each attempt."""

        def attempt() -> T | Fault:
            before()
            self._calling.deadline = deadline
            seconds = deadline.remaining()
            options = {"connection_timeout": seconds, "read_timeout": seconds}
            try:
                self.in_time()
                return function(self._client, options)
            except FaultError as error:
                return error.fault
            except StoreError as error:
                explained: StoreError | Fault = bare(error)
            except Exception as error:
                explained = self._explain(error, place, deadline)
            if isinstance(explained, Fault):
                return explained
            # This is after the `except`, so that the error carries no exception of the SDK: their
            # frames hold requests and answers.
            raise explained

        result = retry(attempt, deadline)
        if isinstance(result, Fault):
            raise outcome(result)
        return result

    def _explain(self, error: Exception, place: Place, deadline: Deadline) -> StoreError | Fault:
        exceptions = sdk("azure.core.exceptions", _EXTRA)
        if isinstance(error, exceptions.HttpResponseError) and (error.status_code or 0) >= 300:
            return self._answered(error, place, deadline)
        http = sdk("mlauth.azure.transport", _EXTRA)
        unread, setting = http.unreadable(error), http.unusable(error)
        if unread is not None and unread.response.status_code in TRANSIENT:
            answer = unread.response
            return busy(self._host, answer.status_code, answer.headers.get("Retry-After"))
        if unread is not None:
            return Fault(f"{self._host} {unread}: is a proxy in the way?")
        if setting is not None:
            return Fault(f"{self._host} is not asked: {setting}")
        if isinstance(error, ValueError) and "challenge resource" in str(error):
            return self._another_service()
        # The answer is no JSON, or another 2xx, or has wrong types (then the SDK fails with an
        # exception of Python).
        odd = (exceptions.DecodeError, exceptions.HttpResponseError)
        if type(error) in odd or not isinstance(error, (exceptions.AzureError, OSError)):
            return Fault(
                f"{self._host} answers, but not as a Key Vault does: is a proxy's page in the way?"
            )
        return explain(error, self._host, trust="name the CA in REQUESTS_CA_BUNDLE")

    def _another_service(self) -> Fault:
        return Fault(
            f"{self._host} asks for a token of another service than the vaults of its cloud, and "
            f"gets none: use the vault's own name, and set {AUTHORITY} in a private cloud"
        )

    def _answered(self, error: Any, place: Place, deadline: Deadline) -> StoreError | Fault:
        status: int = error.status_code
        code, message = _said(error)
        wait = error.response.headers.get("Retry-After") if error.response is not None else None
        if code == "ObjectIsBeingRecovered":
            return busy(self._host, status, wait, does="is still recovering the secret")
        if status in TRANSIENT:
            return busy(self._host, status, wait)
        if status == 404:
            return SecretNotFound(self._missing(place, deadline))
        if status == 409 and code == "ObjectIsDeletedButRecoverable":
            return SecretUnusable(
                "a deleted secret still has the name; recover it (az keyvault secret "
                "recover) or purge it, and write again"
            )
        if status in (401, 403) and code:  # without a code, the answer is from a proxy
            kind, why = _refusal(code, message, place, str(self._tokens))
            return kind(why)
        if 300 <= status < 400:
            return Fault(
                f"{self._host} redirects ({status}), and a token is sent to no other "
                "host: is a proxy in the way?"
            )
        return SecretUnusable(
            f"{self._host} answers HTTP {status} ({plain(code) or 'no code'}): is it a "
            "Key Vault, and is nothing in the way?"
        )

    def _missing(self, place: Place, deadline: Deadline) -> str:
        """Say whether a missing secret was deleted; asks once more, which needs no other right."""
        name, versioned = place.parts[1], "version" in place.options
        seconds = max(0.05, min(2.0, deadline.remaining() / 2))
        try:
            deleted = self._client.get_deleted_secret(
                name, connection_timeout=seconds, read_timeout=seconds
            )
            until = deleted.scheduled_purge_date
            end = f" until {until:%Y-%m-%d}" if until else ""
        except Exception:
            what = "no such version of it" if versioned else "no such secret"
            return f"{self._host} has {what}; check the name, and that it is the right vault"
        return f"it was deleted, and can be recovered{end}: az keyvault secret recover"


def _parts(place: Place, environment: Mapping[str, str]) -> tuple[str, str]:
    vault, name = place.parts
    if "." not in vault:
        authority = clouds.named(environment) or clouds.PUBLIC
        suffix = _SUFFIXES.get(authority)
        if suffix is None:
            raise StoreUnreachable(
                f"{AUTHORITY} names no cloud whose vaults are known; "
                "name the vault by its full host"
            )
        vault += suffix
    return vault.lower().removesuffix(":443"), name  # the SDK compares this with the challenge


def _audience(host: str, environment: Mapping[str, str]) -> str | None:
    """Return the audience of tokens for a vault's host: the vaults of its cloud.

    A host of no known cloud gets no token. The SDK would let the host choose: `x.azure.net` could
    ask for a token for `https://azure.net`.
    """
    domain, named = host.partition(".")[2], clouds.named(environment)
    known = f".{domain.partition(':')[0]}" in _SUFFIXES.values()
    own = named is not None and named not in _SUFFIXES and domain.startswith("vault.")
    return f"https://{domain}" if known or own else None


def _stored(secret: KeyVaultSecret) -> StoredSecret:
    """Return the secret in an answer. Any exception says that the answer is not from a vault."""
    value, version = secret.value, secret.properties.version
    if not isinstance(value, str):
        raise TypeError
    return StoredSecret(SecretStr(value), plain(version) if version else None, _outdated(secret))


def _outdated(secret: KeyVaultSecret) -> str | None:
    """Say why a secret is outdated, or return None: Key Vault hands out outdated secrets, too."""
    now = datetime.now(timezone.utc)
    starts, ends = secret.properties.not_before, secret.properties.expires_on
    if ends is not None and ends <= now:
        return f"it expired on {ends:%Y-%m-%d %H:%M} UTC"
    if starts is not None and starts > now:
        return f"it is not valid before {starts:%Y-%m-%d %H:%M} UTC"
    return None


def _said(error: HttpResponseError) -> tuple[str, str]:
    """Return the innermost code, and the message, of an answer."""
    try:
        # With azure-keyvault-secrets 4.7, answers have no method `json()`.
        content = json.loads(error.response.text())["error"]  # type: ignore[union-attr]
        inner = content.get("innererror") or {}
        return str(inner.get("code") or content.get("code") or ""), str(content.get("message", ""))
    except Exception:
        return "", ""


def _refusal(code: str, message: str, place: Place, who: str) -> tuple[type[StoreError], str]:
    if code == "SecretDisabled" or "disabled secret" in message:
        if "version" in place.options:
            return SecretUnusable, "this version is disabled; enable it or name another"
        return SecretUnusable, (
            "its latest version is disabled; enable it, or pin an older one that is enabled: "
            "?version=… (az keyvault secret list-versions shows them)"
        )
    if code == "ForbiddenByRbac":
        return SecretDenied, (
            f"{who} has no role for it: assign 'Key Vault Secrets User' (to write: 'Key Vault "
            "Secrets Officer') on the vault or the secret; a new assignment takes minutes to work"
        )
    if code == "AccessDenied":
        return SecretDenied, (
            f"the vault's access policies give {who} no such right: add the secret permission "
            "Get (to write: Set)"
        )
    if code == "ForbiddenByFirewall":
        return SecretDenied, (
            "the vault's firewall does not let this address in: add it, or this network, to the "
            "vault's networking"
        )
    if code == "ForbiddenByConnection":
        return SecretDenied, (
            "the vault takes no connections from public networks: reach it over its private "
            "endpoint (does its name lead there in this network's DNS?)"
        )
    if code == "ForbiddenByPolicy":
        return SecretDenied, "a policy of the vault forbids it: ask who administers the vault"
    return SecretDenied, (
        f"the vault does not take {who}: is it of the vault's tenant? ({plain(code) or 'no code'})"
    )

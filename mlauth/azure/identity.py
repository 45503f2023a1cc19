"""As whom mlauth asks Azure: one identity, chosen from the environment alone.

`DefaultAzureCredential` tries up to ten identities until one answers, so that who reads is only
known afterwards. Here the variables decide, and `mlauth explain` shows the choice beforehand; the
tokens come from azure-identity. The order is that of `DefaultAzureCredential`:
https://learn.microsoft.com/python/api/overview/azure/identity-readme (read in azure-identity 1.27).
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from mlauth import masking
from mlauth.deadline import Deadline
from mlauth.errors import IdentityUnavailable, StoreError, bare
from mlauth.extras import sdk
from mlauth.net.faults import (
    TRANSIENT,
    Fault,
    FaultError,
    broken_off,
    busy,
    causes,
    connection_fault,
    too_late,
)
from mlauth.never_pickled import NeverPickled

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

TENANT, CLIENT, AUTHORITY = "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST"
SECRET, CERTIFICATE = "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"
PASSWORD, CHAIN = "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"
TOKEN_FILE, CHOICE = "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS"
IMDS = "AZURE_POD_IDENTITY_AUTHORITY_HOST"

IMDS_SECONDS = 5  # to answer, once it took the connection within 1 s
CLI_SECONDS = 10  # for the Azure CLI, which takes 3 to 13 s for a token
_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 30
_FRESH_SECONDS = 300  # a token that ends sooner is not used; as the SDK does
_REFUSED_SECONDS = 2  # for which others who need the same identity need not find out again
_IMDS_TRANSIENT = {404, 410}  # the service of virtual machines while it is updated

_ID = re.compile(r"[A-Za-z0-9.-]+")  # mostly a UUID; a tenant has domains, too
_HOST = re.compile(r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can hold
_ANY_TENANT = {"common", "consumers", "organizations"}  # an application has a tenant of its own

_EXTRA = "azurekv"


@dataclass(frozen=True)
class ServicePrincipal(NeverPickled):
    """An application's own secret or certificate."""

    tenant: str
    client: str
    secret: SecretStr | None = None
    certificate: str | None = None
    password: SecretStr | None = None
    chain: bool = False

    def __str__(self) -> str:
        proof = SECRET if self.secret else CERTIFICATE
        return f"service principal {self.client} of tenant {self.tenant} ({proof})"

    def limits(self) -> str:
        """Return what may take time, for people."""
        return "Microsoft Entra is asked for one token a process"

    def credential(self, **options: Any) -> TokenCredential:
        """Make azure-identity's credential; does no I/O but to read a certificate."""
        identity = sdk("azure.identity", _EXTRA)
        if self.secret:
            # What echoes it, at DEBUG or in an error, is masked.
            masking.register([self.secret.get_secret_value()])
            return identity.ClientSecretCredential(  # type: ignore[no-any-return]
                self.tenant, self.client, self.secret.get_secret_value(), **options
            )
        try:
            return identity.CertificateCredential(  # type: ignore[no-any-return]
                self.tenant,
                self.client,
                self.certificate,
                password=self.password.get_secret_value() if self.password else None,
                send_certificate_chain=self.chain,
                **options,
            )
        except Exception as error:
            kind = type(error).__name__
        raise IdentityUnavailable(
            f"the certificate {self.certificate} ({CERTIFICATE}) cannot be used ({kind}): is it "
            f"readable, PEM or PKCS12 with its private RSA key, and is {PASSWORD} right?"
        )


@dataclass(frozen=True)
class WorkloadIdentity:
    """A Kubernetes service account that Microsoft Entra trusts."""

    tenant: str
    client: str
    token_file: str

    def __str__(self) -> str:
        return f"workload identity {self.client} of tenant {self.tenant} ({TOKEN_FILE})"

    def limits(self) -> str:
        """See `ServicePrincipal.limits`."""
        return "Microsoft Entra is asked for one token a process; the file is read anew for it"

    def credential(self, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        return sdk("azure.identity", _EXTRA).WorkloadIdentityCredential(  # type: ignore[no-any-return]
            tenant_id=self.tenant,
            client_id=self.client,
            token_file_path=self.token_file,
            **options,
        )


@dataclass(frozen=True)
class ManagedIdentity:
    """The identity of the place where this process runs, which an endpoint there hands out."""

    client: str | None
    where: str

    def __str__(self) -> str:
        return f"{_managed(self.client)} ({self.where})"

    def limits(self) -> str:
        """See `ServicePrincipal.limits`."""
        return "the endpoint is asked for one token a process"

    def credential(self, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        masking.register(os.environ.get(name, "") for name in ("IDENTITY_HEADER", "MSI_SECRET"))
        # The client id is given: a bare ManagedIdentityCredential does not read AZURE_CLIENT_ID.
        return sdk("azure.identity", _EXTRA).ManagedIdentityCredential(  # type: ignore[no-any-return]
            client_id=self.client, **options
        )


@dataclass(frozen=True)
class ThisMachine:
    """A virtual machine's managed identity and then, as on a laptop, `az login`."""

    client: str | None
    machine: bool = True
    login: bool = True

    def __str__(self) -> str:
        managed = f"{_managed(self.client)} of this machine (IMDS)" if self.machine else ""
        return ", else ".join(filter(None, (managed, "the `az login` of this user" * self.login)))

    def limits(self) -> str:
        """See `ServicePrincipal.limits`."""
        imds = (
            f"IMDS has 1 s to take a connection and {IMDS_SECONDS} s to answer"
            if self.machine
            else ""
        )
        login = f"az has {CLI_SECONDS} s for a token, one a process" if self.login else ""
        return "; ".join(filter(None, (imds, login)))

    def credential(self, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        identity = sdk("azure.identity", _EXTRA)
        found = []
        if self.machine:
            found.append(identity.ManagedIdentityCredential(client_id=self.client, **options))
        if self.login:
            found.append(identity.AzureCliCredential(process_timeout=CLI_SECONDS))
        # In a chain, even of one, azure-identity asks first if there is an IMDS at all: 1 s
        # instead of the 24 s for which it would wait for one.
        return identity.ChainedTokenCredential(*found)  # type: ignore[no-any-return]


Identity = ServicePrincipal | WorkloadIdentity | ManagedIdentity | ThisMachine

_ALL = frozenset({"principal", "workload", "managed", "login"})
_CHOICES = {
    "": _ALL,
    "dev": frozenset({"login"}),
    "prod": _ALL - {"login"},
    "environmentcredential": frozenset({"principal"}),
    "workloadidentitycredential": frozenset({"workload"}),
    "managedidentitycredential": frozenset({"managed"}),
    "azureclicredential": frozenset({"login"}),
}


def choose(environment: Mapping[str, str]) -> Identity:
    """Choose the identity that the environment names; does no I/O and needs no SDK.

    Args:
        environment: without what was exported for the flow (`mlauth.record.own_environment`).

    Raises:
        IdentityUnavailable: a variable is missing beside another, or cannot be used.
    """

    # Secrets are in no local variable: an error shows those of this function.
    def value(name: str) -> str | None:
        if _is_spoilt(environment, name):
            raise IdentityUnavailable(
                f"{name} has a blank or a line break at an end, or a character that cannot be "
                "printed: set it anew without"
            )
        return environment.get(name) or None  # an empty one, as charts leave them, is none

    allowed = _CHOICES.get(environment.get(CHOICE, "").strip().lower())
    if allowed is None:
        raise IdentityUnavailable(
            f"{CHOICE} names an identity that mlauth does not use: it takes dev, prod, "
            "EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential and "
            "AzureCliCredential"
        )

    def client() -> str | None:
        found = value(CLIENT)
        if found is not None and not _ID.fullmatch(found):
            raise IdentityUnavailable(f"{CLIENT} is not an application's or identity's client id")
        return found

    def application(beside: str, hint: str = "") -> tuple[str, str]:
        tenant, found = value(TENANT), client()
        if tenant is None or found is None:
            name, hint = (CLIENT, hint) if tenant else (TENANT, "")
            raise IdentityUnavailable(f"{beside} is set without {name}: set both or none{hint}")
        if not _ID.fullmatch(tenant):
            raise IdentityUnavailable(f"{TENANT} is not a tenant's id or domain")
        if tenant.lower() in _ANY_TENANT:
            raise IdentityUnavailable(
                f"{TENANT}={tenant} is no tenant of its own, so that the vault would choose one: "
                "set the id of the application's tenant"
            )
        return tenant, found

    if "principal" in allowed and value(SECRET):
        return ServicePrincipal(*application(SECRET), SecretStr(environment[SECRET]))
    if "principal" in allowed and (certificate := value(CERTIFICATE)):
        return ServicePrincipal(
            *application(CERTIFICATE),
            certificate=certificate,
            password=SecretStr(environment[PASSWORD]) if environment.get(PASSWORD) else None,
            chain=environment.get(CHAIN, "").lower() in {"1", "true"},
        )
    if "workload" in allowed and (token_file := value(TOKEN_FILE)):
        hint = (
            "; on AKS the annotation azure.workload.identity/client-id of the Kubernetes service "
            "account does"
        )
        return WorkloadIdentity(*application(TOKEN_FILE, hint), token_file)
    if "managed" in allowed and (where := _endpoint(value)):
        return ManagedIdentity(client(), where)
    if not allowed & {"managed", "login"}:
        raise IdentityUnavailable(f"{CHOICE} is set, but the variables of that identity are not")
    if "managed" in allowed:
        _url(IMDS, value)
    return ThisMachine(client(), "managed" in allowed, "login" in allowed)


def _is_spoilt(environment: Mapping[str, str], name: str) -> bool:
    return (
        not environment.get(name, "").isprintable()
        or environment.get(name, "") != environment.get(name, "").strip()
    )


def _endpoint(value: Callable[[str], str | None]) -> str | None:
    """Return which endpoint hands out a managed identity, as azure-identity tells them apart."""
    if _url("IDENTITY_ENDPOINT", value):
        if _header("IDENTITY_HEADER", value):
            fabric = value("IDENTITY_SERVER_THUMBPRINT")
            return f"{'Service Fabric' if fabric else 'App Service'}, IDENTITY_ENDPOINT"
        if value("IMDS_ENDPOINT"):
            return "Azure Arc, IDENTITY_ENDPOINT"
        raise IdentityUnavailable(
            "IDENTITY_ENDPOINT is set without IDENTITY_HEADER (or, with Azure Arc, IMDS_ENDPOINT)"
        )
    if _url("MSI_ENDPOINT", value):
        kind = "Azure ML" if _header("MSI_SECRET", value) else "Cloud Shell"
        return f"{kind}, MSI_ENDPOINT"
    return None


def _url(name: str, value: Callable[[str], str | None]) -> bool:
    """Say whether an endpoint is named; refuse a name that is no URL."""
    found = value(name)
    if found is not None and not (
        found.startswith(("http://", "https://")) and host_of(found.partition("?")[0])
    ):
        raise IdentityUnavailable(f"{name} is not a URL that starts with http:// or https://")
    return found is not None


def _header(name: str, value: Callable[[str], str | None]) -> bool:
    """Say whether the secret of an endpoint is there; refuse one that no header can hold."""
    if not (value(name) or "").isascii():
        raise IdentityUnavailable(f"{name} has characters that are not ASCII: set it anew")
    return value(name) is not None


def host_of(url: str) -> str | None:
    """Return host and port of a URL, in lower case; None if it has none, or more than these."""
    try:
        parts = urlsplit(url)
        port = parts.port  # raises where it is too high
    except ValueError:
        return None
    return parts.netloc.lower() if port != 0 and _HOST.fullmatch(parts.netloc) else None


def _managed(client: str | None) -> str:
    return f"user-assigned managed identity {client}" if client else "managed identity"


class Tokens:
    """Tokens of an identity: kept in this process, one asked for at a time."""

    def __init__(self, identity: Identity, authority: str) -> None:
        self._identity = identity
        self._lock = threading.Lock()
        self._kept: dict[tuple[object, ...], tuple[SecretStr, int]] = {}
        self._answer: tuple[int, str | None] | None = None
        self._refused: tuple[float, IdentityUnavailable] | None = None
        entra = isinstance(identity, (ServicePrincipal, WorkloadIdentity))
        # The SDK's retries are off: ours are bounded by the deadline. An explicit authority, as
        # the vault's own cloud may not be the one that AZURE_AUTHORITY_HOST names.
        options: dict[str, Any] = {
            "retry_total": 0,
            "transport": sdk("mlauth.azure.transport", _EXTRA).transport(
                direct=not entra,
                look=self._look,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=IMDS_SECONDS if isinstance(identity, ThisMachine) else _ANSWER_SECONDS,
            ),
        }
        if entra:
            options["authority"] = authority
            # Else MSAL asks login.microsoftonline.com about a host that it does not know, and stops
            # there: that of a cloud of one's own is none of Microsoft's.
            options["disable_instance_discovery"] = True
        self._place = authority if "authority" in options else "the identity's endpoint"
        self._options = options
        self._credential = self._made()

    def __str__(self) -> str:
        return str(self._identity)

    def get(
        self, *scopes: str, deadline: Deadline, claims: str | None = None, **options: Any
    ) -> AccessToken:
        """Return a token; see `azure.core.credentials.TokenCredential.get_token`.

        Raises:
            FaultError: the identity's issuer gave no answer, or nobody was asked in time.
            StoreError: there is no identity, or it is refused.
        """
        key = (scopes, options.get("tenant_id"))
        with self._turn(deadline):
            kept = self._kept.get(key)
            if kept is not None and not claims and kept[1] - time.time() > _FRESH_SECONDS:
                return _access_token(*kept)
            if self._refused is not None and time.monotonic() < self._refused[0]:
                raise bare(self._refused[1])
            self._answer = None
            try:
                with _quiet():
                    token = self._credential.get_token(*scopes, claims=claims, **options)
                if not _TOKEN.fullmatch(token.token):  # a TypeError, if it is no text
                    raise ValueError("no token")
            except Exception as error:
                explained = self._explain(error)
            else:
                masking.register([token.token])
                self._kept[key] = SecretStr(token.token), token.expires_on
                return token
            # After the `except`: frames of the SDK hold secrets, and `from None` keeps them.
            if isinstance(explained, Fault):
                # MSAL keeps the answer of a fault for a while and repeats it, unasked.
                self._credential = self._made()
                raise FaultError(explained)
            self._refused = (time.monotonic() + _REFUSED_SECONDS, explained)
            raise explained

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """Let one ask at a time, and nobody begin when the time is up: az may hang for each."""
        left = deadline.remaining()
        if not left or not self._lock.acquire(timeout=left):
            raise FaultError(
                Fault(
                    f"{self._identity} gave no token in time: is what issues its tokens in reach? "
                    "a busy service needs a longer timeout",
                    unknown=True,
                )
            )
        try:
            yield
        finally:
            self._lock.release()

    def _made(self) -> TokenCredential:
        try:
            return self._identity.credential(**self._options)
        except StoreError:
            raise
        except Exception as error:
            kind = type(error).__name__
        raise IdentityUnavailable(
            f"{self._identity}: azure-identity takes its variables for wrong ({kind}): "
            "mlauth explain shows which it has"
        )

    def _look(self, response: Any, **_options: Any) -> None:
        # The last error: after one, MSAL asks Microsoft Entra for what it does not need.
        if self._answer is None or response.status_code >= 400:
            self._answer = (response.status_code, response.headers.get("Retry-After"))

    def _explain(self, error: Exception) -> IdentityUnavailable | Fault:
        who, said = str(self._identity), str(error)
        code = re.search(r"AADSTS\d+", said)
        if code and code[0] in _REFUSALS:
            return IdentityUnavailable(f"{who}: {_REFUSALS[code[0]]} ({code[0]})")
        if self._answer is not None:
            status, header = self._answer
            if status in TRANSIENT or (status in _IMDS_TRANSIENT and "IMDS" in who):
                return busy(f"what issues tokens to the {who}", status, header)
        if "Failed to invoke the Azure CLI" in said:
            return Fault(f"az gave no token within {CLI_SECONDS} s: try again", unknown=True)
        if not isinstance(self._identity, ThisMachine):
            fault = self._fault(error)
            if fault is not None:
                return replace(fault, line=f"{who}: {fault.line}")
        if "for tenant" in said and "not configured" in said:
            return IdentityUnavailable(
                f"{who}: the vault is in another tenant; use an identity of the vault's tenant"
            )
        return IdentityUnavailable(f"{who}: {self._hint(said, code[0] if code else None)}")

    def _fault(self, error: Exception) -> Fault | None:
        """Say what is wrong with the connection to the endpoint, if that is what is wrong."""
        http = sdk("mlauth.azure.transport", _EXTRA)
        unread, setting = http.unreadable(error), http.unusable(error)
        if unread is not None:
            return Fault(f"{self._place} {unread}: is a proxy in the way?")
        if setting is not None:
            return Fault(setting)
        fault = connection_fault(error, self._place, trust="name it in REQUESTS_CA_BUNDLE")
        if fault is None and too_late(error):
            return Fault(
                f"{self._place} gave no answer within {_ANSWER_SECONDS} s: is a firewall or proxy "
                "in the way?",
                unknown=True,
            )
        lost = ("ServiceRe", "IncompleteRead", "ConnectionError", "ChunkedEncodingError")
        if fault is None and any(type(cause).__name__.startswith(lost) for cause in causes(error)):
            return broken_off(self._place)
        return fault

    def _hint(self, said: str, code: str | None) -> str:
        if isinstance(self._identity, ThisMachine):
            login = (
                "run `az login`, or "
                if self._identity.login and "az login" in said.replace("'", "")
                else ""
            )
            return (
                "neither gives a token here: " if self._identity.machine else "gives no token: "
            ) + f"{login}set the AZURE_* variables of an identity (mlauth explain shows the choice)"
        if code:
            return f"Microsoft Entra refuses it ({code})"
        status = self._answer[0] if self._answer else 0
        if isinstance(self._identity, ManagedIdentity):
            if 200 <= status < 400:
                return (
                    f"what answers there (HTTP {status}) is not the endpoint of an identity: is "
                    "the variable right, and no proxy in the way?"
                )
            shown = f" (HTTP {status})" if status else ""
            return (
                f"the endpoint does not give a token{shown}: is an identity assigned here, and "
                f"is {CLIENT} its client id?"
            )
        if status:
            return (
                f"{self._place} answers HTTP {status}, and not as Microsoft Entra does: is a proxy "
                f"in the way, and is {TENANT} right?"
            )
        return "no token was given: are its variables, and its file, right?"


@cache
def tokens(identity: Identity, authority: str) -> Tokens:
    """Return the tokens of an identity, the same object for the same identity.

    Args:
        identity: who.
        authority: the host of Microsoft Entra in the vault's cloud.
    """
    return Tokens(identity, authority)


if hasattr(os, "register_at_fork"):
    # Another thread may be in the middle of asking for a token, with locks of ours and the SDK's.
    os.register_at_fork(after_in_child=tokens.cache_clear)


def _access_token(value: SecretStr, expires_on: int) -> AccessToken:
    # The SDK's class prints the token: it is made for the SDK alone, and not kept.
    kind = sdk("azure.core.credentials", _EXTRA).AccessToken
    return kind(value.get_secret_value(), expires_on)  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep azure-identity from warning in several lines of what our error says in one."""
    logger = logging.getLogger("azure.identity")
    level = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_REFUSALS = {
    "AADSTS7000215": f"the secret is not one of it: {SECRET} is the secret's value, not its id",
    "AADSTS7000222": f"its secret has expired: make a new one, and set {SECRET}",
    "AADSTS7000112": "the application is disabled",
    "AADSTS700016": f"there is no such application in the tenant: is {CLIENT} right?",
    "AADSTS90002": f"there is no such tenant in this cloud: is {TENANT} right?",
    "AADSTS700027": "its certificate is not one of the application's, or has expired",
    "AADSTS70021": "no federated credential matches issuer, subject and audience of the token",
    "AADSTS700211": "no federated credential matches the token's issuer",
    "AADSTS700212": "no federated credential matches the token's audience",
    "AADSTS700213": "no federated credential matches the token's subject (service account)",
    "AADSTS700024": "the token in the file has expired: is it still the projected one?",
}

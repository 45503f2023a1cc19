"""Chooses the identity with which mlauth asks Azure, from the environment alone.

`DefaultAzureCredential` tries up to ten identities until one answers, so nobody knows beforehand
which one reads. Here the variables decide, and `mlauth explain` shows the choice. The order is the
same as in `DefaultAzureCredential`:
https://learn.microsoft.com/python/api/overview/azure/identity-readme (read in azure-identity 1.27).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mlauth import masking
from mlauth.azure.clouds import host_of
from mlauth.errors import IdentityUnavailable
from mlauth.never_pickled import NeverPickled
from mlauth.record import own_environment

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

TENANT, CLIENT = "AZURE_TENANT_ID", "AZURE_CLIENT_ID"
SECRET, CERTIFICATE = "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"
PASSWORD, CHAIN = "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"
TOKEN_FILE, CHOICE = "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS"
IMDS = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
VARIABLES = ("AZURE_*", "IDENTITY_*", "IMDS_ENDPOINT", "MSI_*", "MSAL_FORCE_REGION")
# azure-identity and MSAL read these variables themselves; no argument overrides them.
_READ_OF_MACHINE = (
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"),
    *("MSI_ENDPOINT", "MSI_SECRET", IMDS, TOKEN_FILE, "AZURE_CONFIG_DIR"),
)
_READ_OF_ENTRA = (
    *("AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION", "AZURE_KUBERNETES_TOKEN_PROXY"),
    *("AZURE_KUBERNETES_SNI_NAME", "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA"),
)

IMDS_SECONDS = 5  # time for an answer; the connection must be there within 1 s
CLI_SECONDS = 10  # the Azure CLI takes 3 to 13 s for a token

_ID = re.compile(r"[A-Za-z0-9.-]+")  # mostly a UUID; a domain can also name a tenant
_ANY_TENANT = {"common", "consumers", "organizations"}  # these stand for any tenant


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
        """Return the time limits and the number of requests, in words for people."""
        return "Microsoft Entra is asked for one token a process"

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """Make the credential; the only I/O is reading a certificate.

        Args:
            identity: the module `azure.identity`.
            options: for the credential.
        """
        if self.secret:
            # Libraries may log it at DEBUG or put it into an error.
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
        return "Microsoft Entra is asked for one token a process; the file is read for each"

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        return identity.WorkloadIdentityCredential(  # type: ignore[no-any-return]
            tenant_id=self.tenant,
            client_id=self.client,
            token_file_path=self.token_file,
            **options,
        )


@dataclass(frozen=True)
class ManagedIdentity:
    """The identity of the place where this process runs; an endpoint there gives its tokens."""

    client: str | None
    where: str

    def __str__(self) -> str:
        return f"{_managed(self.client)} ({self.where})"

    def limits(self) -> str:
        """See `ServicePrincipal.limits`."""
        return "the endpoint is asked for one token a process"

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        masking.register(os.environ.get(name, "") for name in ("IDENTITY_HEADER", "MSI_SECRET"))
        # The client id is given: a bare ManagedIdentityCredential does not read AZURE_CLIENT_ID.
        return identity.ManagedIdentityCredential(  # type: ignore[no-any-return]
            client_id=self.client, **options
        )


@dataclass(frozen=True)
class ThisMachine:
    """The managed identity of a virtual machine or, if there is none, `az login` as on a laptop."""

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

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
        found = []
        if self.machine:
            found.append(identity.ManagedIdentityCredential(client_id=self.client, **options))
        if self.login:
            found.append(identity.AzureCliCredential(process_timeout=CLI_SECONDS))
        # In a chain, azure-identity first asks for 1 s if there is an IMDS at all. Without a chain,
        # it would wait 24 s for it.
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


def of_worker() -> Identity:
    """Choose the identity of the worker, and never one that an activation gave the flow.

    Raises:
        IdentityUnavailable: see `choose`; or an activation changed a variable that the libraries
            read themselves, so that they would ask with the flow's identity.
    """
    environment = own_environment()
    identity = choose(environment)
    entra = isinstance(identity, (ServicePrincipal, WorkloadIdentity))
    for name in _READ_OF_ENTRA if entra else _READ_OF_MACHINE:
        if environment.get(name) != os.environ.get(name):
            raise IdentityUnavailable(
                f"{identity}: the flow was given another {name}, so the worker's identity cannot "
                "be used any more: do not export that variable, or read the secret before"
            )
    return identity


def choose(environment: Mapping[str, str]) -> Identity:
    """Choose the identity that the environment names; does no I/O and needs no SDK.

    Args:
        environment: the environment without the flow's exports (`mlauth.record.own_environment`).

    Raises:
        IdentityUnavailable: a variable is missing beside another, or cannot be used.
    """

    # No local variable holds a secret, because a traceback may show them.
    def value(name: str) -> str | None:
        if _is_spoilt(environment, name):
            raise IdentityUnavailable(
                f"{name} has a blank or a line break at an end, or a character that cannot be "
                "printed: set it again without"
            )
        return environment.get(name) or None  # Helm charts leave variables empty

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
                f"{TENANT}={tenant} stands for any tenant, so the service would choose one: set "
                "the id of the application's tenant"
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
            "; on AKS, the annotation azure.workload.identity/client-id of the Kubernetes service "
            "account sets it"
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
    """Return the endpoint of the managed identity, if there is one, as azure-identity finds it."""
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
        raise IdentityUnavailable(f"{name} has characters that are not ASCII: set it again")
    return value(name) is not None


def _managed(client: str | None) -> str:
    return f"user-assigned managed identity {client}" if client else "managed identity"

"""As whom mlauth asks Azure: one identity, chosen from the environment alone.

`DefaultAzureCredential` tries up to ten identities until one answers, so that who reads is only
known afterwards. Here the variables decide, and `mlauth explain` shows the choice beforehand. The
order is that of `DefaultAzureCredential`:
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
# What azure-identity and MSAL read from the environment by themselves, whatever they are given.
_READ_OF_MACHINE = (
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"),
    *("MSI_ENDPOINT", "MSI_SECRET", IMDS, TOKEN_FILE, "AZURE_CONFIG_DIR"),
)
_READ_OF_ENTRA = (
    *("AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION", "AZURE_KUBERNETES_TOKEN_PROXY"),
    *("AZURE_KUBERNETES_SNI_NAME", "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA"),
)

IMDS_SECONDS = 5  # to answer, once it took the connection within 1 s
CLI_SECONDS = 10  # for the Azure CLI, which takes 3 to 13 s for a token

_ID = re.compile(r"[A-Za-z0-9.-]+")  # mostly a UUID; a tenant has domains, too
_ANY_TENANT = {"common", "consumers", "organizations"}  # an application has a tenant of its own


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

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """Make the credential; does no I/O but to read a certificate.

        Args:
            identity: the module `azure.identity`.
            options: for the credential.
        """
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
    """The identity of the place where this process runs, which an endpoint there hands out."""

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

    def credential(self, identity: Any, **options: Any) -> TokenCredential:
        """See `ServicePrincipal.credential`."""
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


def of_worker() -> Identity:
    """Choose the identity of the worker: never one that an activation gave the flow.

    Raises:
        IdentityUnavailable: see `choose`; or an activation changed a variable that the libraries
            read by themselves, so that they would ask as somebody else.
    """
    environment = own_environment()
    identity = choose(environment)
    entra = isinstance(identity, (ServicePrincipal, WorkloadIdentity))
    for name in _READ_OF_ENTRA if entra else _READ_OF_MACHINE:
        if environment.get(name) != os.environ.get(name):
            raise IdentityUnavailable(
                f"{identity}: the flow was given another {name}, with which it would not be the "
                "worker that asks: leave it out of what is exported, or read before"
            )
    return identity


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
                f"{TENANT}={tenant} is no tenant of its own, so that what is asked would choose "
                "one: set the id of the application's tenant"
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


def _managed(client: str | None) -> str:
    return f"user-assigned managed identity {client}" if client else "managed identity"

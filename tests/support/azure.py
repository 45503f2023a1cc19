"""The parts of Azure that reading a secret needs, on loopback, for the real SDK in any process."""

from __future__ import annotations

import contextlib
import os
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme

from mlauth.azure.tokens import tokens
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.identity import CLOUDS, Cloud, Directory, Identity
from tests.support.key_vault import KeyVaults, Vault
from tests.support.web import Answer, Call, Service, serve


class Azure:
    """Vaults under their real host names, and every endpoint that gives an identity its tokens.

    The methods below return the variables with which a process uses this Azure. Tests share one
    `Azure`, but each makes its own vaults and identities: the SDK remembers a vault's challenge as
    long as the process lives, and a trouble belongs to one vault or one identity.

    Attributes:
        reader, writer, lister: identities with `get`; `get`, `set` and `update`; `get` and `list`.
        latency: seconds that every answer takes.
        directory: the tenant, with all requests for tokens.
        proxy: the CONNECT proxy, which records the hosts.
    """

    def __init__(self, directory: Directory, vaults: KeyVaults, proxy: ConnectProxy) -> None:
        self.directory = directory
        self.proxy = proxy
        self.reader = directory.add(["get"])
        self.writer = directory.add(["get", "set", "update"])
        self.lister = directory.add(["get", "list"])
        self._vaults = vaults
        self.latency = 0.0
        self.managed_url = ""
        self.ca_bundle = Path()

    def vault(self, name: str | None = None, cloud: str = "public") -> Vault:
        """Make an empty vault; by default, with a new name."""
        return self._vaults.new(name or f"v-{uuid.uuid4().hex[:16]}", cloud)

    def identity(self, *rights: str, lifetime: int = 3599) -> Identity:
        """Make an identity; with a negative lifetime, its tokens have expired from the start."""
        return self.directory.add(rights, lifetime)

    def network(self, cloud: str = "public") -> dict[str, str]:
        """Return variables that lead to this Azure instead of the real one, without an identity."""
        environment = {"REQUESTS_CA_BUNDLE": str(self.ca_bundle)}
        for name, value in (("HTTPS_PROXY", self.proxy.url), ("NO_PROXY", "127.0.0.1,localhost")):
            environment[name] = environment[name.lower()] = value  # requests prefers lower case
        if cloud != "public":
            environment["AZURE_AUTHORITY_HOST"] = f"https://{CLOUDS[cloud].login}"
        return environment

    def environment(
        self,
        identity: Identity | None = None,
        *,
        assigned: Sequence[Identity] = (),
        cloud: str = "public",
    ) -> dict[str, str]:
        """Variables of an app in App Service.

        Args:
            identity: its system-assigned one; by default the reader, unless some are assigned.
            assigned: its user-assigned ones.
            cloud: `public`, `china` or `usgov`.
        """
        return {
            **self.network(cloud),
            "IDENTITY_ENDPOINT": f"{self.managed_url}/msi/token",
            "IDENTITY_HEADER": self._machine(identity, assigned, CLOUDS[cloud]),
        }

    def azure_ml(
        self,
        identity: Identity | None = None,
        *,
        assigned: Sequence[Identity] = (),
        cloud: str = "public",
    ) -> dict[str, str]:
        """Variables of a compute or an endpoint in Azure ML; arguments as of `environment`."""
        return {
            **self.network(cloud),
            "MSI_ENDPOINT": f"{self.managed_url}/MSI/auth",
            "MSI_SECRET": self._machine(identity, assigned, CLOUDS[cloud]),
        }

    def imds(
        self,
        identity: Identity | None = None,
        *,
        assigned: Sequence[Identity] = (),
        cloud: str = "public",
    ) -> dict[str, str]:
        """Return variables with which a process finds the IMDS of a VM; see `environment`."""
        machine = self._machine(identity, assigned, CLOUDS[cloud])
        return {
            **self.network(cloud),
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": f"{self.managed_url}/{machine}",
        }

    def service_principal(
        self, identity: Identity | None = None, *, cloud: str = "public"
    ) -> dict[str, str]:
        """Return the variables of an application with a client secret; by default the reader's."""
        identity = identity or self.reader
        return {
            **self._application(identity, cloud),
            "AZURE_CLIENT_SECRET": identity.secret,
        }

    def workload_identity(
        self,
        folder: Path,
        identity: Identity | None = None,
        *,
        cloud: str = "public",
        lifetime: int = 3600,
    ) -> dict[str, str]:
        """Variables of a pod with a federated token.

        Args:
            folder: where the token's file is written.
            identity: by default the reader.
            cloud: `public`, `china` or `usgov`.
            lifetime: seconds that the federated token is good for.
        """
        identity = identity or self.reader
        file = folder / "azure-identity-token"
        file.write_text(self.directory.federated_token(identity, lifetime))
        return {
            **self._application(identity, cloud),
            "AZURE_AUTHORITY_HOST": f"https://{CLOUDS[cloud].login}",  # always set in a pod
            "AZURE_FEDERATED_TOKEN_FILE": str(file),
        }

    def _application(self, identity: Identity, cloud: str) -> dict[str, str]:
        return {
            **self.network(cloud),
            "AZURE_TENANT_ID": self.directory.tenant,
            "AZURE_CLIENT_ID": identity.client_id,
        }

    def _machine(
        self, identity: Identity | None, assigned: Sequence[Identity], cloud: Cloud
    ) -> str:
        system = identity if identity or assigned else self.reader
        return self.directory.machine(cloud, system, assigned)


_NETWORK = ("REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY")


def become(patch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    """Exchange whom this process is in Azure, and its way there; no token is remembered."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_")) or name.upper() in _NETWORK:
            patch.delenv(name)
    for name, value in environment.items():
        patch.setenv(name, value)
    tokens.cache_clear()


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Azure]:
    """Start all of it.

    Args:
        folder: where the certificate of the authority is written.
    """
    authority = trustme.CA()
    names = [cloud.login for cloud in CLOUDS.values()]
    names += [f"*.{cloud.suffix}" for cloud in CLOUDS.values()]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(tls)
    directory = Directory()
    vaults = KeyVaults(directory)
    every: list[Azure] = []

    def slowly(service: Service) -> Service:
        def answer(call: Call) -> Answer:
            time.sleep(every[0].latency)
            return service(call)

        return answer

    logins = {cloud.login for cloud in CLOUDS.values()}
    with contextlib.ExitStack() as stack:
        entra_port = stack.enter_context(serve(slowly(directory.entra), tls))
        vault_port = stack.enter_context(serve(slowly(vaults), tls))
        managed_port = stack.enter_context(serve(slowly(directory.managed)))
        ports = dict.fromkeys(logins, entra_port)
        ports |= {f"*.{cloud.suffix}": vault_port for cloud in CLOUDS.values()}
        proxy = stack.enter_context(
            connect_proxy(ports, lambda host: host in logins or vaults.exists(host))
        )
        started = Azure(directory, vaults, proxy)
        every.append(started)
        started.managed_url = f"http://127.0.0.1:{managed_port}"
        started.ca_bundle = folder / "azure-ca.pem"
        authority.cert_pem.write_to_path(started.ca_bundle)
        yield started

"""Azure on loopback: Key Vault and what issues tokens, under their real names."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

import trustme

from tests.servers.connect_proxy import ConnectProxy
from tests.servers.identity import AUTHORITIES, Identity
from tests.servers.key_vault import DOMAINS, KeyVault, Vault

__all__ = ["Azure", "Vault"]


class Azure:
    """The stand-ins, and the environments in which the SDKs find them. A context manager.

    Attributes:
        identity: what issues tokens.
        impostor_host: answers as a vault that wants a token of another service.
    """

    impostor_host = "impostor.vault.azure.net"

    def __enter__(self) -> Azure:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = [f"*.{domain}" for domain in DOMAINS.values()]
        authority.issue_cert(*names, *AUTHORITIES.values()).configure_cert(tls)
        self._folder = tempfile.TemporaryDirectory(prefix="azure-")
        self._ca = Path(self._folder.name) / "ca.pem"
        authority.cert_pem.write_to_path(self._ca)
        self.identity = Identity(tls)
        self._vaults = KeyVault(self.identity, tls)
        self._proxy = ConnectProxy(
            dict.fromkeys(names, self._vaults.port)
            | dict.fromkeys(AUTHORITIES.values(), self.identity.entra_port)
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._proxy.close()
        self._vaults.close()
        self.identity.close()
        self._folder.cleanup()

    @property
    def latency(self) -> float:
        """Seconds that every answer takes."""
        return self._vaults.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._vaults.latency = self.identity.latency = seconds

    def vault(self, name: str, cloud: str = "public") -> Vault:
        """Return the vault of a name, in a cloud; a new one is empty."""
        return self._vaults.vault(name, cloud)

    def token(self) -> str:
        """Return a token for public vaults, as `az account get-access-token` prints it."""
        return self.identity.issue(f"https://{DOMAINS['public']}")

    def network(self) -> dict[str, str]:
        """Return the variables that lead to the stand-ins, without an identity."""
        return {
            "HTTPS_PROXY": self._proxy.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self._ca),
        }

    def environment(self) -> dict[str, str]:
        """Return an environment as in App Service."""
        endpoint = f"{self.identity.url}/app-service/token"
        header = self.identity.header
        return {**self.network(), "IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": header}

    def azure_ml(self) -> dict[str, str]:
        """Return an environment as on Azure ML."""
        endpoint = f"{self.identity.url}/ml/token"
        return {**self.network(), "MSI_ENDPOINT": endpoint, "MSI_SECRET": self.identity.header}

    def imds(self) -> dict[str, str]:
        """Return an environment as on a virtual machine."""
        return {**self.network(), "AZURE_POD_IDENTITY_AUTHORITY_HOST": self.identity.url}

    def service_principal(self) -> dict[str, str]:
        """Return an environment with an application's secret."""
        return {
            **self.network(),
            "AZURE_TENANT_ID": self.identity.tenant,
            "AZURE_CLIENT_ID": self.identity.client_id,
            "AZURE_CLIENT_SECRET": self.identity.client_secret,
        }

    def workload_identity(self, folder: Path) -> dict[str, str]:
        """Return an environment as on AKS, with its token file in a folder."""
        file = folder / "azure-identity-token"
        file.write_text(self.identity.assertion)
        return {
            **self.network(),
            "AZURE_TENANT_ID": self.identity.tenant,
            "AZURE_CLIENT_ID": self.identity.client_id,
            "AZURE_FEDERATED_TOKEN_FILE": str(file),
        }

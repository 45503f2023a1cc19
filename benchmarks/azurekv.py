"""Measures reading from Azure Key Vault, and compares it with the bare SDK and with listing.

The real SDKs ask, over TLS, stand-ins of the vault and of App Service's identity endpoint on this
machine. Each answer is as slow as in a real region (`--latency`).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.measuring import MEMORY_EPILOGUE, PRELUDE, Figures, measured, path, table
from tests.support.azure import Azure
from tests.support.azure import azure as start_azure
from tests.support.environment import child_environment
from tests.support.key_vault import Vault

ARGUMENTS = "vault, = sys.argv[1:]\n"
BARE = """
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient
client = SecretClient(f"https://{vault}.vault.azure.net", ManagedIdentityCredential())
"""
FLOOR, OURS, OURS_3 = "floor: the bare SDK, 1 secret", "export_secrets, 1", "export_secrets, 3"
VARIANTS = {
    FLOOR: BARE
    + """
client.get_secret("secret-1").value
""",
    OURS: """
from prefect_mlauth.steps import export_secrets
export_secrets({"SECRET_1": f"azurekv://{vault}/secret-1"})
""",
    "the bare SDK, 3 secrets in turn": BARE
    + """
[client.get_secret(f"secret-{number}").value for number in range(3)]
""",
    OURS_3: """
from prefect_mlauth.steps import export_secrets
export_secrets({f"SECRET_{n}": f"azurekv://{vault}/secret-{n}" for n in range(3)})
""",
    "DefaultAzureCredential, 1 secret": BARE.replace(
        "ManagedIdentityCredential", "DefaultAzureCredential"
    )
    + """
client.get_secret("secret-1").value
""",
    "pydantic-settings, 3 secrets of 1,000": """
from azure.identity import ManagedIdentityCredential
from pydantic import Field
from pydantic_settings import AzureKeyVaultSettingsSource, BaseSettings
class Settings(BaseSettings):
    one: str = Field(alias="secret-0")
    two: str = Field(alias="secret-1")
    three: str = Field(alias="secret-2")
    @classmethod
    def settings_customise_sources(cls, settings_cls, **sources):
        url = f"https://{vault}.vault.azure.net"
        return (AzureKeyVaultSettingsSource(settings_cls, url, ManagedIdentityCredential()),)
Settings()
""",
}


def asked(azure: Azure, vault: Vault) -> Counter[str]:
    """Count the requests to the identity endpoint and the vault so far, by kind."""
    kinds = Counter({"token": len(azure.directory.requests)})
    for request in vault.requests:
        listed = request.path.rstrip("/") == "/secrets"
        kinds["challenge" if request.status == 401 else "LIST" if listed else "GET"] += 1
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="of each variant (default 7)")
    parser.add_argument("--latency", type=float, default=0.02, help="of an answer (default 0.02 s)")
    options = parser.parse_args()
    console = Console(width=140)
    packages = ("prefect", "azure-keyvault-secrets", "azure-identity", "pydantic-settings")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    console.print(f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    figures = {name: Figures() for name in VARIANTS}
    with (
        tempfile.TemporaryDirectory(prefix="mlauth-bench-") as name,
        start_azure(Path(name)) as azure,
    ):
        vault = azure.vault("bench")
        for number in range(1000):
            vault.put(f"secret-{number}", f"value-{number}")
        azure.latency = options.latency
        for _ in range(options.runs):
            for variant, code in VARIANTS.items():
                home = Path(tempfile.mkdtemp(dir=name))
                identity = azure.environment(azure.lister)
                env = child_environment(home, {**identity, "PATH": path()})
                command = [
                    sys.executable,
                    "-c",
                    PRELUDE + ARGUMENTS + code + MEMORY_EPILOGUE,
                    "bench",
                ]
                measured(command, env, lambda: asked(azure, vault), figures[variant])
    console.print(table(f"After Prefect was imported; {options.latency * 1000:g} ms", figures))
    floor, one, three = (figures[name] for name in (FLOOR, OURS, OURS_3))
    console.print(
        "export_secrets over the floor: "
        f"{(median(one.wall) - median(floor.wall)) * 1000:.0f} ms wall, "
        f"{(median(one.cpu) - median(floor.cpu)) * 1000:.0f} ms CPU; "
        f"3 secrets take {median(three.wall) / median(one.wall):.2f} times one"
    )


if __name__ == "__main__":
    main()

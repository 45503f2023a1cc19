"""A package of somebody else's with a system, as if it were installed."""

from __future__ import annotations

from pathlib import Path

SYSTEM = '''
from typing import ClassVar

from pydantic import Field, SecretStr

from mlauth.references import SecretReference
from mlauth.systems import Address, Credentials, Exports, Proof


class AcmeCredentials(Credentials):
    """Lets a flow order anvils."""

    system: ClassVar[str] = "acme"
    title: ClassVar[str] = "Acme"

    url: Address = Field(title="URL", description="The shop.", examples=["https://acme.example.com"])
    token: SecretReference = Field(
        title="Token", description="Where the token lives.", examples=["env://CI_ACME_TOKEN"]
    )
    size: int | None = Field(default=None, title="Size", description="The anvils' size.", gt=0)
    spare: SecretReference | None = Field(
        default=None, title="Spare token", description="Where another token lives."
    )

    def prove(self, values, stages):
        return Proof()

    def exports(self, values, proof):
        return Exports({"ACME_TOKEN": values["token"]}, {"ACME_URL": self.url})
'''


def install(
    folder: Path,
    entries: str = "acme = acme_anvils:AcmeCredentials",
    name: str = "acme-anvils",
) -> Path:
    """Put the package into a folder, which is to come to the module search path."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[mlauth.systems]\n{entries}\n")
    (folder / "acme_anvils.py").write_text(SYSTEM)
    return folder

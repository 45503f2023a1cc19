"""mlauth for Prefect: pull steps (`prefect_mlauth.steps`) and blocks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("prefect") is None:
    raise ModuleNotFoundError(
        "prefect_mlauth needs Prefect: install mlauth[prefect]", name="prefect"
    )
if TYPE_CHECKING:
    from prefect_mlauth.blocks import AzureKeyVaultSecret, MLAuthProfile, ReferencedSecret
    from prefect_mlauth.blocks._logins import *  # noqa: F403 - those of our systems

__all__ = ["AzureKeyVaultSecret", "MLAuthProfile", "ReferencedSecret"]


def __getattr__(name: str) -> Any:
    """Import the blocks when one is first used: a pull step needs none, and the import is slow."""
    if not name[:1].isupper():  # Python looks for modules of this package here first
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prefect_mlauth import blocks

    return getattr(blocks, name)


def __dir__() -> list[str]:
    """Name the blocks, too: `prefect block register -m prefect_mlauth` finds them here."""
    from prefect_mlauth.collection import NAMES

    return sorted({*globals(), *NAMES})

"""Prefect blocks: credentials for a part of a flow, configured in the UI, in code or by REST.

A block's document holds references only, never a secret. Each system has a block with the name of
the system's model. It is made from the model when somebody first looks it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_mlauth import logins
from prefect_mlauth.blocks.azure_key_vault_secret import AzureKeyVaultSecret
from prefect_mlauth.blocks.login import block_of
from prefect_mlauth.blocks.profile import MLAuthProfile
from prefect_mlauth.blocks.referenced_secret import ReferencedSecret

if TYPE_CHECKING:
    from prefect_mlauth.blocks._logins import *  # noqa: F403 - those of our systems

__all__ = ["AzureKeyVaultSecret", "MLAuthProfile", "ReferencedSecret"]


def __getattr__(name: str) -> Any:
    """Make the block of a system."""
    for system in logins.names():
        if logins.block_name(system) == name:
            globals()[name] = block = block_of(system)
            return block
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

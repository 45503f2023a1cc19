"""Prefect blocks: credentials for code of a flow, configured in the UI, in code or by REST.

A block's document holds references only, never a secret.
"""

from prefect_mlauth.blocks.azure_key_vault_secret import AzureKeyVaultSecret
from prefect_mlauth.blocks.profile import MLAuthProfile
from prefect_mlauth.blocks.login import ZenMLCredentials

__all__ = ["AzureKeyVaultSecret", "MLAuthProfile", "ZenMLCredentials"]

"""The block `Azure Key Vault Secret`."""

from __future__ import annotations

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from mlauth import stores
from mlauth.errors import InvalidReference
from mlauth.references import SecretReference
from mlauth.stores import Place
from prefect_mlauth.blocks.secret import OneSecret, Timeout

_SCHEME = "azurekv"


class AzureKeyVaultSecret(OneSecret):
    """Reads and writes a secret of Azure Key Vault, as the identity that the flow runs under.

    Example:
        ```python
        from prefect import flow
        from prefect_mlauth import AzureKeyVaultSecret

        @flow
        def use_a_token():
            secret = AzureKeyVaultSecret.load("BLOCK_NAME")
            token = secret.read_secret().decode()
        ```
    """

    _block_type_name = "Azure Key Vault Secret"

    vault: str = Field(
        title="Vault",
        description="The vault: its short name, or its full host such as acme.vault.azure.net.",
    )
    name: str = Field(
        title="Secret name",
        description=(
            "The name of the secret in the vault, never its value. Everybody who can see this "
            "block can read this field, so a value would have to be rotated."
        ),
    )
    version: str | SkipJsonSchema[None] = Field(
        default=None,
        title="Version",
        description="The version to read; by default the latest. Writing makes a new one.",
    )
    timeout: Timeout = 30.0

    def _validate_fields(self) -> None:
        # A message of `parse` would show the name, which may be a value by mistake.
        grammar = stores.grammar(_SCHEME)
        assert grammar is not None
        problem = grammar.problem((self.vault, self.name))
        if problem:
            raise InvalidReference(f"{self._where()}: {problem}")
        problem = grammar.options["version"](self.version) if self.version else None
        if problem:
            raise InvalidReference(f"{self._where()}: version {problem}")

    def _reference(self) -> SecretReference:
        options = {"version": self.version} if self.version else {}
        return SecretReference(_SCHEME, Place((self.vault, self.name), options))

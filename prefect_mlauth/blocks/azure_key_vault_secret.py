"""The block `Azure Key Vault Secret`."""

from __future__ import annotations

import asyncio

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.blocks.abstract import SecretBlock
from pydantic import Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from mlauth import masking, resolve, stores
from mlauth.deadline import Deadline
from mlauth.errors import DeadlineExceeded, InvalidReference, StoreUnavailable
from mlauth.references import SecretReference
from mlauth.resolving import refuse_hosts
from mlauth.stores import Place
from mlauth.storing import SecretStore
from prefect_mlauth.blocks.references_only import ReferencesOnly

_SCHEME = "azurekv"


class AzureKeyVaultSecret(ReferencesOnly, SecretBlock):
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
            "The name of the secret in the vault. Never its value: what is saved here can be read "
            "by everybody who can see this block, so a value would have to be rotated."
        ),
    )
    version: str | SkipJsonSchema[None] = Field(
        default=None,
        title="Version",
        description="The version to read; by default the latest. Writing makes a new one.",
    )
    timeout: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        title="Time limit",
        description="Seconds for reading, or for writing.",
    )

    async def aread_secret(self) -> bytes:
        """Read the secret; see `read_secret`."""
        return await asyncio.to_thread(self._read)

    @async_dispatch(aread_secret)
    def read_secret(self) -> bytes:  # type: ignore[override]  # also awaitable, in async code
        """Read the secret. From async code it is awaited: `await block.read_secret()`.

        Returns:
            The value, as UTF-8; it is masked in logs from then on.

        Raises:
            StoreError: it could not be read; one line.
        """
        return self._read()

    async def awrite_secret(self, secret_data: bytes) -> str:
        """Write a new version of the secret; see `write_secret`."""
        return await asyncio.to_thread(self._write, secret_data)

    @async_dispatch(awrite_secret)
    def write_secret(self, secret_data: bytes) -> str:  # type: ignore[override]  # as above
        """Write a new version of the secret. From async code it is awaited.

        A block with a version goes on reading that version.

        Args:
            secret_data: the value, UTF-8; it is masked in logs from then on.

        Returns:
            The reference of the new version, which `mlauth.resolve` reads.

        Raises:
            StoreError: it was not written, or (`StoreUnavailable`) may not have been; one line.
        """
        return self._write(secret_data)

    def _read(self) -> bytes:
        value = resolve(self._reference(self.version), timeout=self.timeout)
        masking.guard_logging()
        return value.get_secret_value().encode()

    def _write(self, secret_data: bytes) -> str:
        reference = self._reference(None)
        value = SecretStr(secret_data.decode(errors="surrogateescape"))  # refused if not UTF-8
        refuse_hosts([reference])
        masking.register([value.get_secret_value()])
        masking.guard_logging()
        store = SecretStore(_SCHEME)
        deadline = Deadline(self.timeout)
        try:
            version = deadline.run(
                lambda: store.write(reference, value, timeout=deadline.inner().remaining()),
                f"{reference} is not known to be written",
            )
        except DeadlineExceeded as error:
            raise StoreUnavailable(
                f"{error}, from the store or from what says who asks: it may have been written"
            ) from None
        return str(self._reference(version))

    def _validate_fields(self) -> None:
        # Not `parse`, which would show what may be a value in the place of the name.
        grammar = stores.grammar(_SCHEME)
        assert grammar is not None
        problem = grammar.problem((self.vault, self.name))
        if problem:
            raise InvalidReference(f"{self._where()}: {problem}")
        problem = grammar.options["version"](self.version) if self.version else None
        if problem:
            raise InvalidReference(f"{self._where()}: version {problem}")

    def _reference(self, version: str | None) -> SecretReference:
        options = {"version": version} if version else {}
        return SecretReference(_SCHEME, Place((self.vault, self.name), options))

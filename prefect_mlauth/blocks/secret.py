"""The base of the blocks that read and write one secret, as bytes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from prefect._internal.compatibility.async_dispatch import async_dispatch
from prefect.blocks.abstract import SecretBlock
from pydantic import Field, SecretStr

from mlauth import masking, resolve
from mlauth.deadline import Deadline
from mlauth.errors import DeadlineExceeded, StoreUnavailable
from mlauth.references import SecretReference
from mlauth.resolving import refuse_hosts
from mlauth.stores import Place
from mlauth.storing import SecretStore
from prefect_mlauth.blocks.references_only import ReferencesOnly

Timeout = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        title="Time limit",
        description="Seconds for reading, or for writing.",
    ),
]


class OneSecret(ReferencesOnly, SecretBlock, ABC):
    """Reads and writes the secret that a reference names."""

    if TYPE_CHECKING:  # if it was defined here, it would come first in the form
        timeout: Timeout

    async def aread_secret(self) -> bytes:
        """Read the secret; see `read_secret`."""
        return await asyncio.to_thread(self._read)

    @async_dispatch(aread_secret)
    def read_secret(self) -> bytes:  # type: ignore[override]  # also awaitable, in async code
        """Read the secret. In async code, await it: `await block.read_secret()`.

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
        """Write the secret, as a new version if the store has versions. In async code, await it.

        A block with a version goes on reading that version.

        Args:
            secret_data: the value, UTF-8; it is masked in logs from then on.

        Returns:
            The reference to the new value, with its version; `mlauth.resolve` reads it.

        Raises:
            StoreError: the secret was not written; after `StoreUnavailable`, it may have been. One
                line.
        """
        return self._write(secret_data)

    @abstractmethod
    def _reference(self) -> SecretReference:
        """Return the reference of the secret."""

    def _read(self) -> bytes:
        value = resolve(self._reference(), timeout=self.timeout)
        masking.guard_logging()
        return value.get_secret_value().encode()

    def _write(self, secret_data: bytes) -> str:
        reference = _of_version(self._reference(), None)
        value = SecretStr(secret_data.decode(errors="surrogateescape"))  # `write` refuses non-UTF-8
        refuse_hosts([reference])
        masking.register([value.get_secret_value()])
        masking.guard_logging()
        store, deadline = SecretStore(reference.scheme), Deadline(self.timeout)
        try:
            version = deadline.run(
                lambda: store.write(reference, value, timeout=deadline.inner().remaining()),
                f"{reference} is not known to be written",
            )
        except DeadlineExceeded as error:
            raise StoreUnavailable(
                f"{error} from the store or the issuer of its tokens: it may have been written"
            ) from None
        return str(_of_version(reference, version))


def _of_version(reference: SecretReference, version: str | None) -> SecretReference:
    options = {**reference.place.options, "version": version}
    kept = {name: value for name, value in options.items() if value}
    return replace(reference, place=Place(reference.place.parts, kept))

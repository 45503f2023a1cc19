"""The block `Referenced Secret`."""

from __future__ import annotations

from pydantic import Field

from mlauth.errors import InvalidReference
from mlauth.references import SecretReference
from prefect_mlauth.blocks.references_only import SEEN_BY_ALL
from prefect_mlauth.blocks.secret import OneSecret, Timeout


class ReferencedSecret(OneSecret):
    """Reads the secret that a reference names, and writes it if its store can be written to.

    Example:
        ```python
        from prefect import flow
        from prefect_mlauth import ReferencedSecret

        @flow
        def use_a_token():
            secret = ReferencedSecret.load("BLOCK_NAME")
            token = secret.read_secret().decode()
        ```
    """

    _block_type_name = "Referenced Secret"

    reference: str = Field(
        title="Reference",
        description=(
            "Where the secret is, for instance file:///run/secrets/hf/token: never the secret "
            f"itself. {SEEN_BY_ALL}"
        ),
    )
    timeout: Timeout = 30.0

    def _validate_fields(self) -> None:
        try:
            self._reference()
        except InvalidReference as error:
            raise InvalidReference(f"{self._where()}: reference: {error}") from None

    def _reference(self) -> SecretReference:
        return SecretReference.parse(self.reference)

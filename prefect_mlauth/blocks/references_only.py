"""The base of every block: it refuses a secret in the block's document."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import metadata
from typing import Any

from prefect.blocks.core import Block
from prefect.client.schemas import BlockDocument
from pydantic import ConfigDict, ValidationError

from mlauth.errors import InvalidBlock, MLAuthError
from mlauth.shapes import literal_problem
from mlauth.systems import in_one_line


def _project_url(label: str) -> str | None:
    """Return an address from `project.urls` in pyproject.toml, if it is there."""
    for entry in metadata("mlauth").get_all("Project-URL") or ():
        name, _, url = entry.partition(", ")
        if name == label:
            return str(url)
    return None


_DOCS = _project_url("Documentation")
SEEN_BY_ALL = (
    "Everybody who can see this block can read this field, so a secret in it would have to be "
    "rotated."
)


class ReferencesOnly(Block, ABC):
    """A block that cannot be made, saved or loaded with a secret in it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    # Prefect's type for these is a URL, but its own blocks have text there, too.
    _documentation_url = f"{_DOCS}/blocks.md" if _DOCS else None  # type: ignore[assignment]
    _logo_url = _project_url("Logo")  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except ValidationError as error:
            raise InvalidBlock(f"{self._where()}: {in_one_line(error)}") from None

    def block_initialization(self) -> None:
        """Check the fields: Prefect calls this when the block is made, in code or by `load`."""
        self._refuse_literals()

    def _to_block_document(self, *args: Any, **kwargs: Any) -> BlockDocument:
        """Check the fields again before the block is saved: they may have changed."""
        self._refuse_literals()
        return super()._to_block_document(*args, **kwargs)

    def _refuse_literals(self) -> None:
        where = self._where()
        # Prefect itself adds the slug, and names that start with an underscore.
        unknown = [
            name
            for name in self.model_extra or {}
            if name != "block_type_slug" and not name.startswith("_")
        ]
        if unknown:
            raise InvalidBlock(f"{where}: there is no field {unknown[0]!r}; check the spelling")
        for name in type(self).model_fields:
            problem = literal_problem(getattr(self, name))
            if problem:
                raise InvalidBlock(f"{where}: {name}: {problem}")
        try:
            self._validate_fields()
        except MLAuthError as error:
            raise InvalidBlock(str(error)) from None

    @abstractmethod
    def _validate_fields(self) -> None:
        """Raise an MLAuthError if a field is wrong; it names the field and shows no value."""

    @classmethod
    def _where(cls) -> str:
        return f"{cls.get_block_type_name()} block"

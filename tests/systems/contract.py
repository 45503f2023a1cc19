"""What every system's credentials do. A system joins by a subclass that makes some."""

from __future__ import annotations

import os

import pytest
from pydantic import SecretStr, ValidationError

from mlauth import SecretReference
from mlauth.errors import InvalidCredentials
from mlauth.systems import Credentials


class CredentialsContract:
    #: A value with the right shape; a canary.
    value: str

    def make(self) -> Credentials:
        """Return credentials whose every reference would give `value`."""
        raise NotImplementedError

    def secret_fields(self) -> dict[str, dict[str, object]]:
        """Return, by name, the fields to construct with that have a literal for a reference."""
        raise NotImplementedError

    def values(self) -> dict[str, SecretStr]:
        return {name: SecretStr(self.value) for name in self.make().references()}

    def test_every_secret_field_is_a_reference(self) -> None:
        references = self.make().references()
        assert references
        assert all(isinstance(item, SecretReference) for item in references.values())

    def test_a_literal_is_refused_in_one_line_that_names_the_field(self) -> None:
        for name, fields in self.secret_fields().items():
            with pytest.raises(InvalidCredentials) as caught:
                type(self.make()).of("the caller", fields)
            message = str(caught.value)
            assert message.startswith("the caller: ")
            assert name in message
            assert "rotate it" in message
            assert "\n" not in message
            assert self.value not in message

    def test_pydantic_shows_no_input_either(self) -> None:
        for fields in self.secret_fields().values():
            with pytest.raises(ValidationError) as caught:
                type(self.make())(**fields)
            assert self.value not in f"{caught.value} {caught.value!r}"

    def test_every_field_says_what_it_is(self) -> None:
        """In steps, blocks and docs/: see prefect_mlauth."""
        for name, field in type(self.make()).model_fields.items():
            assert field.title, name
            assert (field.description or "").endswith("."), name
        assert type(self.make()).__doc__ != Credentials.__doc__

    def test_an_unknown_field_is_refused(self) -> None:
        with pytest.raises(InvalidCredentials, match="nope: there is no such setting"):
            type(self.make()).of("the caller", {"nope": 1})

    def test_credentials_are_written_as_references_and_read_back(self) -> None:
        credentials = self.make()
        text = credentials.model_dump_json()
        assert type(credentials).model_validate_json(text) == credentials
        assert self.value not in f"{text} {credentials!r}"

    def test_what_is_exported_shows_no_value(self) -> None:
        credentials = self.make()
        credentials.configured(os.environ)
        credentials.well_formed(self.values())
        exports = credentials.exports(self.values(), None)
        assert exports.secrets
        assert {item.get_secret_value() for item in exports.secrets.values()} == {self.value}
        assert self.value not in repr(exports)
        assert not any(self.value in text for text in exports.settings.values())

    def test_a_value_of_the_wrong_shape_is_refused_without_showing_it(self) -> None:
        credentials = self.make()
        values = {name: SecretStr(f"{self.value}\0") for name in credentials.references()}
        with pytest.raises(InvalidCredentials) as caught:
            credentials.well_formed(values)
        assert self.value not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "://" in str(caught.value)  # says which reference

from __future__ import annotations

import pytest
from pydantic import SecretStr

from mlauth import EnvironmentSecrets
from mlauth.errors import InvalidCredentials
from tests.systems.contract import CredentialsContract


class TestEnvironmentSecrets(CredentialsContract):
    value = "canary-value"

    def make(self) -> EnvironmentSecrets:
        return EnvironmentSecrets.of("test", {"env": {"A": "memory://a", "B": "memory://b"}})

    def secret_fields(self) -> dict[str, dict[str, object]]:
        return {"env.A": {"env": {"A": self.value}}}


def test_every_name_that_is_refused_is_named() -> None:
    with pytest.raises(InvalidCredentials) as caught:
        EnvironmentSecrets.of(
            "export_secrets", {"env": {"PATH": "env://A", "B": "env://B", "LD_X": "env://C"}}
        )
    assert str(caught.value) == (
        "export_secrets: env: PATH changes how programs start: a secret is never put there; "
        "LD_X changes how programs start: a secret is never put there"
    )


def test_values_that_no_variable_can_hold_are_all_named() -> None:
    credentials = EnvironmentSecrets.of("x", {"env": {"A": "memory://a", "B": "memory://b"}})
    with pytest.raises(InvalidCredentials) as caught:
        credentials.well_formed({"A": SecretStr("a\0"), "B": SecretStr("b" * 200_000)})
    assert "memory://a has a NUL" in str(caught.value)
    assert "memory://b is too long" in str(caught.value)

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from mlauth import EnvironmentSecrets
from mlauth.errors import InvalidCredentials
from mlauth.testing.systems import SystemContract


class TestEnvironmentSecrets(SystemContract):
    system = "env"
    secrets: ClassVar = {"A": "canary-value-1f3c", "B": "canary-other-9d2e"}
    spoilt = ("{}\0",)  # the user's own: anything else may be meant

    def fields(self, secrets: Mapping[str, str]) -> dict[str, Any]:
        return {"env": dict(secrets)}

    def owned(self) -> tuple[str, ...]:
        return tuple(self.secrets)


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
    problem = credentials.malformed({"A": SecretStr("a\0"), "B": SecretStr("b" * 200_000)}) or ""
    assert "memory://a has a NUL" in problem
    assert "memory://b is too long" in problem


def test_any_other_text_is_a_value() -> None:
    credentials = EnvironmentSecrets.of("x", {"env": {"A": "memory://a"}})
    for text in ("-----BEGIN X\nY", '"quoted"', "changeme", "env://OTHER"):
        assert credentials.malformed({"A": SecretStr(text)}) is None


@pytest.mark.parametrize(
    "name", ["ZENML_STORE_API_KEY", "ZENML_CONFIG_PATH", "zenml_store_url", "ZENML_SERVER"]
)
def test_the_variable_of_a_system_is_left_to_it(name: str) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        EnvironmentSecrets.of("export_secrets", {"env": {name: "env://A"}})
    assert str(caught.value) == (
        f"export_secrets: env: {name} belongs to ZenML: use zenml_login or the profile's [zenml]; "
        "a setting that is no secret is set where the worker or the container gets its variables"
    )


@pytest.mark.process
def test_other_variables_load_no_system() -> None:
    code = (
        "import sys; from mlauth.systems.env import EnvironmentSecrets\n"
        "EnvironmentSecrets(env={'HF_TOKEN': 'env://A', 'DATABASE_URL': 'env://B'})\n"
        "print([name for name in sys.modules if name.startswith('mlauth.systems.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['mlauth.systems.env']\n"

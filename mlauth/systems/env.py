"""Exports secrets as variables that the user names, for systems that mlauth does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from mlauth.references import SecretReference
from mlauth.stages import Stages
from mlauth.systems import Credentials, Exports, Proof, owner_problem
from mlauth.text import plain
from mlauth.variables import name_problem, value_problem


def _with_allowed_names(env: dict[str, SecretReference]) -> dict[str, SecretReference]:
    problems = [
        f"{plain(name)} {why}" for name in env if (why := name_problem(name) or owner_problem(name))
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return env


Variables = Annotated[dict[str, SecretReference], AfterValidator(_with_allowed_names)]


class EnvironmentSecrets(Credentials):
    """Sets environment variables to secrets; later steps can use them as `{{ $NAME }}`."""

    system: ClassVar[str] = "env"
    title: ClassVar[str] = "Environment"

    env: Variables = Field(
        title="Variables",
        description=(
            "A reference for each name of a variable. Names that change how programs work are "
            "refused."
        ),
    )

    def references(self) -> dict[str, SecretReference]:
        """See `Credentials.references`."""
        return dict(self.env)

    def variables(self) -> tuple[str, ...]:
        """See `Credentials.variables`."""
        return tuple(self.env)

    def value_problem(self, field: str, value: SecretStr) -> str | None:
        """Say why a variable cannot have a value, or return None; any other text is allowed."""
        return value_problem(field, value)

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """There is no service to ask; see `Credentials.prove`."""
        return Proof()

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        """Return the values as they are; see `Credentials.exports`."""
        return Exports(dict(values))

"""Secrets that are exported under names of the user's, for systems that mlauth does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from mlauth.errors import InvalidCredentials
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
        description=("Variable name to reference. Names that change what programs do are refused."),
    )

    def references(self) -> dict[str, SecretReference]:
        """See `Credentials.references`."""
        return dict(self.env)

    def hosts(self) -> tuple[str, ...]:
        """See `Credentials.hosts`: mlauth sends the values to nobody."""
        return ()

    def variables(self) -> tuple[str, ...]:
        """See `Credentials.variables`."""
        return tuple(self.env)

    def configured(self, environment: Mapping[str, str]) -> list[str]:
        """See `Credentials.configured`."""
        return []

    def well_formed(self, values: Mapping[str, SecretStr]) -> None:
        """Refuse what cannot be an environment variable; see `Credentials.well_formed`."""
        problems = [
            f"the value of {self.env[name]} {why}"
            for name, value in values.items()
            if (why := value_problem(name, value))
        ]
        if problems:
            raise InvalidCredentials("; ".join(problems))

    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """There is no service to ask; see `Credentials.prove`."""
        return Proof()

    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        """Return the values as they are; see `Credentials.exports`."""
        return Exports(dict(values))

"""`mlauth.toml`: the credentials of each environment (dev, test, prod). Safe to commit.

Read from the file alone, so that no variable can redirect prod: of the environment only the
profile's name, the file's place and the time limit count.
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import (
    BaseSettings,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from mlauth.checking import DEFAULT_FILE
from mlauth.errors import InvalidProfile
from mlauth.resolving import Expired
from mlauth.systems import Credentials, in_one_line
from mlauth.systems.env import EnvironmentSecrets, Variables
from mlauth.systems.zenml import Administrator, ZenMLCredentials
from mlauth.text import plain


class Profile(BaseModel):
    """The credentials of one environment.

    Attributes:
        zenml: the service account of a ZenML server.
        zenml_admin: who may rotate the account's key (`mlauth rotate`); for nothing else.
        env: other secrets, variable name to reference.
        expired: whether a secret that its store calls expired or not yet valid (Key Vault hands
            both out) is an error, or is used with a warning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    zenml: ZenMLCredentials | None = None
    zenml_admin: Administrator | None = None
    env: Variables = {}
    expired: Expired = "refuse"

    def credentials(self) -> list[Credentials]:
        """Return the credentials that the profile has."""
        found: list[Credentials] = [self.zenml] if self.zenml else []
        if self.env:
            found.append(EnvironmentSecrets(env=self.env))
        return found


class Settings(BaseSettings):
    """What mlauth takes from the environment.

    Attributes:
        profile: `MLAUTH_PROFILE`, the name of a profile.
        config: `MLAUTH_CONFIG`, the path of the file with the profiles.
        timeout: `MLAUTH_TIMEOUT`, the time limit of commands in seconds.
    """

    model_config = SettingsConfigDict(env_prefix="MLAUTH_", hide_input_in_errors=True)

    profile: str | None = None
    config: str = DEFAULT_FILE
    timeout: float = 30.0


def settings() -> Settings:
    """Return the settings.

    Raises:
        InvalidProfile: a variable cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        names = in_one_line(error, lambda location: f"MLAUTH_{str(location[0]).upper()}")
        raise InvalidProfile(f"{names}: correct the variable") from None


class _File(BaseModel):
    """The file's outer shape; of the profiles only the one asked for is validated.

    No `BaseSettings`: that takes some names of the file as options of its own (`_cli_parse_args`).
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    profiles: dict[str, dict[str, Any]] = {}


def load_profile(name: str, config: str = DEFAULT_FILE) -> Profile:
    """Read a profile.

    Args:
        name: as in `[profiles.NAME.…]`.
        config: the file's path.

    Raises:
        InvalidProfile: the file is not there or not valid, or has no such profile; one line
            that names file and key, and never shows what is written there.
    """
    profiles = _profiles(config)
    if name not in profiles:
        known = ", ".join(map(plain, profiles)) or "none"
        raise InvalidProfile(f"{config} has no profile {name!r} (it has: {known})")
    try:
        profile = Profile.model_validate(profiles[name])
    except ValidationError as error:
        raise InvalidProfile(
            f"{config}: {in_one_line(error, lambda key: _dotted('profiles', name, *key))}"
        ) from None
    if not profile.credentials():
        raise InvalidProfile(f"{config}: profiles.{plain(name)} is empty: give it [zenml] or [env]")
    return profile


def _profiles(config: str) -> dict[str, dict[str, Any]]:
    if not os.path.isfile(config):
        where = "" if os.path.isabs(config) else f" in {_working_directory()}"
        raise InvalidProfile(
            f"there is no file {config}{where}: name it with --config, config= or MLAUTH_CONFIG"
        )
    try:
        return _File.model_validate(TomlConfigSettingsSource(Settings, config)()).profiles
    except ValidationError as error:
        raise InvalidProfile(f"{config}: {in_one_line(error)}") from None
    except OSError as error:
        raise InvalidProfile(f"{config} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidProfile(f"{config} is not UTF-8 text: store it as UTF-8") from None
    except RecursionError:
        raise InvalidProfile(f"{config} is not valid TOML: too many brackets in brackets") from None
    except ValueError as error:  # tomllib's, which names line and column, and no content
        raise InvalidProfile(f"{config} is not valid TOML, correct it: {error}") from None


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "the working directory, which was deleted"


def _dotted(*parts: int | str) -> str:
    return ".".join(plain(str(part)) for part in parts)

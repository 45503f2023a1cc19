"""`mlauth.toml`: the credentials of each environment (dev, test, prod). Safe to commit.

Profiles are read from the file alone, so that no variable can redirect prod. The environment gives
only the name of the profile, the path of the file and the time limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mlauth import systems
from mlauth.errors import InvalidProfile, UnknownSystem
from mlauth.resolving import Expired
from mlauth.systems import Credentials, in_one_line
from mlauth.text import plain

DEFAULT_FILE = "mlauth.toml"


class Profile(BaseModel):
    """The credentials of one environment.

    In the file, it has a section for each system, with the system's name (`[env]` has names of
    variables and their references). A system may have more sections (`[<system>_<part>]`), and
    there is the setting `expired`.

    Attributes:
        systems: the credentials, by system.
        parts: the content of the other sections, by the name of the section.
        expired: what to do with a secret that its store calls expired or not yet valid, where the
            store hands it out all the same: `refuse` is an error, `warn` uses it with a warning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    systems: Mapping[str, SerializeAsAny[Credentials]] = {}
    parts: Mapping[str, SerializeAsAny[BaseModel]] = {}
    expired: Expired = "refuse"

    def credentials(self) -> list[Credentials]:
        """Return the credentials that the profile has."""
        return list(self.systems.values())

    @model_validator(mode="wrap")
    @classmethod
    def _from_sections(cls, content: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if not isinstance(content, Mapping):
            return handler(content)
        found: dict[str, dict[str, Any]] = {"systems": {}, "parts": {}}
        problems: list[InitErrorDetails] = []
        for name, section in content.items():
            if name == "expired" or section is None or (name, section) == ("env", {}):
                continue
            try:
                where, value = _section(str(name), section)
                found[where][name] = value
            except ValidationError as error:
                # A person writes variables right below `[env]`, so the field's name is left out.
                at = () if name == "env" else (name,)
                problems += _located(error, at)
            except UnknownSystem as error:
                problems.append(_problem("unknown_section", str(error), (str(name),)))
        expired = {"expired": content["expired"]} if "expired" in content else {}
        try:
            profile = handler({**found, **expired})
        except ValidationError as error:
            problems += _located(error, ())
        else:
            if not problems:
                return profile
        raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)


def _section(name: str, section: Any) -> tuple[str, BaseModel]:
    """Return where a profile keeps a section, and what is in it."""
    if name == "env":
        return "systems", systems.load(name).model_validate({"env": section})
    for each in systems.names():
        if name == each:
            return "systems", systems.load(each).model_validate(section)
        if name.startswith(f"{each}_"):
            part = systems.load(each).parts.get(name.removeprefix(f"{each}_"))
            if part is not None:
                return "parts", part.model_validate(section)
    raise UnknownSystem(
        f"there is no such setting; check the spelling (the systems are "
        f"{', '.join(systems.names())})"
    )


def _located(error: ValidationError, at: tuple[str, ...]) -> Iterator[InitErrorDetails]:
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        yield _problem(each["type"], each["msg"], (*at, *each["loc"]))


def _problem(kind: str, line: str, at: tuple[int | str, ...]) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, line), loc=at, input=None)


class Settings(BaseModel):
    """The settings that mlauth takes from the environment.

    Attributes:
        profile: `MLAUTH_PROFILE`, the name of a profile.
        config: `MLAUTH_CONFIG`, the path of the file with the profiles.
        timeout: `MLAUTH_TIMEOUT`, the time limit of commands in seconds.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    profile: str | None = None
    config: str = DEFAULT_FILE
    timeout: float = 30.0


def settings() -> Settings:
    """Return the settings.

    Raises:
        InvalidProfile: a variable cannot be used.
    """
    variables = {name: f"MLAUTH_{name.upper()}" for name in Settings.model_fields}
    given = {name: os.environ[each] for name, each in variables.items() if each in os.environ}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        names = in_one_line(error, lambda location: variables[str(location[0])])
        raise InvalidProfile(f"{names}: correct the variable") from None


class _File(BaseModel):
    """The file's outer shape. Of the profiles, only the requested one is validated.

    This is no `BaseSettings`, which would take some names in the file as its own options
    (`_cli_parse_args`).
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    profiles: dict[str, dict[str, Any]] = {}


def load_profile(name: str, config: str = DEFAULT_FILE) -> Profile:
    """Read a profile.

    Args:
        name: the NAME in `[profiles.NAME.…]`.
        config: the file's path.

    Raises:
        InvalidProfile: the file is not there or not valid, or has no such profile. The message is
            one line that names the file and the key, and never shows the content.
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
        known = ", ".join(f"[{each}]" for each in systems.names())
        raise InvalidProfile(f"{config}: profiles.{plain(name)} is empty: give it one of {known}")
    return profile


def _profiles(config: str) -> dict[str, dict[str, Any]]:
    # This import takes 30 ms, and only files need it.
    from pydantic_settings import BaseSettings, TomlConfigSettingsSource

    if not os.path.isfile(config):
        where = "" if os.path.isabs(config) else f" in {_working_directory()}"
        raise InvalidProfile(
            f"there is no file {config}{where}: name it with --config, config= or MLAUTH_CONFIG"
        )
    try:
        return _File.model_validate(TomlConfigSettingsSource(BaseSettings, config)()).profiles
    except ValidationError as error:
        raise InvalidProfile(f"{config}: {in_one_line(error)}") from None
    except OSError as error:
        raise InvalidProfile(f"{config} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidProfile(f"{config} is not UTF-8 text: store it as UTF-8") from None
    except RecursionError:
        raise InvalidProfile(f"{config} is not valid TOML: too many brackets in brackets") from None
    except ValueError as error:  # tomllib's error names line and column, but no content
        raise InvalidProfile(f"{config} is not valid TOML, correct it: {error}") from None


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "the working directory, which was deleted"


def _dotted(*parts: int | str) -> str:
    return ".".join(plain(str(part)) for part in parts)

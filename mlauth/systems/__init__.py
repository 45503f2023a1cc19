"""Credentials: a typed model for each system that a flow talks to. Each system has one module.

A model knows its fields (each secret field is a reference) and the environment variables that the
system's own client reads. It proves its values against the real service.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from inspect import isabstract
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mlauth import plugins
from mlauth.errors import InvalidCredentials, UnknownSystem
from mlauth.forks import load as load_module
from mlauth.net.route import http_problem
from mlauth.never_pickled import NeverPickled
from mlauth.references import SecretReference
from mlauth.shapes import (
    address_problem,
    host_of,
    literal_problem,
    secret_problem,
    text_problem,
)
from mlauth.stages import Stages
from mlauth.text import plain

C = TypeVar("C", bound="Credentials")

_GROUP = "mlauth.systems"  # the entry points with which other packages add systems
# One line for each system.
_OURS = {
    "env": "mlauth.systems.env:EnvironmentSecrets",
    "zenml": "mlauth.systems.zenml:ZenMLCredentials",
}


class Scope(Protocol):
    """Keeps the state of a system's client, in this process or on disk, apart from other runs.

    A client that already runs in this process may have to use another directory, and read the
    variables again. A process that starts with the variables set needs only the directory.

    Each client has a class of scopes of its own: an activation keeps the state of each class once.
    """

    def enter(self, folder: str) -> Mapping[str, str]:
        """Make the files that the client needs in the run's private folder.

        Args:
            folder: it exists, belongs to this run alone, and is removed when the run ends.

        Returns:
            The variables that make the client use the files.

        Raises:
            OSError: the files cannot be made.
        """

    def keep(self) -> Callable[[], None]:
        """Remember the state of the client in this process; changes nothing.

        Returns:
            A function that restores this state; it may be called again.
        """

    def swap(self) -> None:
        """Make the client in this process read the variables again.

        An interrupt may come at any point of it.
        """


@dataclass
class Exports(NeverPickled):
    """The variables that a system wants in the environment, and its scope.

    Attributes:
        secrets: variables whose values are masked in logs.
        settings: the other variables.
        emptied: variables that are set to an empty text, because they may hold the value of
            another account.
        direct: hosts that clients ask without a proxy.
        scope: keeps the state of the system's client apart, if it has any.
    """

    secrets: dict[str, SecretStr] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    emptied: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    scope: Scope | None = None


@dataclass
class Proof(NeverPickled):
    """Answers of a service that exports need. The report has account and facts (`Stages`).

    Attributes:
        secrets: for instance the token of a login; the system chooses the names.
        ids: the service's ids for things that fields call by name.
    """

    secrets: dict[str, SecretStr] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


class _Address:
    """Marks a field that is the address of a service."""


Address: TypeAlias = Annotated[str, _Address()]


class Credentials(BaseModel):
    """The base of every system's credentials.

    A field has its name, type, title, description and default only in the model. Steps, blocks and
    the tables in docs/ are made from it, and their introduction from the class's docstring. A field
    with the service's URL has the type `Address`, and a field with a secret has the type
    `SecretReference`.

    Attributes:
        system: its name everywhere: section, step `<name>_login`, extra.
        title: its name for people.
        found_in: for each field, the variable in which the system's own client finds it.
        near_misses: wrong names that people write for these variables, and the right names.
        otherwise: what the client would do if a variable is missing, such as "run elsewhere".
        parts: more sections of the system: for `[<system>_<part>]`, the part and its model.
        rotation: the module that gives an account a new key, if there is one (`mlauth.rotating`).
        owned: the variables that only this system sets or empties; `*` stands for any characters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    system: ClassVar[str]
    title: ClassVar[str]
    found_in: ClassVar[Mapping[str, str]] = {}
    near_misses: ClassVar[Mapping[str, str]] = {}
    otherwise: ClassVar[str] = ""
    parts: ClassVar[Mapping[str, type[BaseModel]]] = {}
    rotation: ClassVar[str] = ""
    owned: ClassVar[tuple[str, ...]] = ()

    @field_validator("*")
    @classmethod
    def _is_sound(cls, value: Any, info: ValidationInfo) -> Any:
        is_address = isinstance(value, str) and info.field_name in cls._addresses()
        if is_address:
            problem = address_problem(value)
        else:
            problem = (text_problem if isinstance(value, str) else literal_problem)(value)
        if problem:
            raise ValueError(problem)
        return value.rstrip("/") if is_address else value

    @model_validator(mode="after")
    def _is_safe(self: C) -> C:
        for name in self._addresses():
            url = getattr(self, name)
            problem = None if url is None or self.insecure else http_problem(url)
            if problem:
                allowed = "allow_insecure" in type(self).model_fields
                raise ValueError(
                    f"{name}: {problem}"
                    + (", or set allow_insecure if the network is protected otherwise" * allowed)
                )
        return self

    @property
    def insecure(self) -> bool:
        """Whether http may go beyond this machine: the field `allow_insecure`, if there is one."""
        return getattr(self, "allow_insecure", False)

    @classmethod
    def _addresses(cls) -> list[str]:
        return [
            name
            for name, field in cls.model_fields.items()
            if any(isinstance(each, _Address) for each in field.metadata)
        ]

    @classmethod
    def of(cls: type[C], where: str, fields: Mapping[str, Any]) -> C:
        """Make credentials from fields that a person wrote.

        Args:
            where: the name of the place in messages, for instance `zenml_login`.
            fields: the fields by name.

        Raises:
            InvalidCredentials: one line that names every field that is wrong, and no value.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise InvalidCredentials(f"{where}: {in_one_line(error)}") from None

    @classmethod
    def from_environment(cls: type[C], environment: Mapping[str, str]) -> C | None:
        """Return the credentials that the system's own client finds in an environment, or None.

        Secret fields are `env://` references.

        Raises:
            InvalidCredentials: some of the variables are there, but the client cannot use them.
        """
        cls.refuse_near_misses(environment)
        return cls._from_variables(environment, cls.found_in)

    @classmethod
    def refuse_near_misses(cls, environment: Mapping[str, str]) -> None:
        """Refuse a near miss if the variable with the right name is missing.

        Raises:
            InvalidCredentials: there is a near miss.
        """
        for wrong, right in cls.near_misses.items():
            if wrong in environment and not environment.get(right):
                which = f", which would {cls.otherwise}" if cls.otherwise else ""
                raise InvalidCredentials(
                    f"{wrong} is not read by {cls.title}{which}: the name is {right}"
                )

    @classmethod
    def _from_variables(
        cls: type[C], environment: Mapping[str, str], variables: Mapping[str, str]
    ) -> C | None:
        # This reads no value of a secret, because tracebacks may show local variables.
        there = {
            each: f"env://{name}" if cls._is_secret(each) else environment[name]
            for each, name in variables.items()
            if environment.get(name)
        }
        if not there:
            return None
        for each, name in variables.items():
            if each not in there and cls.model_fields[each].is_required():
                which = f": {cls.title} would {cls.otherwise} here" if cls.otherwise else ""
                raise InvalidCredentials(f"{name} is not set{which}")
        try:
            return cls(**there)
        except ValidationError as error:
            line = in_one_line(error)
        for each, name in variables.items():
            line = re.sub(f"(^|; ){each}: ", rf"\1{name}: ", line)
        raise InvalidCredentials(line)

    @classmethod
    def _is_secret(cls, field: str) -> bool:
        kind = cls.model_fields[field].annotation
        return SecretReference in (kind, *get_args(kind))

    def references(self) -> dict[str, SecretReference]:
        """Return the references among the fields, by field name."""
        return {
            name: value
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), SecretReference)
        }

    def hosts(self) -> tuple[str, ...]:
        """Return the hosts that the values are sent to: names or addresses, without ports."""
        urls = [getattr(self, name) for name in self._addresses()]
        return tuple(host_of(url) for url in urls if url is not None)

    def ca(self, environment: Mapping[str, str]) -> str | None:
        """Return the CA bundle for the service, or None if it needs no CA of its own.

        Returns:
            A path or PEM text; by default the field `ca_bundle`, if there is one.
        """
        return getattr(self, "ca_bundle", None)

    @classmethod
    def owns(cls, variable: str) -> bool:
        """Say whether a variable is in `owned`, whatever the case of its letters."""
        return any(fnmatchcase(variable.upper(), pattern.upper()) for pattern in cls.owned)

    def variables(self) -> tuple[str, ...]:
        """Return the variables whose names a person chose; `owned` has those of the system."""
        return ()

    def configured(self, environment: Mapping[str, str]) -> list[str]:
        """Look for variables that disturb these credentials.

        Returns:
            Warnings, one line each.

        Raises:
            InvalidCredentials: with this environment, the credentials cannot work.
        """
        return [
            f"{wrong} is ignored by {self.title} (it reads {right}): remove it"
            for wrong, right in self.near_misses.items()
            if wrong in environment
        ]

    def malformed(self, values: Mapping[str, SecretStr]) -> str | None:
        """Say in one line which values cannot be right, without showing them, or return None."""
        problems = [
            f"the value of {reference} {problem}"
            for name, reference in self.references().items()
            if (problem := self.value_problem(name, values[name]))
        ]
        return "; ".join(problems) or None

    def value_problem(self, field: str, value: SecretStr) -> str | None:
        """Say why a field cannot have a value, without showing the value, or return None.

        By default, a value must look like a key or token. A system whose secret is something else
        (free text, a certificate) overrides this.
        """
        return secret_problem(value.get_secret_value()) or self.well_formed(field, value)

    def well_formed(self, field: str, value: SecretStr) -> str | None:
        """Say why a value does not have the shape of the system's own keys, or return None.

        `secret_problem` has already refused white space, quotes, placeholders and the like.
        """
        return None

    @abstractmethod
    def prove(self, values: Mapping[str, SecretStr], stages: Stages) -> Proof:
        """Prove that the service takes the values, stage by stage.

        Args:
            values: the values by field; each is well-formed.
            stages: makes the connections, and records the stages and the service's answers.

        Raises:
            MLAuthError: a stage did not pass.
        """

    @abstractmethod
    def exports(self, values: Mapping[str, SecretStr], proof: Proof | None) -> Exports:
        """Return the exports.

        Args:
            values: the values by field; each is well-formed.
            proof: the result of `prove`, or None if the service was not asked or gave no answer.

        Raises:
            InvalidCredentials: there is no proof, but the exports depend on it.
        """


def names() -> Iterator[str]:
    """Yield the names of all systems: ours, then those of other installed packages.

    Other packages are searched only if the caller goes on after ours, because it takes time.
    """
    yield from _OURS
    yield from sorted(set(plugins.entries(_GROUP)) - set(_OURS))


def place(name: str) -> str | None:
    """Return where a system's credentials are, as `module:Class`; None for an unknown system."""
    if name in _OURS:
        return _OURS[name]
    given = plugins.entries(_GROUP).get(name)
    return given[0].value if given else None


def load(name: str) -> type[Credentials]:
    """Import a system's credentials.

    Raises:
        UnknownSystem: no system has this name, or its package is broken.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        return getattr(load_module(module), attribute)  # type: ignore[no-any-return]
    if name not in plugins.entries(_GROUP):
        raise UnknownSystem(f"no system is called {name!r}; mlauth knows {', '.join(names())}")
    return plugins.load(  # type: ignore[no-any-return]
        _GROUP, name, UnknownSystem, lambda given: _given_problem(name, given)
    )


def _given_problem(name: str, given: Any) -> str | None:
    if not (isinstance(given, type) and issubclass(given, Credentials)):
        return "is no mlauth.systems.Credentials"
    called = getattr(given, "system", None)
    if called != name:
        return f"is the system {plain(str(called))!r}, under the name of another"
    if isabstract(given) or not isinstance(getattr(given, "title", None), str):
        return "has no title, no prove or no exports"
    # Its block would take the place of ours: Prefect knows a block by its title.
    taken = {_letters(load(each).title): each for each in _OURS}.get(_letters(given.title))
    return f"has the title of the system {taken!r}" if taken else None


def _letters(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


def usable() -> tuple[list[type[Credentials]], list[str]]:
    """Return the credentials of all systems, and a line for each system with a broken package."""
    found, broken = [], []
    for name in names():
        try:
            found.append(load(name))
        except UnknownSystem as error:
            broken.append(str(error))
    return found, broken


def owner_problem(name: str) -> str | None:
    """Say which system owns a variable, so that a user may not set it, or return None.

    Only the system whose name the variable starts with (`ZENML_…`) is loaded for this.
    """
    word, _, _ = name.lower().partition("_")
    owner = load(word) if word in _OURS else None
    if owner is None or not owner.owns(name):
        return None
    return (
        f"belongs to {owner.title}: use {word}_login or the profile's [{word}]; a setting that is "
        "no secret is set where the worker or the container gets its variables"
    )


def in_one_line(
    error: ValidationError, key: Callable[[tuple[int | str, ...]], str] | None = None
) -> str:
    """Return the problems that pydantic found as one line that repeats no input.

    Args:
        error: pydantic's error.
        key: turns a location into the name that the user knows; by default, its parts are joined
            with dots.
    """
    name = key or (lambda location: ".".join(plain(str(part)) for part in location))
    lines = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such setting; check the spelling"
        elif item["type"] == "missing":
            message = "is missing: add it"
        lines.append(f"{name(item['loc'])}: {message}" if item["loc"] else message)
    return "; ".join(lines)

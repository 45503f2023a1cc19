"""Stores: the places where secrets live. Each store has one module, named after its scheme.

A store's module has `GRAMMAR` (the form of its references; importing it needs no SDK) and `Store`
(reads a place; it imports the SDK on the first read). `mlauth.storing` does everything that is the
same for all stores: the sentence around an error, empty values, UTF-8, sizes and `#key`.

Another distribution adds a store with an entry point in the group `mlauth.stores`. Its name is the
scheme and its value is the module. It cannot replace a store of mlauth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import quote

from pydantic import SecretStr

from mlauth import plugins
from mlauth.errors import InvalidReference, StoreError, StoreUnavailable, StoreUnreachable
from mlauth.forks import load
from mlauth.never_pickled import NeverPickled

if TYPE_CHECKING:
    from mlauth.net.faults import Fault

_GROUP = "mlauth.stores"
_OURS = {
    "azurekv": "mlauth.stores.azurekv",
    "env": "mlauth.stores.env",
    "file": "mlauth.stores.file",
    "memory": "mlauth.stores.memory",
}
MOST_BYTES = 1024 * 1024  # far more than any secret of a service has


@dataclass(frozen=True)
class Place:
    """The part of a reference that the store reads.

    Attributes:
        parts: the decoded texts between the slashes; a part can have a slash in it (`%2F`).
        options: the options after `?`, for instance `{"version": "3"}`.
    """

    parts: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A read-only copy in a fixed order: so equal places have the same hash and the same text.
        object.__setattr__(self, "options", MappingProxyType(dict(sorted(self.options.items()))))

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        text = "/".join(quote(part, safe=":@!$&()*+,;=~") for part in self.parts)
        options = (
            f"{quote(name, safe='')}={quote(value, safe='')}"
            for name, value in self.options.items()
        )
        return f"{text}?{'&'.join(options)}" if self.options else text

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.parts, dict(self.options))


@dataclass(frozen=True)
class Grammar:
    """The form of a store's references.

    Attributes:
        form: an example for messages.
        problem: returns what is wrong with the parts of a place, or None.
        options: the names of the options that may follow `?`, each with a function that returns
            what is wrong with its value, or None. `version` pins a version, which can be read but
            not written.
        most_bytes: the size of the largest secret that can be written.
    """

    form: str
    problem: Callable[[tuple[str, ...]], str | None]
    options: Mapping[str, Callable[[str], str | None]] = field(default_factory=dict)
    most_bytes: int = MOST_BYTES


def named(*names: str) -> Callable[[tuple[str, ...]], str | None]:
    """Return a `Grammar.problem` for places with one part for each name.

    Args:
        names: the names of the parts, for instance "vault" and "secret".
    """

    def problem(parts: tuple[str, ...]) -> str | None:
        for name, part in zip(names, (*parts, *[""] * len(names)), strict=False):
            if not part:
                return f"the {name} is missing"
        if len(parts) > len(names):
            return (
                f"there is one part too many after the {names[-1]} (write a slash in a name as %2F)"
            )
        return None

    return problem


@dataclass(frozen=True)
class StoredSecret(NeverPickled):
    """A secret as a store returns it.

    Attributes:
        value: the whole value. Bytes are decoded with `errors="surrogateescape"`; `mlauth.storing`
            then refuses values that are not UTF-8.
        version: the store's name for this version, if it has versions.
        outdated: the reason why the secret should not be used now, if the store knows one.
    """

    value: SecretStr
    version: str | None = None
    outdated: str | None = None


@dataclass(frozen=True)
class Access:
    """How a place would be read, in words for people.

    Attributes:
        place: the place in the store's own terms.
        identity: the identity that would read it.
        notes: more facts for people, one line each.
    """

    place: str
    identity: str
    notes: tuple[str, ...] = ()


class Store(Protocol):
    """The methods of every store. The constructor does no I/O.

    The message of an error is one line that says what went wrong and what to do, for instance
    "there is no such secret; check the name". mlauth puts the reference and the failed action
    before it.
    """

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a whole secret.

        Args:
            place: a place that the grammar accepts.
            timeout: seconds that may pass, retries included; more than 0.

        Raises:
            StoreError: `SecretNotFound`, `SecretDenied`, `SecretUnusable`, `StoreUnavailable`
                (throttled, 5xx, too late), `StoreUnreachable`, `IdentityUnavailable` or
                `MissingDependency`.
        """
        ...

    def describe(self, place: Place) -> Access:
        """Say where a place is and which identity would read it, without reading it."""
        ...


@runtime_checkable
class WritableStore(Store, Protocol):
    """The methods of a store that can also write secrets."""

    def write(
        self, place: Place, value: SecretStr, *, timeout: float, before: Callable[[], None]
    ) -> str | None:
        """Write a whole secret.

        Args:
            place: a place that the grammar accepts, without a version.
            value: the new value: text of 1 byte to `Grammar.most_bytes`.
            timeout: seconds that may pass, retries included; no write begins after them.
            before: called right before each attempt to write; its errors are raised as they are.

        Returns:
            The store's name for the new version, if it has versions.

        Raises:
            StoreError: see `read`; the secret is unchanged. Only after `StoreUnavailable`, it may
                have been written.
        """
        ...

    def prove_writable(self, place: Place, *, timeout: float) -> None:
        """Prove that a secret can be written, as far as possible without changing a value.

        Args:
            place: a place that the grammar accepts, without a version.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: see `write`.
        """
        ...


@runtime_checkable
class RemoteStore(Store, Protocol):
    """The methods of a store that asks a service.

    It may have an attribute `identity`, too: the variables that choose its identity, as patterns of
    `fnmatch`. An activation that changes such a variable keeps the worker's own value, and the
    store reads it from `mlauth.record.own_environment`.
    """

    def hosts(self, place: Place) -> tuple[str, ...]:
        """Return the hosts that get a credential when a place is read or written.

        They are names or addresses, without ports. This does no I/O.
        """
        ...


def schemes() -> tuple[str, ...]:
    """Return the schemes of all stores: ours, then those of other distributions."""
    return (*_OURS, *sorted(set(plugins.entries(_GROUP)) - set(_OURS)))


def grammar(scheme: str) -> Grammar | None:
    """Return the grammar of a scheme's references, or None if no store has that scheme.

    Raises:
        InvalidReference: the store of another distribution cannot be used.
    """
    module = _module(scheme)
    return None if module is None else module.GRAMMAR


def usable() -> list[str]:
    """Return the schemes of all stores that can be used; the packages of others are broken."""
    found = []
    for scheme in schemes():
        with suppress(InvalidReference):
            if _module(scheme):
                found.append(scheme)
    return found


def identity_variables() -> tuple[str, ...]:
    """Return the variables that choose the identities of stores, as patterns of `fnmatch`."""
    identities = (getattr(_module(scheme).Store, "identity", ()) for scheme in usable())
    return tuple(name for each in identities for name in each)


def new_store(scheme: str) -> Store:
    """Make the store of a known scheme."""
    store: Store = _module(scheme).Store()
    return store


def outcome(fault: Fault) -> StoreError:
    """Turn a fault of the network into the error of a store."""
    return (StoreUnavailable if fault.unknown else StoreUnreachable)(fault.line)


def _module(scheme: str) -> Any:
    if scheme in _OURS:
        return load(_OURS[scheme])
    if scheme not in plugins.entries(_GROUP):
        return None
    return plugins.load(_GROUP, scheme, InvalidReference, _given_problem)


def _given_problem(given: Any) -> str | None:
    if not (isinstance(getattr(given, "GRAMMAR", None), Grammar) and hasattr(given, "Store")):
        return "has no GRAMMAR or no Store"
    identity = getattr(given.Store, "identity", ())
    if isinstance(identity, tuple) and all(isinstance(each, str) for each in identity):
        return None
    return "has a Store whose identity is no tuple of names"

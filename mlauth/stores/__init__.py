"""Where secrets live. One module a store, named after its scheme.

A store's module has `GRAMMAR` (what a reference to it looks like; importing it needs no SDK) and
`Store` (reads a place in it; imports the SDK on the first read). What is the same for all stores is
in `mlauth.storing`: the sentence around a message, empty values, UTF-8, sizes and `#key`.

Another distribution adds a store by an entry point of the group `mlauth.stores`, whose name is the
scheme and whose value is the module. It cannot replace one of ours.
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
MOST_BYTES = 1024 * 1024  # of what is used; far over every secret that a service hands out


@dataclass(frozen=True)
class Place:
    """Where a secret is in its store.

    Attributes:
        parts: what stood between slashes, each decoded: a part can have a slash in it (`%2F`).
        options: what followed `?`, for instance `{"version": "3"}`.
    """

    parts: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A read-only copy in a fixed order: equal places are equal, hash alike, read alike.
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
    """What a reference of a store looks like.

    Attributes:
        form: an example, shown in messages.
        problem: says what is wrong with the parts of a place, or returns None.
        options: those that may follow `?`: for each, what says what is wrong with its value.
            `version` pins one, which is then read and never written.
        most_bytes: the most that can be written.
    """

    form: str
    problem: Callable[[tuple[str, ...]], str | None]
    options: Mapping[str, Callable[[str], str | None]] = field(default_factory=dict)
    most_bytes: int = MOST_BYTES


def named(*names: str) -> Callable[[tuple[str, ...]], str | None]:
    """Return a `Grammar.problem` for places with one part for each name.

    Args:
        names: what the parts are, for instance "vault" and "secret".
    """

    def problem(parts: tuple[str, ...]) -> str | None:
        for name, part in zip(names, (*parts, *[""] * len(names)), strict=False):
            if not part:
                return f"the {name} is missing"
        if len(parts) > len(names):
            return f"a part too many follows the {names[-1]} (a slash in a name is written %2F)"
        return None

    return problem


@dataclass(frozen=True)
class StoredSecret(NeverPickled):
    """A secret as a store gave it.

    Attributes:
        value: the value, whole. Bytes are decoded with `errors="surrogateescape"`: what is not
            UTF-8 is refused for all stores alike.
        version: the store's name for this version, where it has versions.
        outdated: why it should not be used now, where the store knows times of validity.
    """

    value: SecretStr
    version: str | None = None
    outdated: str | None = None


@dataclass(frozen=True)
class Access:
    """How a place would be read: for people, without reading it.

    Attributes:
        place: where it is, in the store's own terms.
        identity: as whom it would be read.
        notes: what else a person should know, one line each.
    """

    place: str
    identity: str
    notes: tuple[str, ...] = ()


class Store(Protocol):
    """What every store can do. Constructing one does no I/O.

    The message of an error is what went wrong and what to do, in one line without the reference,
    for instance "there is no such secret; check the name": what could not be done, and to which
    reference, is put before it.
    """

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a secret, whole.

        Args:
            place: one that the grammar took.
            timeout: seconds that may pass, retries included; over 0.

        Raises:
            StoreError: `SecretNotFound`, `SecretDenied`, `SecretUnusable`, `StoreUnavailable`
                (throttled, 5xx, too late), `StoreUnreachable`, `IdentityUnavailable` or
                `MissingDependency`.
        """
        ...

    def describe(self, place: Place) -> Access:
        """Say where a place is and as whom it would be read, without reading it."""
        ...


@runtime_checkable
class WritableStore(Store, Protocol):
    """What a store can do that secrets can be written to."""

    def write(
        self, place: Place, value: SecretStr, *, timeout: float, before: Callable[[], None]
    ) -> str | None:
        """Write a secret, whole.

        Args:
            place: one that the grammar took, without a version.
            value: the new value: text of 1 byte to `Grammar.most_bytes`.
            timeout: seconds that may pass, retries included; no write begins after them.
            before: called right before each attempt to write; what it raises is raised.

        Returns:
            The store's name for the new version, where it has versions.

        Raises:
            StoreError: as for `read`; the secret is then as it was. After `StoreUnavailable` it
                may have been written.
        """
        ...

    def prove_writable(self, place: Place, *, timeout: float) -> None:
        """Prove, as far as that goes without changing a value, that a secret can be written.

        Args:
            place: one that the grammar took, without a version.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: as for `write`.
        """
        ...


@runtime_checkable
class RemoteStore(Store, Protocol):
    """What a store can say that asks others.

    It may have an attribute `identity` too: the variables that say as whom it asks, as patterns of
    `fnmatch`. An activation that changes one keeps the worker's own, which the store finds in
    `mlauth.record.own_environment`.
    """

    def hosts(self, place: Place) -> tuple[str, ...]:
        """Return the hosts that a credential would be sent to, to read or write a place.

        Names or addresses without ports; finding out does no I/O.
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
    """Return the schemes of the stores that can be used: of others, a package is broken."""
    found = []
    for scheme in schemes():
        with suppress(InvalidReference):
            if _module(scheme):
                found.append(scheme)
    return found


def identity_variables() -> tuple[str, ...]:
    """Return the variables that say as whom stores are read, as patterns of `fnmatch`."""
    identities = (getattr(_module(scheme).Store, "identity", ()) for scheme in usable())
    return tuple(name for each in identities for name in each)


def new_store(scheme: str) -> Store:
    """Make the store of a known scheme."""
    store: Store = _module(scheme).Store()
    return store


def outcome(fault: Fault) -> StoreError:
    """Return the error that a fault of the network is to a store."""
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

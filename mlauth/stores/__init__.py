"""Where secrets live. One module a store, named after its scheme.

A store's module has `GRAMMAR` (what a reference to it looks like; importing it needs no SDK) and
`Store` (reads it; imports the SDK on the first read).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import SecretStr

from mlauth.errors import StoreError, StoreUnavailable, StoreUnreachable
from mlauth.forks import load
from mlauth.never_pickled import NeverPickled

if TYPE_CHECKING:
    from mlauth.net.faults import Fault
    from mlauth.references import SecretReference

_MODULES = ("azurekv", "env", "file", "memory")


@dataclass(frozen=True)
class Grammar:
    """What a reference of a store looks like.

    Attributes:
        form: an example, shown in messages.
        problem: says what is wrong with a location, or returns None.
        query: the options that may follow `?`: for each, what says what is wrong with its value.
    """

    form: str
    problem: Callable[[str], str | None]
    query: Mapping[str, Callable[[str], str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredSecret(NeverPickled):
    """A secret as a store gave it.

    Attributes:
        value: the value, whole.
        version: the store's name for this version, where it has versions.
        outdated: why it should not be used now, where the store knows times of validity.
    """

    value: SecretStr
    version: str | None = None
    outdated: str | None = None


@dataclass(frozen=True)
class Access:
    """How a reference would be read: for people, without reading it.

    Attributes:
        place: where it points, in the store's own terms.
        identity: as whom it would be read.
        notes: what else a person should know, one line each.
    """

    place: str
    identity: str
    notes: tuple[str, ...] = ()


class SecretStore(Protocol):
    """What every store can do. Constructing one does no I/O."""

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read the whole secret that a reference names, `#key` left aside.

        Args:
            reference: one of this store's scheme.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: `SecretNotFound`, `SecretDenied`, `SecretUnusable`, `StoreUnavailable`
                (throttled, 5xx, too late) or `MissingDependency`, each with a one-line message.
        """
        ...

    def describe(self, reference: SecretReference) -> Access:
        """Say where a reference points and as whom it would be read, without reading it."""
        ...


@runtime_checkable
class WritableStore(SecretStore, Protocol):
    """What a store can do that secrets can be written to."""

    def write(
        self,
        reference: SecretReference,
        value: SecretStr,
        *,
        timeout: float,
        before: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Write the whole secret that a reference names.

        Args:
            reference: one of this store's scheme, without `#key` and without a version.
            value: the new value.
            timeout: seconds that may pass, retries included; no write begins after them.
            before: called right before each attempt to write; what it raises is raised.

        Returns:
            The store's name for the new version, where it has versions.

        Raises:
            StoreError: as for `read`; the secret is then as it was. After `StoreUnavailable` it
                may have been written.
        """
        ...

    def prove_writable(self, reference: SecretReference, *, timeout: float) -> None:
        """Prove, as far as that goes without changing a value, that a secret can be written.

        Args:
            reference: one of this store's scheme, without `#key` and without a version.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: as for `write`.
        """
        ...


@runtime_checkable
class RemoteStore(SecretStore, Protocol):
    """What a store can say that asks others."""

    def hosts(self, reference: SecretReference) -> tuple[str, ...]:
        """Return the hosts that a credential would be sent to, to read or write a reference.

        Names or addresses without ports; finding out does no I/O.
        """
        ...


def schemes() -> tuple[str, ...]:
    """Return the schemes of all stores."""
    return _MODULES


def grammar(scheme: str) -> Grammar | None:
    """Return the grammar of a scheme's references, or None if no store has that scheme."""
    if scheme not in _MODULES:
        return None
    result = _module(scheme).GRAMMAR
    assert isinstance(result, Grammar)
    return result


def form(scheme: str) -> str:
    """Return an example of a reference of a known scheme."""
    known = grammar(scheme)
    assert known is not None
    return known.form


def new_store(scheme: str) -> SecretStore:
    """Make the store of a known scheme."""
    store: SecretStore = _module(scheme).Store()
    return store


def hosts(reference: SecretReference) -> tuple[str, ...]:
    """Return the hosts that a credential would be sent to, to read or write a reference."""
    store = new_store(reference.scheme)
    return store.hosts(reference) if isinstance(store, RemoteStore) else ()


def outcome(fault: Fault) -> StoreError:
    """Return the error that a fault of the network is to a store."""
    return (StoreUnavailable if fault.unknown else StoreUnreachable)(fault.line)


@cache
def _module(scheme: str) -> Any:
    return load(f"mlauth.stores.{scheme}")

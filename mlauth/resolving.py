"""Reads references: at the same time, each secret once, within one deadline.

All errors are reported together.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Literal, overload

from pydantic import SecretStr

from mlauth import hosts, masking
from mlauth.deadline import Deadline
from mlauth.errors import (
    DeadlineExceeded,
    MLAuthError,
    ResolutionError,
    SecretUnusable,
    StoreError,
    StoreUnavailable,
    StoreUnreachable,
    bare,
)
from mlauth.never_pickled import NeverPickled, refuse_json
from mlauth.references import SecretReference
from mlauth.stores import StoredSecret
from mlauth.storing import SecretStore, hosts_of, pick

Expired = Literal["refuse", "warn"]
Resolved = dict[SecretReference, StoredSecret]


class ResolvedSecret(NeverPickled, SecretStr):
    """A `SecretStr` that pickle and JSON refuse.

    So the stored result of a Prefect task never has it in clear, and a task with one value never
    gets the cached result of another.
    """

    def get_secret_value(self) -> str:
        """Return the value; but refuse pydantic, which would write it as `**********` to JSON."""
        asks = sys._getframe(1)  # noqa: SLF001 - there is no other hook for SecretStr fields
        if asks.f_globals.get("__name__") == "pydantic.types" and "seriali" in asks.f_code.co_name:
            refuse_json(self)
        return super().get_secret_value()

    def __copy__(self) -> ResolvedSecret:
        return self

    def __deepcopy__(self, _memo: object) -> ResolvedSecret:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and (
            self.get_secret_value() == other.get_secret_value()
        )

    __hash__ = SecretStr.__hash__


@overload
def resolve(reference: SecretReference | str, *, timeout: float = 30.0) -> SecretStr: ...
@overload
def resolve(
    reference: Mapping[str, SecretReference | str], *, timeout: float = 30.0
) -> dict[str, SecretStr]: ...
def resolve(
    reference: SecretReference | str | Mapping[str, SecretReference | str],
    *,
    timeout: float = 30.0,
) -> SecretStr | dict[str, SecretStr]:
    """Read a secret, or many at once.

    Args:
        reference: where the secret lives, or a mapping from your own names to references.
        timeout: seconds for everything together.

    Returns:
        The value, or a dictionary with the mapping's names. Values are masked in log records
        of this process from then on, and cannot be pickled.

    Raises:
        InvalidReference: a text is no reference.
        StoreError: a secret could not be read.
        ResolutionError: several could not be read; it has all the errors.
    """
    many = reference if isinstance(reference, Mapping) else {"": reference}
    wanted = {
        name: item if isinstance(item, SecretReference) else SecretReference.parse(item)
        for name, item in many.items()
    }
    resolved = read_all(wanted.values(), Deadline(timeout))
    values: dict[str, SecretStr] = {
        name: ResolvedSecret(resolved[item].value.get_secret_value())
        for name, item in wanted.items()
    }
    return values if isinstance(reference, Mapping) else values[""]


def refuse_hosts(references: Iterable[SecretReference]) -> None:
    """Refuse references whose stores would send a credential to a host that is not allowed.

    Raises:
        StoreUnreachable: see `mlauth.hosts.refusal`.
    """
    for reference in references:
        why = hosts.refusal(hosts_of(reference))
        if why:
            raise StoreUnreachable(f"{reference} is not asked for: {why}")


def read_all(references: Iterable[SecretReference], deadline: Deadline) -> Resolved:
    """Read every reference; see `Reader.read_all`."""
    return Reader(deadline).read_all(references)


class Reader(NeverPickled):
    """Reads references. A secret that several references name is read once."""

    def __init__(self, deadline: Deadline, *, expired: Expired = "refuse") -> None:
        """Read nothing yet.

        Args:
            deadline: the time limit of everything together.
            expired: `refuse` makes a secret that its store calls outdated an error; with `warn`,
                `StoredSecret.outdated` says so.
        """
        self._deadline = deadline
        self._expired = expired
        self._lock = threading.Lock()
        self._stores: dict[str, SecretStore] = {}
        self._started: dict[SecretReference, Future[StoredSecret]] = {}

    def read_all(self, references: Iterable[SecretReference]) -> Resolved:
        """Read references at the same time.

        Returns:
            The secret of each reference. Their values are masked from then on.

        Raises:
            StoreUnreachable: a host is not allowed, so nothing was read.
            StoreError: a secret could not be read.
            ResolutionError: several could not be read.
        """
        wanted = list(dict.fromkeys(references))
        refuse_hosts(wanted)
        started = [self._start(reference.whole()) for reference in wanted]
        found: Resolved = {}
        errors: list[MLAuthError] = []
        for reference, each in zip(wanted, started, strict=True):
            answer = self._deadline.wait(each, "the store")
            try:
                found[reference] = self._usable(reference, answer)
            except StoreError as error:
                errors.append(bare(error))
        masking.register(secret.value.get_secret_value() for secret in found.values())
        errors = list(dict.fromkeys(errors))
        if errors:
            raise errors[0] if len(errors) == 1 else ResolutionError(errors)
        return found

    def _start(self, whole: SecretReference) -> Future[StoredSecret]:
        with self._lock:
            if whole.scheme not in self._stores:
                self._stores[whole.scheme] = SecretStore(whole.scheme)
            store = self._stores[whole.scheme]
            if whole not in self._started:
                self._started[whole] = self._deadline.start(
                    lambda: store.read(whole, timeout=self._deadline.inner().remaining()),
                    "the store",
                )
            return self._started[whole]

    def _usable(
        self, reference: SecretReference, answer: StoredSecret | BaseException
    ) -> StoredSecret:
        if isinstance(answer, DeadlineExceeded):
            raise StoreUnavailable(
                f"{reference} cannot be read: no answer within {self._deadline.seconds:g} s from "
                "the store or the issuer of its tokens: is a firewall or proxy in the way? a busy "
                "service needs a longer timeout"
            )
        if isinstance(answer, BaseException):
            raise answer
        if answer.outdated and self._expired == "refuse":
            raise SecretUnusable(
                f"{reference} is refused: {answer.outdated}, and is handed out all the same; "
                'store a new version, or give the profile expired = "warn"'
            )
        return pick(answer, reference)

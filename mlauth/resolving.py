"""From references to values: concurrent, one read a secret, one deadline, all errors at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal, overload

from pydantic import SecretStr

from mlauth import hosts, masking
from mlauth.deadline import Deadline
from mlauth.errors import (
    DeadlineExceeded,
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

    So no kept result of a Prefect task has it in clear, and a task that is given another value is
    not given the result of this one.
    """

    def get_secret_value(self) -> str:
        """Return the value; not to pydantic, which asks for it to write `**********` as JSON."""
        asks = sys._getframe(1)  # noqa: SLF001 - a field of the type SecretStr has no other hook
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
        reference: where the secret lives, or a mapping from names of yours to references.
        timeout: seconds for everything together.

    Returns:
        The value, or a dictionary with the mapping's names. Values are masked in log records
        of this process from then on, and cannot be pickled.

    Raises:
        InvalidReference: a reference is none.
        StoreError: a secret could not be read.
        ResolutionError: several could not; it has all the errors.
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
    """Refuse to read or write what would send a credential to a host that is not allowed.

    Raises:
        StoreUnreachable: see `mlauth.hosts.refusal`.
    """
    for reference in references:
        why = hosts.refusal(hosts_of(reference))
        if why:
            raise StoreUnreachable(f"{reference} is not asked for: {why}")


def read_all(references: Iterable[SecretReference], deadline: Deadline) -> Resolved:
    """Read every reference; a secret that several of them name is read once.

    Raises:
        StoreError: one could not be read.
        ResolutionError: several could not.
    """
    return all_or_errors(try_all(references, deadline))


def all_or_errors(answers: Mapping[SecretReference, StoredSecret | StoreError]) -> Resolved:
    """Return the secrets of `try_all`, or raise all its errors as one; see `read_all`."""
    errors = list(dict.fromkeys(item for item in answers.values() if isinstance(item, StoreError)))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ResolutionError(errors)
    return {key: item for key, item in answers.items() if isinstance(item, StoredSecret)}


def try_all(
    references: Iterable[SecretReference], deadline: Deadline, *, expired: Expired = "refuse"
) -> dict[SecretReference, StoredSecret | StoreError]:
    """Read every reference, and return its secret or what was wrong with it.

    Args:
        references: what to read.
        deadline: for everything together.
        expired: whether a secret that its store calls outdated is an error; else
            `StoredSecret.outdated` says so.

    Raises:
        StoreUnreachable: a host is not allowed, so nothing was read.
    """
    wanted = list(dict.fromkeys(references))
    wholes = list(dict.fromkeys(reference.whole() for reference in wanted))
    refuse_hosts(wholes)
    made = {scheme: SecretStore(scheme) for scheme in {whole.scheme for whole in wholes}}

    def read(whole: SecretReference) -> StoredSecret:
        return made[whole.scheme].read(whole, timeout=deadline.inner().remaining())

    read_each = deadline.run_all([partial(read, whole) for whole in wholes], "the store")
    answers = dict(zip(wholes, read_each, strict=True))
    found: dict[SecretReference, StoredSecret | StoreError] = {}
    for reference in wanted:
        answer = answers[reference.whole()]
        try:
            if isinstance(answer, DeadlineExceeded):
                raise StoreUnavailable(
                    f"{reference} cannot be read: no answer within {deadline.seconds:g} s, from "
                    "the store or from what says who asks: is a firewall or proxy in the way? a "
                    "busy service needs a longer timeout"
                )
            if isinstance(answer, BaseException):
                raise answer
            if answer.outdated and expired == "refuse":
                raise SecretUnusable(
                    f"{reference} is refused: {answer.outdated}, and is handed out all the same; "
                    'store a new version, or give the profile expired = "warn"'
                )
            found[reference] = pick(answer, reference)
        except StoreError as error:
            found[reference] = bare(error)
    masking.register(
        secret.value.get_secret_value()
        for secret in found.values()
        if isinstance(secret, StoredSecret)
    )
    return found

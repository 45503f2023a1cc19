"""The exceptions of mlauth: one base class, and one class for each thing that a caller may handle.

Every message is one line (what failed, where, why, what to do) and holds no secret value.
Exceptions of SDKs are chained only where they cannot carry one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mlauth.report import CheckReport


class MLAuthError(Exception):
    """The base of everything that mlauth raises."""


E = TypeVar("E", bound=BaseException)


def bare(error: E) -> E:
    """Return an error without frames and context: their locals hold values, and may be logged."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


class InvalidReference(MLAuthError, ValueError):
    """A text is not a secret reference, or its store cannot read such a reference."""


class StoreError(MLAuthError):
    """A store did not give the secret that a reference names."""


class SecretNotFound(StoreError):
    """The store answered that there is no such secret; the only error that a fallback may catch."""


class SecretDenied(StoreError):
    """The store answered that this identity may not read the secret."""


class SecretUnusable(StoreError):
    """The secret is there, but cannot be used: not text, no such key, expired."""


class StoreUnavailable(StoreError):
    """The store gave no answer (throttled, 5xx, too late): the secret may be fine."""


class StoreUnreachable(StoreError):
    """The store cannot be reached (name, port, TLS, redirect): somebody must change something."""


class IdentityUnavailable(StoreError):
    """There is no identity to read the store with, or its issuer refuses it."""


class MissingDependency(StoreError):
    """The store's library is not installed; the message names the extra."""


class ResolutionError(MLAuthError):
    """Several references could not be read.

    Attributes:
        errors: one error for each such reference, in the order of the request.
    """

    def __init__(self, errors: Sequence[MLAuthError]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            f"{len(self.errors)} secrets could not be read: "
            + "; ".join(str(error) for error in self.errors)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors,)


class DeadlineExceeded(MLAuthError):
    """The time limit of the whole operation was reached."""


class UnknownSystem(MLAuthError):
    """No system has this name, or the package that gives it is broken."""


class InvalidProfile(MLAuthError, ValueError):
    """`mlauth.toml` is not there, not valid, or has no such profile."""


class InvalidCredentials(MLAuthError, ValueError):
    """The fields of credentials contradict each other or are not what the system takes."""


class InvalidBlock(MLAuthError):
    """The fields of a Prefect block cannot be used.

    It is no ValueError, because Prefect would then advise to load the block without validation.
    """


class InvalidComponent(MLAuthError, ValueError):
    """A setting of the stack component is missing where it is needed."""


class ActivationError(MLAuthError):
    """A value cannot be exported, or nothing may be exported in this process."""


class RotationFailed(MLAuthError):
    """A key was not rotated: the stored one goes on working."""


class RotationIncomplete(MLAuthError):
    """A key was rotated, but the new one is not known to be stored and to work.

    Attributes:
        old_key_until: when the old key ends (UTC); None if it does not end.
    """

    def __init__(self, message: str, old_key_until: datetime | None) -> None:
        super().__init__(message)
        self.old_key_until = old_key_until

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.old_key_until)


class CheckFailed(MLAuthError):
    """The check found that the credentials do not work.

    Attributes:
        report: every stage up to the one that failed.
    """

    def __init__(self, report: CheckReport) -> None:
        self.report = report
        super().__init__(report.summary())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.report,)


class CheckUnknown(MLAuthError):
    """The check got no answer (throttled, 5xx, too late): the credentials may be fine.

    Attributes:
        report: every stage up to the one that is unknown.
    """

    def __init__(self, report: CheckReport) -> None:
        self.report = report
        super().__init__(report.summary())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.report,)


class StageFailed(MLAuthError):
    """Raised inside of a stage: the credentials do not work, and the message says what to do.

    Attributes:
        sent: whether the service may have received the request (`mlauth.net.faults`).
    """

    sent = False


class StageUnknown(MLAuthError):
    """Raised inside of a stage: the service gave no answer about the credentials.

    Attributes:
        sent: see `StageFailed`.
    """

    sent = False


def is_unknown(error: MLAuthError) -> bool:
    """Say whether the credentials may work in spite of an error."""
    if isinstance(error, ResolutionError):
        return all(is_unknown(each) for each in error.errors)
    return isinstance(error, (StageUnknown, StoreUnavailable, DeadlineExceeded, CheckUnknown))

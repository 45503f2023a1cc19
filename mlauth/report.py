"""The stages of a check, what each found, and the report.

A check of a system stops at the first stage that does not pass.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from mlauth.errors import (
    CheckUnknown,
    DeadlineExceeded,
    MLAuthError,
    ResolutionError,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from mlauth.net.faults import Fault


class Stage(str, Enum):
    """What a check looks at, in this order."""

    CONFIGURED = "configured"
    RESOLVED = "resolved"
    WELL_FORMED = "well-formed"
    REACHABLE = "reachable"
    COMPATIBLE = "compatible"
    AUTHENTICATED = "authenticated"
    AUTHORIZED = "authorized"


class Status(str, Enum):
    """How a stage ended; `UNKNOWN`: throttled, a 5xx, no answer in time. It may be fine."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class StageFailed(MLAuthError):
    """Raised inside of a stage: the credentials do not work, and the message says what to do.

    Attributes:
        sent: whether the service may have got the request that this is about (`mlauth.net.faults`).
    """

    sent = False


class StageUnknown(MLAuthError):
    """Raised inside of a stage: it could not be found out.

    Attributes:
        sent: as of `StageFailed`.
    """

    sent = False


def outcome(fault: Fault) -> StageFailed | StageUnknown:
    """Return the error that a fault of the network is inside of a stage."""
    error = (StageUnknown if fault.unknown else StageFailed)(fault.line)
    error.sent = fault.sent
    return error


def is_unknown(error: MLAuthError) -> bool:
    """Say whether an error leaves open if the credentials work."""
    if isinstance(error, ResolutionError):
        return all(is_unknown(each) for each in error.errors)
    return isinstance(error, (StageUnknown, StoreUnavailable, DeadlineExceeded, CheckUnknown))


@dataclass
class StageResult:
    """What one stage found.

    Attributes:
        system: what was checked, for instance `zenml`.
        stage: which stage.
        status: how it ended.
        detail: one line: what was seen or, if it did not pass, what to do about it.
        seconds: how long it took.
        warnings: what passed all the same, one line each.
    """

    system: str
    stage: Stage
    status: Status = Status.PASSED
    detail: str = ""
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass
class CheckReport:
    """Every stage that was reached, and what was learnt about the accounts.

    Attributes:
        subject: what was checked, for instance `profile 'prod' of mlauth.toml`.
        results: the stages in the order in which they ran.
        facts: what the services said, without secrets: account, server version, …
    """

    subject: str
    results: list[StageResult] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """Failed if any stage failed, else unknown if any is, else passed."""
        found = {result.status for result in self.results}
        for status in (Status.FAILED, Status.UNKNOWN):
            if status in found:
                return status
        return Status.PASSED

    @property
    def warnings(self) -> list[str]:
        """The warnings of all stages."""
        return [warning for result in self.results for warning in result.warnings]

    def summary(self) -> str:
        """Return one line: the first stage that did not pass, or that all did."""
        for status in (Status.FAILED, Status.UNKNOWN):
            for result in self.results:
                if result.status is status:
                    return f"{result.system}, {result.stage.value}: {result.detail}"
        account = self.facts.get("account")
        return f"{self.subject}: passed" + (f" as {account!r}" if account else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "subject": self.subject,
            "status": self.status.value,
            "facts": dict(self.facts),
            "stages": [
                asdict(result)
                | {"stage": result.stage.value, "status": result.status.value}
                | {"seconds": round(result.seconds, 3)}
                for result in self.results
            ],
        }

    @contextmanager
    def stage(
        self, system: str, stage: Stage, *, since: float | None = None
    ) -> Iterator[StageResult]:
        """Time a stage and record how it ended; errors of mlauth go on to the caller.

        Args:
            system: what is checked.
            stage: which stage.
            since: when it began on the monotonic clock, if that was before now.
        """
        result = StageResult(system, stage, Status.UNKNOWN)
        self.results.append(result)
        start = time.monotonic() if since is None else since
        try:
            yield result
        except MLAuthError as error:
            result.status = Status.UNKNOWN if is_unknown(error) else Status.FAILED
            result.detail = str(error)
            raise
        else:
            result.status = Status.PASSED
        finally:
            result.seconds = time.monotonic() - start

"""The stages of a check, their results, and the report.

The check of a system stops at the first stage that does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Stage(str, Enum):
    """The stages of a check, in their order."""

    CONFIGURED = "configured"
    RESOLVED = "resolved"
    WELL_FORMED = "well-formed"
    REACHABLE = "reachable"
    COMPATIBLE = "compatible"
    AUTHENTICATED = "authenticated"
    AUTHORIZED = "authorized"


class Status(str, Enum):
    """How a stage ended. `UNKNOWN` (throttled, a 5xx, no answer in time) may still be fine."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass
class StageResult:
    """The result of one stage.

    Attributes:
        system: the name of the system, for instance `env`.
        stage: the stage.
        status: how it ended.
        detail: one line: what the stage saw or, if it did not pass, what is wrong and what to do.
        seconds: how long it took.
        warnings: one line each; a warning ends no stage.
    """

    system: str
    stage: Stage
    status: Status = Status.PASSED
    detail: str = ""
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass
class SystemReport:
    """Every stage that a system reached, and facts about its service.

    Attributes:
        system: the name of the system, for instance `env`.
        title: its name for people.
        results: the results of the stages, in their order.
        account: the account that the credential belongs to, if the service said so.
        facts: what else the service said, without secrets: `server_url`, `server_version`, …
    """

    system: str
    title: str = ""
    results: list[StageResult] = field(default_factory=list)
    account: str | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """Failed if any stage failed, else unknown if any is, else passed."""
        return _worst(result.status for result in self.results)

    @property
    def warnings(self) -> list[str]:
        """The warnings of all stages."""
        return [warning for result in self.results for warning in result.warnings]

    @property
    def proven(self) -> bool:
        """Whether a service was asked, and accepted the credential."""
        return self.status is Status.PASSED and any(
            result.stage is Stage.AUTHENTICATED for result in self.results
        )

    def summary(self) -> str:
        """Return one line: the stage that did not pass, or which service took whose key."""
        for result in self.results:
            if result.status is self.status is not Status.PASSED:
                return f"{self.system}, {result.stage.value}: {result.detail}"
        if not self.proven:
            return f"{self.system}: passed"
        server = " ".join(filter(None, [self.title, self.facts.get("server_version")]))
        url = self.facts.get("server_url")
        taken = f"{url} ({server}) took the key" if url else f"{server} took the key"
        return f"{taken} of {self.account!r}" if self.account else taken

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "system": self.system,
            "status": self.status.value,
            "account": self.account,
            "facts": dict(self.facts),
            "stages": [
                {
                    "stage": result.stage.value,
                    "status": result.status.value,
                    "detail": result.detail,
                    "seconds": round(result.seconds, 3),
                    "warnings": list(result.warnings),
                }
                for result in self.results
            ],
        }


@dataclass
class CheckReport:
    """The reports of all systems that were checked.

    Attributes:
        subject: what was checked, for instance `profile 'prod' of mlauth.toml`.
        systems: the report of each system.
        unusable: a line for each package whose system could not be looked for: it is broken.
    """

    subject: str
    systems: list[SystemReport] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """Failed if any system failed, else unknown if any is, else passed."""
        return _worst(each.status for each in self.systems)

    @property
    def results(self) -> list[StageResult]:
        """The stages of all systems."""
        return [result for each in self.systems for result in each.results]

    @property
    def warnings(self) -> list[str]:
        """What could not be looked for, and the warnings of all systems."""
        return [*self.unusable, *(line for each in self.systems for line in each.warnings)]

    @property
    def accounts(self) -> dict[str, str]:
        """The account that each service named, by system."""
        return {each.system: each.account for each in self.systems if each.account}

    def summary(self) -> str:
        """Return one line: the first stage that did not pass, or the accounts if all passed."""
        for each in self.systems:
            if each.status is self.status is not Status.PASSED:
                return each.summary()
        accounts = self.accounts
        named = [
            f"{account!r}" + (f" ({system})" if len(accounts) > 1 else "")
            for system, account in accounts.items()
        ]
        return f"{self.subject}: passed" + (f" as {', '.join(named)}" if named else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "subject": self.subject,
            "status": self.status.value,
            "unusable": list(self.unusable),
            "systems": [each.to_dict() for each in self.systems],
        }


def _worst(found: Iterable[Status]) -> Status:
    statuses = set(found)
    for status in (Status.FAILED, Status.UNKNOWN):
        if status in statuses:
            return status
    return Status.PASSED

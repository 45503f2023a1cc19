"""The stages of a check as a system sees them while it proves its credentials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlauth.deadline import Deadline
from mlauth.errors import MLAuthError, StageFailed, is_unknown
from mlauth.forks import importing
from mlauth.net.faults import FaultError
from mlauth.net.route import Client
from mlauth.report import Stage, StageResult, Status, SystemReport

if TYPE_CHECKING:
    from mlauth.connection import Connection


@contextmanager
def recorded(report: SystemReport, stage: Stage) -> Iterator[StageResult]:
    """Time a stage, and record in a report how it ended; errors of mlauth reach the caller."""
    result = StageResult(report.system, stage, Status.UNKNOWN)
    report.results.append(result)
    start = time.monotonic()
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


class Stages:
    """Records the stages of one system, and makes its connections.

    Attributes:
        deadline: the time limit of everything together.
        facts: what the service says, without secrets; see `SystemReport.facts`.
    """

    def __init__(
        self,
        report: SystemReport,
        deadline: Deadline,
        trust: Callable[[], str | None] = lambda: None,
        *,
        insecure: bool = False,
    ) -> None:
        """Begin without a stage.

        Args:
            report: the stages are recorded there.
            deadline: see above.
            trust: the certificates that the run trusts; see `mlauth.trust.certificates`.
            insecure: see `mlauth.net.http.Service`.
        """
        self._report = report
        self._trust = trust
        self._insecure = insecure
        self._reached = self._taken = False
        self.deadline = deadline
        self.facts = report.facts

    @property
    def account(self) -> str | None:
        """The account that the credential belongs to, once the service has said so."""
        return self._report.account

    @account.setter
    def account(self, name: str) -> None:
        self._report.account = name

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[StageResult]:
        """Record a stage; see `recorded`.

        A stage passes only if the service answered a request. `AUTHENTICATED` and `AUTHORIZED`
        pass only if it took a request that carried a credential. So no system can claim a stage
        without asking.
        """
        with recorded(self._report, stage) as result:
            try:
                yield result
            except FaultError as error:  # for instance a fault of the issuer of a token
                from mlauth.connection import outcome

                raise outcome(error.fault) from None
            carried = stage in (Stage.AUTHENTICATED, Stage.AUTHORIZED)
            asked = carried or stage in (Stage.REACHABLE, Stage.COMPATIBLE)
            if asked and not (self._taken if carried else self._reached):
                how = " that carried the credential" if carried else ""
                raise StageFailed(
                    f"no service has answered a request{how}, but {self._report.system!r} lets the "
                    "stage pass: this is a defect of that system, report it to its makers"
                )

    def connect(
        self, url: str, *, ca: str | None = None, client: Client | None = None
    ) -> Connection:
        """Return a connection to the service, a context manager.

        Args:
            url: see `mlauth.net.http.Service`.
            ca: see there; by default what the run trusts.
            client: see there.
        """
        with importing:
            from mlauth.connection import Connection

        return Connection(
            url,
            self.deadline,
            ca=ca or self._trust(),
            client=client,
            insecure=self._insecure,
            answered=self._note,
        )

    def _note(self, taken: bool) -> None:
        self._reached = True
        self._taken |= taken

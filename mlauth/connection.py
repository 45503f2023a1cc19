"""A connection to a system's service, for the stages of a check.

It is a module of its own because a check that asks no service does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlauth.deadline import Deadline
from mlauth.errors import StageFailed, StageUnknown
from mlauth.net.faults import Fault
from mlauth.net.http import Answer, Service
from mlauth.net.route import Client


class Connection(Service):
    """A service whose faults end the current stage."""

    def __init__(
        self,
        url: str,
        deadline: Deadline,
        *,
        ca: str | None = None,
        client: Client | None = None,
        insecure: bool = False,
        answered: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """Remember where to ask; does no I/O.

        Args:
            url: see `mlauth.net.http.Service`.
            deadline: see there.
            ca: see there.
            client: see there.
            insecure: see there.
            answered: called for each answer, with whether the service took a credential: one was
                sent, and the answer is no 401.
        """
        super().__init__(url, deadline, ca=ca, client=client, insecure=insecure)
        self._answered = answered

    def request(self, method: str, path: str, **what: Any) -> Answer:
        """Send a request; see `mlauth.net.http.Service.request`.

        Raises:
            StageFailed, StageUnknown: there was a fault.
        """
        answer = super().request(method, path, **what)
        if isinstance(answer, Fault):
            raise outcome(answer)
        sent = [what.get("auth"), *(what.get("data") or {}).values()]
        sent += (what.get("headers") or {}).values()
        credential = any(each is not None and not isinstance(each, str) for each in sent)
        self._answered(credential and answer.status != 401)
        return answer


def outcome(fault: Fault) -> StageFailed | StageUnknown:
    """Turn a fault of the network into the error of a stage."""
    error = (StageUnknown if fault.unknown else StageFailed)(fault.line)
    error.sent = fault.sent
    return error

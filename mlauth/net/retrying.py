"""Faults that may pass are tried again inside the deadline, as long as the service asks for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from mlauth.deadline import Deadline
from mlauth.errors import MLAuthError
from mlauth.forks import importing

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
CONNECTING = 5  # attempts to connect: what is throttled is worth more, what is mistyped is not


class Transient(Exception):
    """A fault that may be gone in a moment.

    Attributes:
        outcome: what is raised if it is not.
        retry_after: seconds that the service asks to wait, or None.
        attempts: how many attempts are worth it; None leaves that to the deadline.
    """

    def __init__(
        self,
        outcome: MLAuthError,
        retry_after: float | None = None,
        *,
        attempts: int | None = None,
    ) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome
        self.retry_after = retry_after
        self.attempts = attempts


def retry(call: Callable[[], T], deadline: Deadline) -> T:
    """Call a function until it does not raise `Transient`, with backoff, jitter and `Retry-After`.

    Args:
        call: one attempt.
        deadline: no attempt is waited for that would start after it.

    Raises:
        MLAuthError: the outcome of the last transient fault, or what else `call` raised.
    """
    try:
        return call()
    except Transient as fault:
        last, made = fault, True
    # Imported for the first fault: 20 ms and more, which a service that answers costs nobody.
    with importing:
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_before_delay,
            wait_random_exponential,
        )

    def attempt() -> T:
        nonlocal last, made
        if made or not deadline.remaining():  # what was answered says more than that time is up
            made = False  # the attempt that was made counts
            raise last
        try:
            return call()
        except Transient as fault:
            last = fault
            raise

    backoff = wait_random_exponential(multiplier=0.2, max=5)

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked = fault.retry_after if isinstance(fault, Transient) else None
        # Jitter on top: those who were told the same time would come back together.
        return (asked or 0.0) + backoff(state)

    in_time = stop_before_delay(deadline.remaining())

    def enough(state: RetryCallState) -> bool:
        fault = state.outcome.exception() if state.outcome else None
        most = fault.attempts if isinstance(fault, Transient) else None
        return in_time(state) or (most is not None and state.attempt_number >= most)

    retrying = Retrying(
        retry=retry_if_exception_type(Transient),
        stop=enough,
        wait=wait,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except Transient as fault:
        raise fault.outcome from None


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110: seconds or a date), if it has any."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # "-0000", which RFC 5322 has for a time in UTC of unknown origin
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())

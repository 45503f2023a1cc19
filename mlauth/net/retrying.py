"""Faults that may pass are tried again inside the deadline, as long as the service asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mlauth.deadline import Deadline
from mlauth.forks import importing
from mlauth.net.faults import Fault

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
_CONNECTING = 5  # attempts to connect: what is throttled is worth more, what is mistyped is not


def retry(
    call: Callable[[], T | Fault], deadline: Deadline, *, attempts: int | None = None
) -> T | Fault:
    """Call a function until it returns no transient fault, with backoff, jitter and `Retry-After`.

    Args:
        call: one attempt.
        deadline: no attempt is waited for that would start after it.
        attempts: how many are made; by default five where there was no answer, and as many as the
            deadline lets where the service asks for patience.

    Returns:
        What the last attempt returned.
    """
    first = call()
    if not _is_transient(first):
        return first
    # Imported for the first fault: 20 ms and more, which a service that answers costs nobody.
    with importing:
        from tenacity import Retrying, retry_if_result, stop_before_delay, wait_random_exponential

    last, made = first, True

    def attempt() -> T | Fault:
        nonlocal last, made
        if made:  # the attempt that was made counts
            made = False
        elif deadline.remaining():  # else what was answered says more than that time is up
            last = call()
        return last

    def fault(state: RetryCallState) -> Fault:
        found = state.outcome.result() if state.outcome else None
        assert isinstance(found, Fault)
        return found

    backoff = wait_random_exponential(multiplier=0.2, max=5)

    def wait(state: RetryCallState) -> float:
        # Jitter on top: those who were told the same time would come back together.
        return (fault(state).wait or 0.0) + backoff(state)

    in_time = stop_before_delay(deadline.remaining())

    def enough(state: RetryCallState) -> bool:
        most = attempts or (_CONNECTING if fault(state).status is None else None)
        return in_time(state) or (most is not None and state.attempt_number >= most)

    retrying = Retrying(
        retry=retry_if_result(_is_transient),
        stop=enough,
        wait=wait,
        retry_error_callback=fault,
    )
    return retrying(attempt)


def _is_transient(result: object) -> bool:
    return isinstance(result, Fault) and result.transient

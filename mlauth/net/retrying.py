"""Repeats calls after transient faults, within the deadline, and waits as long as services ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mlauth.deadline import Deadline
from mlauth.forks import importing
from mlauth.net.faults import Fault

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
_CONNECTING = 5  # attempts to connect; the name may be mistyped, so more would only cost time


def retry(
    call: Callable[[], T | Fault], deadline: Deadline, *, attempts: int | None = None
) -> T | Fault:
    """Call a function until it returns no transient fault, with backoff, jitter and `Retry-After`.

    Args:
        call: makes one attempt.
        deadline: no attempt begins after it.
        attempts: how many attempts are made. By default, five if nothing answers, and as many as
            the deadline allows if a service answers with a transient status.

    Returns:
        The result of the last attempt.
    """
    first = call()
    if not _is_transient(first):
        return first
    # This import takes at least 20 ms, and only faults need it.
    with importing:
        from tenacity import Retrying, retry_if_result, stop_before_delay, wait_random_exponential

    last, made = first, True

    def attempt() -> T | Fault:
        nonlocal last, made
        if made:  # the first attempt was made above, and counts
            made = False
        elif deadline.remaining():  # without time, the last fault says more than a time-out would
            last = call()
        return last

    def fault(state: RetryCallState) -> Fault:
        found = state.outcome.result() if state.outcome else None
        assert isinstance(found, Fault)
        return found

    backoff = wait_random_exponential(multiplier=0.2, max=5)

    def wait(state: RetryCallState) -> float:
        # The random part keeps clients apart that were told to wait for the same time.
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

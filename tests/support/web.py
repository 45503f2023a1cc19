"""Faults on purpose of a service on loopback."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from mlauth.testing.web import NO_ANSWER, Answer, Call, Service, serve

__all__ = ["NO_ANSWER", "Answer", "Call", "Request", "Service", "Trouble", "Troubles", "serve"]


@dataclass(frozen=True)
class Request:
    """A request and the status of its answer (0: no answer), without headers and bodies."""

    method: str
    host: str
    path: str
    status: int

    @classmethod
    def of(cls, call: Call, answer: Answer) -> Request:
        return cls(call.method, call.host, call.path, answer.status)


@dataclass(frozen=True)
class Trouble:
    """An answer of `status`, or with None the right answer, after `wait` seconds.

    With `done`, the service first does what the request asks for, and only the answer comes late.
    With a `method`, the trouble is for the next request with this method.
    """

    status: int | None = None
    retry_after: int | None = None
    wait: float = 0.0
    answer: Answer | None = None
    done: bool = False
    method: str = ""

    def pass_time(self) -> None:
        """Wait in a daemon thread, which does not keep the process alive."""
        if self.wait:
            threading.Event().wait(self.wait)


class Troubles:
    """The faults of the next requests, in order; each request uses up one trouble."""

    def __init__(self) -> None:
        self._next: deque[Trouble] = deque()

    def throttle(self, n: int = 1, retry_after: int | None = 1) -> None:
        """Answer 429 to the next n, with `Retry-After` in seconds unless it is None."""
        self._next.extend([Trouble(429, retry_after)] * n)

    def fail(self, status: int, n: int = 1) -> None:
        """Answer the next n with a status, such as 500 or 503."""
        self._next.extend([Trouble(status)] * n)

    def late(self, seconds: float, n: int = 1) -> None:
        """Give the next n the right answer, after so many seconds."""
        self._next.extend([Trouble(wait=seconds)] * n)

    def done_late(self, seconds: float, n: int = 1, *, method: str = "") -> None:
        """Do at once what the next n ask for, and answer after so many seconds."""
        self._next.extend([Trouble(wait=seconds, done=True, method=method)] * n)

    def hang(self, n: int = 1, *, method: str = "") -> None:
        """Never answer the next n."""
        self._next.extend([Trouble(0, wait=600, method=method)] * n)

    def say(self, answer: Answer, n: int = 1) -> None:
        """Give the next n an answer that the service would not give."""
        self._next.extend([Trouble(answer.status, answer=answer)] * n)

    def clear(self) -> None:
        """Remove all troubles."""
        self._next.clear()

    def pop(self, method: str = "") -> Trouble:
        """Wait as the next trouble says, and return the trouble."""
        try:
            if self._next[0].method not in ("", method):
                return Trouble()
            trouble = self._next.popleft()
        except IndexError:
            return Trouble()
        if not trouble.done:
            trouble.pass_time()
        return trouble

"""The faults of a connection. Each is one line that says what to change."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from mlauth.text import plain

# HTTP statuses that say nothing about a credential: too slow, throttled, and every fault of a
# service or of a proxy before it (520 to 530 are from Cloudflare). A status has three digits.
TRANSIENT = frozenset({408, 429, *range(500, 1000)})
# Another attempt would end with the same status here, so none is made: not implemented, HTTP
# version not supported, and a network that wants its own login (RFC 9110, RFC 6585).
LASTING = frozenset({501, 505, 511})
# https://www.openssl.org/docs/man3.0/man3/X509_STORE_CTX_get_error.html
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_ADDRESS = 9, 10, 62, 64
_BROKEN_OFF = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
_UNKNOWN_CA = {2, 18, 19, 20, 21}


@dataclass(frozen=True)
class Fault:
    """The reason why a request got no usable answer. The caller turns it into an error.

    Attributes:
        line: what failed, where, why, and what to do.
        unknown: whether the credential or secret may be fine; otherwise, somebody must change
            something.
        transient: whether another attempt may help.
        sent: whether the service may have received the request.
        status: the HTTP status, if there was an answer.
        wait: seconds that the service asks to wait.
        location: the path of a redirect's target, if it has the same origin.
    """

    line: str
    unknown: bool = False
    transient: bool = False
    sent: bool = False
    status: int | None = None
    wait: float | None = None
    location: str | None = field(default=None, repr=False)


class FaultError(Exception):
    """Carries a fault out of a library's callback; the caller of the library takes the fault.

    Attributes:
        fault: the fault.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return self.fault.line


def busy(
    who: str, status: int, retry_after: str | None, *, does: str = "", fine: str = ""
) -> Fault:
    """Return the fault of a service that answers with a status of `TRANSIENT`.

    Args:
        who: the service, for the message.
        status: the HTTP status.
        retry_after: the header of that name.
        does: what the service does, if more is known than the status says.
        fine: an addition to the message, which says what may be fine.
    """
    does = does or ("throttles us" if status == 429 else "has a fault")
    return Fault(
        f"{who} {does} (HTTP {status}){fine}: try again later",
        unknown=True,
        transient=status not in LASTING,
        status=status,
        wait=wait_of(retry_after),
    )


def connection_fault(error: BaseException, host: str, *, trust: str) -> Fault | None:
    """Say why no connection could be made; any HTTP library may have raised the error.

    Args:
        error: the error; its causes are searched too.
        host: name and port, for messages.
        trust: how to make a CA known, for messages.

    Returns:
        The fault, or None if there was a connection (a time-out, an answer that was cut short).
    """
    for cause in causes(error):
        # urllib3, requests and httpx have a ProxyError. urllib3 also raises it for a connection
        # that breaks off in the tunnel; `explain` says that.
        if type(cause).__name__ == "ProxyError" and not any(
            isinstance(each, _BROKEN_OFF) for each in causes(cause)
        ):
            return Fault(
                f"the proxy gives no connection to {host}: is that name right, and are "
                "HTTPS_PROXY and NO_PROXY?",
                unknown=True,
                transient=True,
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Fault(_certificate(cause, host, trust))
        if isinstance(cause, ssl.SSLError) and cause.reason and not _ended(cause):
            if "WRONG_VERSION" in cause.reason or "RECORD_LAYER" in cause.reason:
                return Fault(f"{host} does not speak TLS on this port; is it the http port?")
            return Fault(
                f"{host}: TLS failed ({plain(cause.reason)}): is a proxy in the way, or a service "
                "with TLS that is too old?"
            )
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_AGAIN:
                return Fault(
                    f"the name {host} could not be looked up: the name server gave no answer; "
                    "check the network and the name",
                    unknown=True,
                    transient=True,
                )
            return Fault(
                f"there is no host of that name ({host}): check the spelling and this network's DNS"
            )
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return Fault(
                f"{host} refuses connections: is the service up, and the port right?",
                transient=True,
            )
    return None


def explain(
    error: BaseException, host: str, *, trust: str, where: str = "", within: str = "in time"
) -> Fault:
    """Say why a request got no answer; any HTTP library may have raised the error.

    Args:
        error: the error.
        host: see `connection_fault`.
        trust: see `connection_fault`.
        where: the URL that gave no answer, if more than the host is known.
        within: the time limit, in words.
    """
    fault = connection_fault(error, host, trust=trust)
    if fault is None and too_late(error):
        return Fault(
            f"{where or host} gave no answer {within}: is a firewall or proxy in the way? a busy "
            "service needs a longer timeout",
            unknown=True,
        )
    return fault or Fault(
        f"the connection to {host} broke off before the answer was whole: try again; if it stays "
        "so, is a firewall or proxy in the way?",
        unknown=True,
        transient=True,
    )


def too_late(error: BaseException) -> bool:
    """Say whether an error is about a time limit."""
    return any("Timeout" in type(cause).__name__ for cause in causes(error))


def _ended(error: ssl.SSLError) -> bool:
    """Say whether the other side ended the connection in the handshake: that is no fault of TLS."""
    return isinstance(error, ssl.SSLEOFError) or "EOF" in (error.reason or "")


def _certificate(error: ssl.SSLCertVerificationError, host: str, trust: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the TLS certificate of {host} has expired: renew it at the service"
    if code == _NOT_YET_VALID:
        return f"the TLS certificate of {host} is not valid yet: is this clock right?"
    if code in (_WRONG_HOST, _WRONG_ADDRESS):
        return (
            f"the TLS certificate of {host} is for another name: use the name that it was issued "
            "for"
        )
    if code in _UNKNOWN_CA:
        return f"the TLS certificate of {host} is from a CA that is not trusted here: {trust}"
    return f"the TLS certificate of {host} is not accepted: {plain(error.verify_message)}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all its causes; libraries keep some of them as attributes."""
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        kept = [getattr(cause, name, None) for name in ("reason", "inner_exception")]
        nested = [cause.__cause__ or cause.__context__, *kept, *cause.args]
        waiting += [each for each in nested if isinstance(each, BaseException)]


def wait_of(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110: seconds or a date), if it has any."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    from email.utils import parsedate_to_datetime  # a slow import for a rare header

    try:
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # "-0000" is UTC, from an unknown time zone (RFC 5322)
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())

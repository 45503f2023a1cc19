"""HTTP to a service that is given a credential: TLS verified, no redirect followed, bounded.

Faults that may pass are retried inside the deadline (tenacity), and every fault becomes one line:
`StageFailed` where somebody must change something, `StageUnknown` where it may be fine later.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from mlauth.checks import StageFailed, StageUnknown
from mlauth.deadline import Deadline

if TYPE_CHECKING:
    from tenacity import RetryCallState

_MOST_BYTES = 1024 * 1024
_ATTEMPTS = 5
_TRANSIENT = {408, 429, 500, 502, 503, 504}
# https://www.openssl.org/docs/man3.0/man3/X509_STORE_CTX_get_error.html
_NOT_YET_VALID, _EXPIRED, _WRONG_HOST, _WRONG_ADDRESS = 9, 10, 62, 64
_UNKNOWN_CA = {2, 18, 19, 20, 21}


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes:
        status: the HTTP status.
        body: the decoded JSON, or None where it is none.
        content_type: for messages.
    """

    status: int
    body: Any
    content_type: str


class _Transient(Exception):
    """A fault that may be gone in a moment."""

    def __init__(
        self, outcome: StageFailed | StageUnknown, retry_after: float | None = None
    ) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome
        self.retry_after = retry_after


class Service:
    """One service, one connection, one deadline. A context manager."""

    def __init__(self, url: str, deadline: Deadline, *, ca: str | None = None) -> None:
        """Prepare the client; does no I/O but to read the CA bundle.

        Args:
            url: scheme, host, port and prefix, without a trailing slash.
            deadline: bounds every request and retry.
            ca: a path to a CA bundle or its PEM text; by default what the variables
                `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` and `SSL_CERT_FILE` name (as the systems'
                own clients, which use requests), else certifi's.

        Raises:
            StageFailed: the CA bundle cannot be used.
        """
        self.url = url
        self.host = urlsplit(url).netloc
        self._deadline = deadline
        self._client = httpx.Client(
            base_url=url,
            follow_redirects=False,
            verify=_verification(url, ca),
            # A proxy would take what is meant for this machine elsewhere, and in clear.
            trust_env=not is_loopback(url),
            headers={"User-Agent": "mlauth", "Accept": "application/json"},
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        data: Mapping[str, str] | None = None,
        token: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, again if the fault may be gone, and return the answer below 500.

        Args:
            method: the HTTP method.
            path: appended to the service's URL.
            data: a form to send.
            token: a bearer token.
            params: the query.

        Raises:
            StageFailed: no such host, refused, TLS, or redirected.
            StageUnknown: throttled, a 5xx, or no whole answer in time.
        """
        # Imported for the first request: 10 ms, which a step that asks nobody is spared.
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_before_delay,
            wait_random_exponential,
        )

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        backoff = wait_random_exponential(multiplier=0.2, max=5)

        def wait(state: RetryCallState) -> float:
            fault = state.outcome.exception() if state.outcome else None
            asked = fault.retry_after if isinstance(fault, _Transient) else None
            return backoff(state) if asked is None else asked

        def send() -> Answer:
            try:
                return self._send(method, path, data=data, headers=headers, params=params)
            except (httpx.HTTPError, OSError) as error:
                # `from None`: httpx keeps the request, and so the credential, on its exceptions.
                raise self._explain(error, path) from None

        retrying = Retrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_before_delay(self._deadline.remaining()) | stop_after_attempt(_ATTEMPTS),
            wait=wait,
            reraise=True,
        )
        try:
            return retrying(send)
        except _Transient as fault:
            raise fault.outcome from None

    def _send(self, method: str, path: str, **kwargs: Any) -> Answer:
        timeout = max(0.05, self._deadline.remaining())
        with self._client.stream(method, path, timeout=timeout, **kwargs) as response:
            status = response.status_code
            if response.is_redirect:
                target = urlsplit(response.headers.get("location", "")).netloc or self.host
                raise StageFailed(
                    f"{self.url}{path} redirects ({status}) to {_plain(target)}; a credential is "
                    "sent to no other place: give the URL that answers itself (https? a path?)"
                )
            if status in _TRANSIENT:
                what = "throttles us" if status == 429 else "has a fault"
                raise _Transient(
                    StageUnknown(
                        f"{self.url}{path} {what} (HTTP {status}); the credential may be fine: "
                        "try again later"
                    ),
                    _retry_after(response.headers.get("retry-after")),
                )
            content = b"".join(_bounded(response.iter_bytes(), f"{self.url}{path}"))
            content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        try:
            body = httpx.Response(status, content=content).json()
        except (ValueError, RecursionError):
            body = None
        return Answer(status, body, _plain(content_type) or "no content type")

    def _explain(self, error: Exception, path: str) -> Exception:
        """Turn a fault of the connection into one line that says what to change."""
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return StageFailed(self._explain_certificate(cause))
            if isinstance(cause, ssl.SSLError) and cause.reason:
                if "WRONG_VERSION" in cause.reason or "RECORD_LAYER" in cause.reason:
                    return StageFailed(
                        f"{self.host} does not speak TLS on this port; is it the http port?"
                    )
                return StageFailed(f"{self.host}: TLS failed ({_plain(cause.reason)})")
            if isinstance(cause, socket.gaierror):
                if cause.errno == socket.EAI_AGAIN:
                    return _Transient(
                        StageUnknown(
                            f"the name {self.host} could not be looked up: the name server gave "
                            "no answer; check the network and the name"
                        )
                    )
                return StageFailed(
                    f"there is no host {self.host}: check the URL's spelling and this network's DNS"
                )
            if isinstance(cause, ConnectionRefusedError) or (
                isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED
            ):
                return _Transient(
                    StageFailed(
                        f"{self.host} refuses connections: is the service up, and the port right?"
                    )
                )
        if isinstance(error, httpx.TimeoutException):
            return StageUnknown(
                f"{self.url}{path} gave no answer within {self._deadline.seconds:g} s; is a "
                "firewall or proxy in the way? a busy service needs a longer timeout"
            )
        if isinstance(error, httpx.UnsupportedProtocol):
            return StageFailed(f"{self.url} is not a URL that HTTP can reach")
        return _Transient(
            StageUnknown(f"the connection to {self.host} broke off ({type(error).__name__})")
        )

    def _explain_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        code = error.verify_code
        if code == _EXPIRED:
            return f"the TLS certificate of {self.host} has expired: renew it at the service"
        if code == _NOT_YET_VALID:
            return f"the TLS certificate of {self.host} is not valid yet: is this clock right?"
        if code in (_WRONG_HOST, _WRONG_ADDRESS):
            return (
                f"the TLS certificate of {self.host} is for another name: use the name that it "
                "was issued for"
            )
        if code in _UNKNOWN_CA:
            return (
                f"the TLS certificate of {self.host} is from a CA that is not trusted here: give "
                "the CA as ca_bundle (ZENML_STORE_VERIFY_SSL=false is not honoured)"
            )
        return f"the TLS certificate of {self.host} is not accepted: {_plain(error.verify_message)}"


def is_loopback(url: str) -> bool:
    """Say whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def ca_problem(ca: str) -> str | None:
    """Say what is wrong with a CA bundle (path or PEM text), or return None."""
    name = "given as text" if "-----BEGIN" in ca else " ".join(ca.split())
    try:
        _context(ca)
    except FileNotFoundError:
        return f"the CA bundle {name} does not exist"
    except (ssl.SSLError, OSError, ValueError):
        return f"the CA bundle {name} cannot be read as PEM certificates"
    return None


def _context(ca: str) -> ssl.SSLContext:
    if "-----BEGIN" in ca:
        return ssl.create_default_context(cadata=ca)
    if os.path.isdir(ca):
        return ssl.create_default_context(capath=ca)
    return ssl.create_default_context(cafile=ca)


def _verification(url: str, ca: str | None) -> ssl.SSLContext | bool:
    if not url.startswith("https"):
        # Loading the CAs costs more than the request; a context without any trusts nobody.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in (None, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        chosen = ca if name is None else os.environ.get(name)
        if not chosen:
            continue
        problem = ca_problem(chosen)
        if problem:
            raise StageFailed(problem + (f" (from {name})" if name else ""))
        return _context(chosen)
    return True


def _bounded(chunks: Iterator[bytes], url: str) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MOST_BYTES:
            raise StageFailed(f"{url} answers with more than 1 MiB: it is not the service expected")
        yield chunk


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110: seconds or a date), if it has any."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _plain(text: str) -> str:
    """Return what a stranger sent as one short line of harmless characters."""
    return re.sub(r"[^\w .:/()\[\]@+-]", "?", text)[:80]

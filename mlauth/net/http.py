"""HTTP to a service that is given a credential: TLS verified, no redirect followed, bounded.

Faults that may pass are retried inside the deadline, and every fault becomes one line:
`StageFailed` where somebody must change something, `StageUnknown` where it may be fine later.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx
from pydantic import Secret

from mlauth.deadline import THREAD, Deadline
from mlauth.net.faults import LASTING, TRANSIENT, broken_off, connection_fault
from mlauth.net.retrying import CONNECTING, Transient, retry, retry_after
from mlauth.never_pickled import NeverPickled
from mlauth.report import StageFailed, StageUnknown
from mlauth.text import plain

_MOST_BYTES = 1024 * 1024
# Of everything else (`\`, `%2e`, full-width letters, a user) some program makes another host.
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")


def _shows_no_headers(record: logging.LogRecord) -> bool:
    """Drop what httpcore logs, at DEBUG, of answers to us: a login's has tokens in its cookies."""
    return record.threadName != THREAD or "receive_response_headers.complete" not in record.msg


logging.getLogger("httpcore.http11").addFilter(_shows_no_headers)


@dataclass(frozen=True)
class Answer(NeverPickled):
    """What a service answered.

    Attributes:
        status: the HTTP status.
        content: the decoded JSON, or None where it is none; a token may be in it.
        content_type: for messages.
    """

    status: int
    content: Secret[Any]
    content_type: str

    @property
    def body(self) -> Any:
        """What `content` holds."""
        return self.content.get_secret_value()


class Service:
    """One service, one connection, one deadline. A context manager.

    Trust and route are those of requests, which ZenML's client uses, so that what passes here
    passes there; but this machine is never asked through a proxy.
    """

    def __init__(self, url: str, deadline: Deadline, *, ca: str | None = None) -> None:
        """Prepare the client; does no I/O but to read the CA bundle.

        Args:
            url: scheme, host, port and prefix, without a trailing slash.
            deadline: bounds every request and retry.
            ca: a path to a CA bundle or its PEM text; by default that of `REQUESTS_CA_BUNDLE` or
                `CURL_CA_BUNDLE`, else certifi's.

        Raises:
            StageFailed: the CA bundle, the URL or the proxy cannot be used.
            StageUnknown: the way goes through a SOCKS proxy.
        """
        self.url = url
        self.host = urlsplit(url).netloc
        self._deadline = deadline
        self._sent = False
        proxy = None if is_loopback(url) else _usable_proxy(url)
        tls_to_proxy = proxy is not None and proxy.scheme == "https"
        verify = _verification(url.startswith("https") or tls_to_proxy, ca)
        # Many programs read it, but requests does not: whoever set it wonders why it is not enough.
        self._other_trust = verify is True and bool(os.environ.get("SSL_CERT_FILE"))
        trust = verify if tls_to_proxy and isinstance(verify, ssl.SSLContext) else None
        try:
            self._client = httpx.Client(
                base_url=url,
                follow_redirects=False,
                verify=verify,
                proxy=httpx.Proxy(proxy, ssl_context=trust) if proxy else None,
                # httpx reads other variables for trust and route, and stumbles over some values.
                trust_env=False,
                headers={
                    "User-Agent": "mlauth",
                    "Accept": "application/json",
                    # A few bytes may unpack to gigabytes, in one step of the decoder.
                    "Accept-Encoding": "identity",
                },
            )
        except httpx.InvalidURL:
            raise StageFailed(f"{url} is not a URL that HTTP can reach") from None

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
        json: Mapping[str, Any] | None = None,
        token: str | None = None,
        params: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> Answer:
        """Send a request, again if the fault may be gone, and return the answer below 500.

        Args:
            method: the HTTP method.
            path: appended to the service's URL.
            data: a form to send.
            json: an object to send, in place of a form.
            token: a bearer token.
            params: the query.
            once: never send it again: it must not be done twice.

        Raises:
            StageFailed: no such host, refused, TLS, or redirected.
            StageUnknown: throttled, a 5xx, or no whole answer in time.

        Both say in `sent` whether the service may have got the request.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        attempts = 1 if once else CONNECTING
        self._sent = False

        def send() -> Answer:
            try:
                return self._send(
                    method, path, data=data, json=json, headers=headers, params=params
                )
            except Transient as fault:
                fault.attempts = fault.attempts or attempts
                raise
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
                # `from None`: httpx keeps the request, and so the credential, on its exceptions.
                raise self._explain(error, path, attempts) from None

        try:
            return retry(send, self._deadline)
        except (StageFailed, StageUnknown) as error:
            error.sent = self._sent
            raise

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note that a request is about to leave, and keep it back when the time is up.

        httpcore calls this from inside: https://www.encode.io/httpcore/extensions/#trace
        """
        # A proxy is asked for a connection (CONNECT) before the service is asked for anything.
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            if not self._deadline.remaining():
                raise StageUnknown(
                    f"{self.url} was not asked in time: there was no connection within "
                    f"{self._deadline.seconds:g} s; is a firewall or proxy in the way? a busy "
                    "network needs a longer timeout"
                )
            self._sent = True

    def _send(self, method: str, path: str, **kwargs: Any) -> Answer:
        timeout = max(0.05, self._deadline.remaining())
        watched = {"trace": self._trace}
        with self._client.stream(
            method, path, timeout=timeout, extensions=watched, **kwargs
        ) as response:
            status = response.status_code
            if response.is_redirect:
                target = _host(response.headers.get("location", "")) or self.host
                raise StageFailed(
                    f"{self.url}{path} redirects ({status}) to {plain(target)}; a credential is "
                    "sent to no other place: give the URL that answers itself (https? a path?)"
                )
            if status in TRANSIENT:
                what = "throttles us" if status == 429 else "has a fault"
                raise Transient(
                    StageUnknown(
                        f"{self.url}{path} {what} (HTTP {status}); the credential may be fine: "
                        "try again later"
                    ),
                    retry_after(response.headers.get("retry-after")),
                    attempts=1 if status in LASTING else None,
                )
            _refuse_encoding(response.headers.get("content-encoding", ""), f"{self.url}{path}")
            content = b"".join(_bounded(response.iter_raw(), f"{self.url}{path}"))
            content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        try:
            body = httpx.Response(status, content=content).json()
        except (ValueError, RecursionError):
            body = None
        return Answer(status, Secret(body), plain(content_type) or "no content type")

    def _explain(self, error: Exception, path: str, attempts: int) -> Exception:
        """Turn a fault of the connection into one line that says what to change."""
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError)):
            return StageFailed(f"{self.url} is not a URL that HTTP can reach")
        fault = connection_fault(
            error,
            self.host,
            trust="give the CA as ca_bundle ("
            + (
                "ZenML's client does not read SSL_CERT_FILE)"
                if self._other_trust
                else "ZENML_STORE_VERIFY_SSL=false is not honoured)"
            ),
        )
        if fault is None and isinstance(error, httpx.TimeoutException):
            return StageUnknown(
                f"{self.url}{path} gave no answer within {self._deadline.seconds:g} s; is a "
                "firewall or proxy in the way? a busy service needs a longer timeout"
            )
        if fault is None:
            fault = broken_off(self.host)
        outcome = (StageUnknown if fault.unknown else StageFailed)(fault.line)
        return Transient(outcome, attempts=attempts) if fault.transient else outcome


def _host(location: str) -> str:
    try:
        return urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return "a place that is no URL"


def has_plain_host(url: str) -> bool:
    """Say whether every program takes the same host from a URL, whatever its parser."""
    return bool(_HOST_AND_PORT.fullmatch(urlsplit(url).netloc)) and "\\" not in url


def is_loopback(url: str) -> bool:
    """Say whether a URL points to this machine, whatever program reads it."""
    if not has_plain_host(url):
        return False
    host = urlsplit(url).hostname or ""
    # glibc alone, as in most containers, looks `x.localhost` up in DNS.
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def makes_a_detour(url: str) -> bool:
    """Say whether ZenML's client would ask a server on this machine through a proxy."""
    return is_loopback(url) and _proxy(url) is not None


def _usable_proxy(url: str) -> httpx.URL | None:
    """Return the proxy to ask a URL through, or None.

    Raises:
        StageFailed: what the environment names is no proxy that HTTP can use.
        StageUnknown: it is a SOCKS proxy.
    """
    proxy = _proxy(url)
    if proxy is None:
        return None
    parts = urlsplit(url)
    line = (
        f"{parts.netloc} is to be reached through the proxy of {parts.scheme.upper()}_PROXY or "
        "ALL_PROXY here"
    )
    what_to_do = "name one with http://host:port, or put the host into NO_PROXY"
    if proxy.scheme.startswith("socks"):
        if find_spec("socks") is None:
            raise StageFailed(
                f"{line}, and ZenML's client cannot use SOCKS without PySocks: {what_to_do}"
            )
        raise StageUnknown(f"{line}, and mlauth cannot use SOCKS: {what_to_do}")
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise StageFailed(f"{line}, which is no proxy for HTTP: {what_to_do}")
    return proxy


def _proxy(url: str) -> httpx.URL | None:
    """Return the proxy through which requests, and so ZenML's client, asks a URL here, or None.

    Not as text: httpx's URLs do not show the password in one.
    """
    if not getproxies():
        return None
    # The rule for NO_PROXY differs from httpx's, and from version to version, so requests is asked.
    # Imported where a proxy is configured: 0.1 s, which nobody else is to wait for.
    from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

    chosen = select_proxy(url, get_environ_proxies(url))
    try:
        return httpx.URL(prepend_scheme_if_needed(chosen, "http")) if chosen else None
    except (ValueError, TypeError, httpx.InvalidURL):  # TypeError: requests', of a URL without host
        return httpx.URL()


def netrc_problem(url: str) -> str | None:
    """Say whether `.netrc` makes requests send something else than the token that it is given.

    Seen with requests 2.34 and ZenML 0.98: an entry for the host, or `default`, replaces the
    `Authorization` header (https://github.com/psf/requests/issues/3929). httpx does not read it.
    """
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    found = [name for name in files if os.path.exists(os.path.expanduser(name))]
    if not found:
        return None
    from requests.utils import get_netrc_auth

    try:
        if get_netrc_auth(url) is None:
            return None
    except UnicodeDecodeError:
        return (
            f"{found[0]} is no text, and ZenML's client stops there: correct it, or set "
            "NETRC=/dev/null"
        )
    return (
        f"{found[0]} has an entry for {urlsplit(url).hostname} or a default one, and ZenML's "
        "client would send that in place of its token: remove the entry, or set NETRC=/dev/null"
    )


def ca_problem(ca: str) -> str | None:
    """Say what is wrong with a CA bundle (path or PEM text), or return None."""
    if not ca:
        return "the CA bundle has an empty name"
    if "-----BEGIN" not in ca and os.path.isdir(ca):
        return f"the CA bundle {ca} is a directory, which ZenML's client does not take"
    try:
        _context(ca)
    except FileNotFoundError:
        return f"the CA bundle {_name(ca)} does not exist"
    except (ssl.SSLError, OSError, ValueError, TypeError):
        return f"the CA bundle {_name(ca)} cannot be read as PEM certificates"
    return None


def _name(ca: str) -> str:
    return "given as text" if "-----BEGIN" in ca else " ".join(ca.split())


def _context(ca: str) -> ssl.SSLContext:
    if "-----BEGIN" in ca:
        return ssl.create_default_context(cadata=ca)
    return ssl.create_default_context(cafile=ca)


def _verification(tls: bool, ca: str | None) -> ssl.SSLContext | bool:
    if not tls:
        # Loading the CAs costs more than the request; a context without any trusts nobody.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        problem = ca_problem(ca)
        if problem:
            raise StageFailed(f"{problem}: correct ca_bundle or ZENML_STORE_VERIFY_SSL")
        return _context(ca)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name)
        if not path:
            continue
        if os.path.isdir(path):  # requests takes one, with the names that c_rehash gives
            return ssl.create_default_context(capath=path)
        if not os.path.exists(path):  # nor is PEM text, which requests does not take
            raise StageFailed(f"the CA bundle {_name(path)} does not exist: correct {name}")
        problem = ca_problem(path)
        if problem:
            raise StageFailed(f"{problem}: correct {name}")
        return _context(path)
    return True


def _refuse_encoding(encoding: str, url: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise StageFailed(
            f"{url} answers in the encoding {plain(encoding)!r}, though none was asked for: is a "
            "proxy in the way?"
        )


def _bounded(chunks: Iterator[bytes], url: str) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MOST_BYTES:
            raise StageFailed(f"{url} answers with more than 1 MiB: is it another service's URL?")
        yield chunk

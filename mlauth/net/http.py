"""HTTP to a service that gets a credential: TLS is verified, and no redirect is followed.

Time and sizes are limited. Transient faults are retried within the deadline. A fault that remains
is returned as a `Fault`, because only the caller knows its meaning.
"""

from __future__ import annotations

import base64
import json as json_of
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretBytes, SecretStr

from mlauth import hosts
from mlauth.deadline import THREAD, Deadline
from mlauth.forks import importing
from mlauth.net.faults import TRANSIENT, Fault, FaultError, busy, explain
from mlauth.net.retrying import retry
from mlauth.net.route import Client, http_problem, proxy_to, trust_in
from mlauth.never_pickled import NeverPickled
from mlauth.text import plain

if TYPE_CHECKING:
    import httpx

_MOST_BYTES = 1024 * 1024
_ATTEMPTS = 5
_IN_A_HEADER = re.compile(r"[\x20-\x7e]*")

Text: TypeAlias = "str | SecretStr"
S = TypeVar("S", bound="Service")


def _shows_no_headers(record: logging.LogRecord) -> bool:
    """Drop httpcore's DEBUG records of answers to us: cookies of a login hold tokens."""
    return record.threadName != THREAD or "receive_response_headers.complete" not in record.msg


logging.getLogger("httpcore.http11").addFilter(_shows_no_headers)


@dataclass(frozen=True)
class Bearer(NeverPickled):
    """A token for the header of RFC 6750."""

    token: SecretStr

    def header(self) -> str:
        """Return the value of the header `Authorization`."""
        return f"Bearer {self.token.get_secret_value()}"


@dataclass(frozen=True)
class Basic(NeverPickled):
    """A user, whose name has no colon, and a password, for the header of RFC 7617."""

    user: str
    password: SecretStr

    def header(self) -> str:
        """See `Bearer.header`."""
        pair = f"{self.user}:{self.password.get_secret_value()}".encode(errors="surrogateescape")
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True)
class Answer(NeverPickled):
    """The answer of a service.

    Attributes:
        status: the HTTP status.
        content: the body; it may hold a token.
        content_type: the type of the body, for messages.
        headers: the headers that the caller wanted, by their names in lower case.
    """

    status: int
    content: SecretBytes
    content_type: str
    headers: Mapping[str, SecretStr] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The body as text; it is decoded as UTF-8."""
        return self.content.get_secret_value().decode(errors="replace")

    @property
    def json(self) -> Any:
        """The body as parsed JSON, or None if it is no JSON."""
        try:
            return json_of.loads(self.content.get_secret_value())
        except (ValueError, RecursionError):
            return None


class Service:
    """One service, one connection, one deadline. A context manager; see `mlauth.net.route`."""

    def __init__(
        self,
        url: str,
        deadline: Deadline,
        *,
        ca: str | None = None,
        client: Client | None = None,
        insecure: bool = False,
    ) -> None:
        """Remember where to ask; does no I/O.

        Args:
            url: scheme, host, port and prefix, without a trailing slash.
            deadline: the time limit of all requests and retries.
            ca: a path to a CA bundle or its PEM text; by default the bundle of
                `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`, else of certifi.
            client: the system's own client, for messages.
            insecure: let http go beyond this machine, in clear: a person has asked for that.
        """
        self.url = url
        self.host = urlsplit(url).netloc
        self._deadline = deadline
        self._ca = ca
        self._insecure = insecure
        self._words = client or Client()
        self._advice = self._words.trust
        self._client: httpx.Client | None = None
        self._sent = False

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._client is not None:
            self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        auth: Bearer | Basic | None = None,
        headers: Mapping[str, Text] | None = None,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, Text] | None = None,
        json: Mapping[str, Any] | None = None,
        keep: Iterable[str] = (),
        once: bool = False,
    ) -> Answer | Fault:
        """Send a request; repeat it after transient faults.

        Args:
            method: the HTTP method.
            path: appended to the service's URL.
            auth: the credential. Nothing replaces it (such as `.netrc`), and no cookie is sent.
            headers: more headers.
            params: the query. Proxies log it, so it must hold no secret.
            data: a form to send.
            json: an object to send, in place of a form.
            keep: the names of the wanted headers of the answer.
            once: never repeat the request, because it must not be done twice.

        Returns:
            The answer, if its status is below 500 and it neither redirects nor throttles;
            otherwise the fault.
        """
        self._sent = False
        refused = self._refusal()
        if refused:
            return Fault(refused)
        with importing:
            import httpx

        def send() -> Answer | Fault:
            try:
                return self._send(
                    method, path, auth, headers or {}, data or {}, keep, params=params, json=json
                )
            except FaultError as error:
                return error.fault
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
                # The error goes no further, because it holds the request and so the credential.
                return self._explain(error, path)

        result = retry(send, self._deadline, attempts=1 if once else _ATTEMPTS)
        return replace(result, sent=self._sent) if isinstance(result, Fault) else result

    def _refusal(self) -> str | None:
        """Say why no credential goes there, whoever asks, or return None."""
        problem = None if self._insecure else http_problem(self.url)
        if problem:
            return f"{self.url}: {problem}"
        return hosts.refusal([urlsplit(self.url).hostname or ""])

    def _open(self) -> httpx.Client:
        if self._client is not None:
            return self._client
        import httpx

        proxy = proxy_to(self.url, self._words)
        tls_to_proxy = proxy is not None and proxy.scheme == "https"
        trust = trust_in(self._ca, self._words, tls=tls_to_proxy or self.url.startswith("https"))
        if trust is None and os.environ.get("SSL_CERT_FILE"):
            # Many programs read it, but requests does not: whoever set it wonders why.
            self._advice = (
                f"give the CA as ca_bundle ({self._words.name} does not read SSL_CERT_FILE)"
            )
        self._client = httpx.Client(
            base_url=self.url,
            follow_redirects=False,
            verify=trust or True,
            proxy=httpx.Proxy(proxy, ssl_context=trust if tls_to_proxy else None)
            if proxy
            else None,
            # httpx would read other variables for trust and proxies, and fails on some values.
            trust_env=False,
            headers={
                "User-Agent": "mlauth",
                "Accept": "application/json",
                # An unpacked answer could fill the memory: a few bytes can become gigabytes.
                "Accept-Encoding": "identity",
            },
        )
        return self._client

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Note that a request is about to be sent, and stop it if the time is up.

        httpcore calls this: https://www.encode.io/httpcore/extensions/#trace
        """
        # CONNECT goes to a proxy, before the request to the service.
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            if not self._deadline.remaining():
                raise FaultError(
                    Fault(
                        f"{self.url} was not asked in time: there was no connection within "
                        f"{self._deadline.seconds:g} s; is a firewall or proxy in the way? a busy "
                        "network needs a longer timeout",
                        unknown=True,
                    )
                )
            self._sent = True

    def _send(
        self,
        method: str,
        path: str,
        auth: Bearer | Basic | None,
        headers: Mapping[str, Text],
        data: Mapping[str, Text],
        keep: Iterable[str],
        **rest: Any,
    ) -> Answer | Fault:
        client, where = self._open(), f"{self.url}{path}"
        client.cookies.clear()  # the cookie of a login would be a second credential
        with client.stream(
            method,
            f"/{path.removeprefix('/')}",  # with the slash, it can name no other origin
            headers=_headers(auth, headers),
            data=_clear(data),
            timeout=max(0.05, self._deadline.remaining()),
            extensions={"trace": self._trace},
            **rest,
        ) as response:
            status, said = response.status_code, response.headers
            if response.next_request is not None:
                return _redirected(where, status, response.url, response.next_request.url)
            if status in TRANSIENT:
                return busy(
                    where, status, said.get("retry-after"), fine="; the credential may be fine"
                )
            encoding = said.get("content-encoding", "").strip().lower()
            if encoding not in ("", "identity"):
                return Fault(
                    f"{where} answers in the encoding {plain(encoding)!r}, though none was asked "
                    "for: is a proxy in the way?"
                )
            content = bytearray()
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > _MOST_BYTES:
                    return Fault(
                        f"{where} answers with more than 1 MiB: is it another service's URL?"
                    )
        return Answer(
            status,
            SecretBytes(bytes(content)),
            plain(said.get("content-type", "").partition(";")[0].strip()) or "no content type",
            {name.lower(): SecretStr(said[name]) for name in keep if name in said},
        )

    def _explain(self, error: Exception, path: str) -> Fault:
        """Turn an exception into one line that says what to change."""
        import httpx

        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError)):
            return Fault(f"{self.url} is not a URL that HTTP can reach")
        return explain(
            error,
            self.host,
            trust=self._advice,
            where=f"{self.url}{path}",
            within=f"within {self._deadline.seconds:g} s",
        )


def _clear(values: Mapping[str, Text]) -> dict[str, str]:
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
    }


def _headers(auth: Bearer | Basic | None, headers: Mapping[str, Text]) -> dict[str, str]:
    made = _clear(headers) | ({"Authorization": auth.header()} if auth else {})
    for name, value in made.items():
        if not _IN_A_HEADER.fullmatch(value):
            del made, value  # a traceback may show local variables
            raise FaultError(
                Fault(
                    f"the header {name} cannot hold its value, which is not printable ASCII: is it "
                    "stored whole, and as text?"
                )
            )
    return made


def _redirected(where: str, status: int, asked: httpx.URL, target: httpx.URL) -> Fault:
    host = plain(target.netloc.decode())
    same = (asked.scheme, asked.netloc) == (target.scheme, target.netloc)
    return Fault(
        f"{where} redirects ({status}) to {host}, and a credential is sent to no other place: give "
        "the URL that answers without a redirect (https? a path?)",
        status=status,
        location=target.path if same else None,
    )

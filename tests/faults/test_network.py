"""Every fault of the network, once, at the HTTP service that all systems ask through."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from mlauth.deadline import Deadline
from mlauth.net.faults import Fault
from mlauth.net.http import Bearer, Service
from tests.faults.conftest import Certificates
from tests.faults.tables import Row
from tests.support.connect_proxy import connect_proxy
from tests.support.faults import Reply, answer, endless, faulty, reset, silent

CANARY = "canary-key-77"
SOON, LONG = 1.0, 30.0  # the time limits of faults that wait for it, and of faults that do not
ANSWERS = answer(200)


@dataclass(frozen=True)
class NetworkFault(Row):
    """A fault of the network.

    Attributes:
        replies: the service's answers; the line is the same for each.
        tls: the service's certificate; see `Certificates`.
        scheme: the scheme of the URL.
        dns: the answer of the name server.
        variables: variables of the environment; PROXY is a proxy that connects to nothing.
        ca: the CA bundle of the section, in place of the right one.
        waits: whether the request waits, or is repeated, until the time limit.
    """

    replies: tuple[Reply, ...] = (ANSWERS,)
    tls: str = ""
    scheme: str = ""
    dns: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)
    ca: str = ""
    waits: bool = False


def _tls(line: str, certificate: str, **more: str) -> NetworkFault:
    return NetworkFault("TLS", "failed", line, (silent,), certificate, **more)  # type: ignore[arg-type]


def _statuses(*statuses: int) -> tuple[Reply, ...]:
    """Answer with each status, and ask for a wait beyond the time limit, so that nobody waits."""
    return tuple(answer(each, CANARY.encode(), Retry_After="86400") for each in statuses)


def _later(connection: socket.socket, server: object) -> None:
    answer(429, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")(connection, server)  # type: ignore[arg-type]


ROWS = [
    NetworkFault(
        "name or port",
        "failed",
        "there is no host of that name (HOST): check the spelling and this network's DNS",
        dns=socket.EAI_NONAME,
    ),
    NetworkFault(
        "name server",
        "unknown",
        "the name HOST could not be looked up: the name server gave no answer; check the network "
        "and the name",
        dns=socket.EAI_AGAIN,
        waits=True,
    ),
    NetworkFault(
        "name or port",
        "failed",
        "HOST refuses connections: is the service up, and the port right?",
        replies=(),
        waits=True,
    ),
    NetworkFault(
        "proxy",
        "unknown",
        "the proxy gives no connection to HOST: is that name right, and are HTTPS_PROXY and "
        "NO_PROXY?",
        variables={"HTTPS_PROXY": "PROXY"},
        waits=True,
    ),
    NetworkFault(
        "proxy",
        "unknown",
        "HOST is reached through the proxy of HTTPS_PROXY or ALL_PROXY here, and mlauth "
        "cannot use SOCKS: name one with http://host:port, or put the host into NO_PROXY",
        variables={"HTTPS_PROXY": f"socks5://me:{CANARY}@127.0.0.1:1080"},
    ),
    NetworkFault(
        "proxy",
        "failed",
        "HOST is reached through the proxy of HTTPS_PROXY or ALL_PROXY here, which is no "
        "proxy for HTTP: name one with http://host:port, or put the host into NO_PROXY",
        variables={"HTTPS_PROXY": f"ftp://{CANARY}"},
        shown=False,
    ),
    _tls("the TLS certificate of HOST has expired: renew it at the service", "expired"),
    _tls("the TLS certificate of HOST is not valid yet: is this clock right?", "early"),
    _tls(
        "the TLS certificate of HOST is for another name: use the name that it was issued for",
        "other",
    ),
    _tls(
        "the TLS certificate of HOST is from a CA that is not trusted here: give the CA as "
        "ca_bundle",
        "unknown",
    ),
    NetworkFault(
        "TLS",
        "failed",
        "HOST does not speak TLS on this port; is it the http port?",
        (answer(400),),
        scheme="https",
    ),
    NetworkFault(
        "TLS",
        "failed",
        "HOST: TLS failed (REASON): is a proxy in the way, or a service with TLS that is too old?",
        tls="old",
    ),
    NetworkFault(
        "CA bundle",
        "failed",
        "the CA bundle FILE does not exist: correct ca_bundle",
        tls="good",
        ca="/nowhere/ca.pem",
    ),
    NetworkFault(
        "CA bundle",
        "failed",
        "the CA bundle FILE does not exist: correct REQUESTS_CA_BUNDLE",
        variables={"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"},
        shown=False,
    ),
    NetworkFault(
        "CA bundle",
        "failed",
        "the CA bundle FILE cannot be read as PEM certificates: correct ca_bundle",
        tls="good",
        ca=__file__,
    ),
    NetworkFault(
        "no whole answer",
        "unknown",
        "URL gave no answer within N s: is a firewall or proxy in the way? a busy service needs a "
        "longer timeout",
        (silent,),
        waits=True,
    ),
    NetworkFault(
        "no whole answer",
        "unknown",
        "the connection to HOST broke off before the answer was whole: try again; if it stays so, "
        "is a firewall or proxy in the way?",
        (reset,),
        waits=True,
    ),
    NetworkFault(
        "redirect",
        "failed",
        "URL redirects (STATUS) to HOST, and a credential is sent to no other place: give the "
        "URL that answers without a redirect (https? a path?)",
        tuple(
            answer(status, Location=there)
            for status in (301, 302, 303, 307, 308)
            for there in ("/there", f"https://other.example.com/{CANARY}")
        ),
    ),
    NetworkFault(
        "HTTP 408, 429, 500 and above",
        "unknown",
        "URL throttles us (HTTP STATUS); the credential may be fine: try again later",
        (*_statuses(429), _later),
    ),
    NetworkFault(
        "HTTP 408, 429, 500 and above",
        "unknown",
        "URL has a fault (HTTP STATUS); the credential may be fine: try again later",
        _statuses(408, 500, 501, 502, 503, 504, 505, 507, 511, 520, 530, 599, 999),
    ),
    NetworkFault(
        "odd answer",
        "failed",
        "URL answers with more than 1 MiB: is it another service's URL?",
        (endless,),
    ),
    NetworkFault(
        "odd answer",
        "failed",
        "URL answers in the encoding 'gzip', though none was asked for: is a proxy in the way?",
        (answer(200, b"packed", Content_Encoding="gzip"),),
    ),
]


@pytest.fixture(autouse=True)
def _no_proxy_and_no_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    """A proxy that connects to nothing."""
    with connect_proxy({}, lambda host: True) as started:
        yield started.url


def ask(url: str, ca: str | None, seconds: float) -> Fault:
    """Send a request that carries a secret, as a login does."""
    start, deadline = time.monotonic(), Deadline(seconds)
    with Service(url, deadline, ca=ca) as service:
        auth, data = Bearer(SecretStr(CANARY)), {"password": CANARY}
        found = service.request("POST", "/login", auth=auth, data=data)
    assert isinstance(found, Fault)
    assert time.monotonic() - start < LONG  # a fault that waits would take minutes
    return found


def in_words_of_the_table(line: str, url: str, file: str = "") -> str:
    for said, shown in (
        (f"{re.escape(url)}/login", "URL"),
        (re.escape(url.partition("://")[2]), "HOST"),
        (r"other\.example\.com", "HOST"),
        (re.escape(file) if file else r"\A\Z", "FILE"),
        (r"\((HTTP )?\d{3}\)", r"(\1STATUS)"),
        (r"\([A-Z][A-Za-z0-9_ ]+_[A-Za-z0-9_ ]+\)", "(REASON)"),
        (rf"within {SOON:g} s", "within N s"),
    ):
        line = re.sub(said, shown, line)
    return line


def _dns(code: int) -> Callable[..., None]:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "said by the name server")

    return fails


@pytest.mark.parametrize("fault", ROWS, ids=lambda each: each.what)
def test_a_fault_is_one_line_in_time_without_the_credential(
    fault: NetworkFault, certificates: Certificates, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fault.variables.items():
        monkeypatch.setenv(name, value.replace("PROXY", proxy))
    if fault.dns:
        monkeypatch.setattr(socket, "getaddrinfo", _dns(fault.dns))
    for reply in fault.replies or (silent,):
        with faulty(reply, tls=certificates.contexts[fault.tls]) as server:
            elsewhere = fault.dns or fault.variables
            url = "https://acme.example.com" if elsewhere else server.url
            if fault.scheme:
                url = url.replace("http:", f"{fault.scheme}:")
            if not fault.replies:
                server.close()
            ca = fault.ca or (None if fault.variables else str(certificates.bundle))
            found = ask(url, ca, SOON if fault.waits else LONG)
        file = fault.ca or fault.variables.get("REQUESTS_CA_BUNDLE", "")
        assert in_words_of_the_table(found.line, url, file) == fault.line
        assert found.unknown is (fault.ends == "unknown")
        assert CANARY not in repr(found)

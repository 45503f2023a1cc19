from __future__ import annotations

import base64
import datetime as dt
import gzip
import hashlib
import re
import socket
import ssl
import sys
import time
import tracemalloc
import zlib
from email.utils import format_datetime
from pathlib import Path

import pytest
import requests
import trustme
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from mlauth.deadline import Deadline
from mlauth.net.faults import Fault, FaultError
from mlauth.net.http import Answer, Basic, Bearer, Service
from mlauth.net.route import Client, ca_problem, is_loopback, netrc_problem, proxy_to
from tests.support import web
from tests.support.connect_proxy import connect_proxy
from tests.support.faults import (
    FaultyServer,
    Reply,
    answer,
    endless,
    faulty,
    reset,
    silent,
)
from tests.support.waiting import until

CANARY = "canary-key-77"
LIMIT = 1.5
CLIENT = Client("ACME's client", "ca_bundle or ACME_VERIFY", "give the CA as ca_bundle (not so)")
FAILED, UNKNOWN = False, True


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def tried(url: str, ca: str | None = None, limit: float = LIMIT) -> Answer | Fault:
    """Send a request that carries a secret, as a login does, inside a deadline."""
    deadline = Deadline(limit)

    def send() -> Answer | Fault:
        # Routes are tried with http, too.
        with Service(url, deadline.inner(), ca=ca, client=CLIENT, insecure=True) as service:
            auth = Bearer(SecretStr(CANARY))
            return service.request("POST", "/login", data={"password": CANARY}, auth=auth)

    return deadline.run(send, "the probe")


def ask(url: str, ca: str | None = None, limit: float = LIMIT) -> Answer:
    answer = tried(url, ca, limit)
    assert isinstance(answer, Answer)
    return answer


def fault(url: str, ca: str | None = None) -> Fault:
    start = time.monotonic()
    found = tried(url, ca)
    assert isinstance(found, Fault)
    assert time.monotonic() - start < LIMIT + 2
    assert "\n" not in found.line
    assert CANARY not in repr(found)
    return found


def refusal(unknown: bool, url: str, ca: str | None = None) -> str:
    found = fault(url, ca)
    assert found.unknown is unknown
    return found.line


def test_an_answer_is_decoded() -> None:
    with faulty(answer(200, b'{"a": 1}')) as server:
        answered = ask(server.url)
        assert answered == Answer(200, SecretBytes(b'{"a": 1}'), "application/json")
        assert answered.json == {"a": 1}


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 409])
def test_an_answer_below_500_is_the_callers_to_judge(status: int) -> None:
    with faulty(answer(status, b"<html>", content_type="text/html; charset=x")) as server:
        assert ask(server.url) == Answer(status, SecretBytes(b"<html>"), "text/html")
        assert len(server.requests) == 1


def page_of(user: str, password: str) -> web.Service:
    """Serve a page and a cookie to requests with this user and password."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()

    def page(call: web.Call) -> web.Answer:
        headers = {"X-Size": "7", "X-Echo": CANARY, "Set-Cookie": f"session={CANARY}"}
        if call.headers.get("authorization") != f"Basic {pair}" or "cookie" in call.headers:
            return web.Answer(401, b"<p>no</p>", {"WWW-Authenticate": 'Basic realm="x"'})
        return web.Answer(200, "<p>gr\u00fcezi</p>".encode(), headers)

    return page


def test_basic_gets_a_page_and_the_headers_that_are_wanted() -> None:
    password = f"{CANARY}:p\u00e4ss"
    with (
        web.serve(page_of("me", password)) as port,
        Service(f"http://127.0.0.1:{port}", Deadline(LIMIT)) as service,
    ):
        auth, keep = Basic("me", SecretStr(password)), ["x-size", "X-Echo", "X-None"]
        for _ in range(2):  # the second one without the cookie of the first
            found = service.request("GET", "/", auth=auth, keep=keep)
            assert isinstance(found, Answer)
            assert (found.status, found.content_type) == (200, "text/html")
            assert (found.text, found.json) == ("<p>gr\u00fcezi</p>", None)
            headers = {name: value.get_secret_value() for name, value in found.headers.items()}
            assert headers == {"x-size": "7", "x-echo": CANARY}
            assert CANARY not in f"{found!r} {auth!r} {vars(found)} {vars(service)}"
        refused = service.request("GET", "/", keep=["WWW-Authenticate"])
    assert isinstance(refused, Answer)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].get_secret_value() == 'Basic realm="x"'


def test_the_headers_of_a_request_are_the_callers() -> None:
    headers = {"Accept": "application/vnd.acme+json", "X-Acme-Token": SecretStr(CANARY)}
    with (
        faulty(answer(200)) as server,
        Service(server.url, Deadline(LIMIT), client=CLIENT) as service,
    ):
        assert isinstance(service.request("GET", "/", headers=headers), Answer)
        head = server.requests[0].decode()
        assert f"\r\nX-Acme-Token: {CANARY}\r\n" in head
        assert "\r\nAccept: application/vnd.acme+json\r\n" in head
        assert "Authorization" not in head


@pytest.mark.parametrize("value", [f"{CANARY}\r\nX: y", f"{CANARY}\n", f"{CANARY}\u00e9", "\udcff"])
def test_a_value_that_no_header_can_hold_is_not_sent(value: str) -> None:
    with (
        faulty(answer(200)) as server,
        Service(server.url, Deadline(LIMIT)) as service,
    ):
        asked = [
            service.request("GET", "/", auth=Bearer(SecretStr(value))),
            service.request("GET", "/", headers={"Authorization": SecretStr(value)}),
        ]
        for found in asked:
            assert isinstance(found, Fault)
            assert found.line == (
                "the header Authorization cannot hold its value, which is not printable ASCII: is "
                "it stored whole, and as text?"
            )
            assert (found.sent, found.unknown, found.transient) == (False, False, False)
        assert server.requests == []


@pytest.mark.parametrize("path", ["PATH", "//HOST/login", "/PATH", "\\\\HOST/login"])
def test_no_path_leads_to_another_origin(path: str) -> None:
    with (
        faulty(answer(200)) as other,
        faulty(answer(200)) as server,
        Service(server.url, Deadline(LIMIT)) as service,
    ):
        path = path.replace("PATH", other.url).replace("HOST", f"127.0.0.1:{other.port}")
        service.request("GET", path, auth=Bearer(SecretStr(CANARY)))
        assert other.requests == []


def test_a_connection_that_breaks_off_is_retried() -> None:
    with faulty(reset, answer(200)) as server:
        assert ask(server.url).status == 200


def test_a_fault_that_may_pass_is_retried() -> None:
    with faulty(answer(503)) as server:
        assert "(HTTP 503)" in refusal(UNKNOWN, server.url)
        assert 1 < len(server.requests) <= 5
    with faulty(answer(408), answer(503), answer(200)) as server:
        assert ask(server.url, limit=20).status == 200
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [501, 505, 511])
def test_a_fault_that_stays_is_unknown_and_not_retried(status: int) -> None:
    with faulty(answer(status, b"canary-body")) as server:
        assert f"has a fault (HTTP {status})" in refusal(UNKNOWN, server.url)
        assert len(server.requests) == 1


def test_the_wait_that_a_service_asks_for_is_kept() -> None:
    with faulty(answer(429, Retry_After="1"), answer(200)) as server:
        start = time.monotonic()
        assert ask(server.url, limit=20).status == 200
        assert time.monotonic() - start >= 1
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=3)
    with faulty(answer(503, Retry_After=format_datetime(soon, usegmt=True)), answer(200)) as server:
        start = time.monotonic()
        assert ask(server.url, limit=20).status == 200
        assert time.monotonic() - start >= 1


@pytest.mark.parametrize("wait", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_wait_that_is_longer_than_the_deadline_is_not_begun(wait: str) -> None:
    with faulty(answer(429, Retry_After=wait)) as server:
        start = time.monotonic()
        found = fault(server.url)
        assert time.monotonic() - start < 1
        assert len(server.requests) == 1
    assert (found.status, found.unknown, found.transient, found.sent) == (429, True, True, True)
    assert found.wait is not None
    assert found.wait >= 3600


def test_a_wait_that_nobody_can_read_is_left_to_the_backoff() -> None:
    with faulty(answer(429, Retry_After="soon"), answer(200)) as server:
        assert ask(server.url, limit=20).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_with_a_credential(status: int) -> None:
    with faulty(answer(200)) as other:
        with faulty(answer(status, Location=f"{other.url}/canary?x=canary")) as server:
            found = fault(server.url)
            assert f"redirects ({status}) to 127.0.0.1:{other.port}" in found.line
            assert "canary" not in found.line
            assert (found.status, found.location, found.unknown) == (status, None, False)
        assert other.requests == []


@pytest.mark.parametrize("there", ["/new/login", "URL/new/login?x=1#y", "//me@HOST/new/login"])
def test_a_new_place_on_the_same_origin_is_said_and_not_followed(there: str) -> None:
    def redirect(connection: socket.socket, server: FaultyServer) -> None:
        place = there.replace("URL", server.url).replace("HOST", f"127.0.0.1:{server.port}")
        answer(307, Location=place)(connection, server)

    with faulty(redirect) as server:
        found = fault(server.url)
        assert "redirects (307)" in found.line
        assert found.location == "/new/login"
        assert len(server.requests) == 1


def test_no_compression_is_asked_for_and_none_is_taken() -> None:
    """A limit for bytes on the wire would not limit an answer that is unpacked."""
    packed = gzip.compress(b'{"a": 1}')
    with faulty(answer(200, packed, Content_Encoding="gzip")) as server:
        message = refusal(FAILED, server.url)
        assert "encoding 'gzip', though none was asked for: is a proxy in the way?" in message
        assert b"accept-encoding: identity\r\n" in server.requests[0].lower()
    with faulty(answer(200, b'{"a": 1}', Content_Encoding="Identity")) as server:
        assert ask(server.url).json == {"a": 1}
    with faulty(answer(503, packed, Content_Encoding="gzip")) as server:
        refusal(UNKNOWN, server.url)


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "identity, gzip", "canary%41"])
def test_an_answer_that_would_unpack_to_gigabytes_costs_no_memory(coding: str) -> None:
    zeros = zlib.compressobj(9, wbits=31)
    block = b"\0" * 2**20
    once = b"".join([*(zeros.compress(block) for _ in range(200)), zeros.flush()])
    bomb = gzip.compress(once) if coding == "gzip, gzip" else once
    assert len(bomb) < 300_000
    with faulty(answer(200, bomb, Content_Encoding=coding)) as server:
        tracemalloc.start()
        try:
            message = refusal(FAILED, server.url)
            assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
        finally:
            tracemalloc.stop()
    assert "though none was asked for" in message


@pytest.mark.parametrize("body", [b'{"a": ', b"", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_no_json_is_none(body: bytes) -> None:
    with faulty(answer(200, body)) as server:
        assert ask(server.url).json is None


def test_a_trusted_certificate_is_enough(authority: trustme.CA, ca: str) -> None:
    with faulty(answer(200), tls=tls(authority, "127.0.0.1")) as server:
        assert ask(server.url, ca).status == 200
        assert ask(server.url, Path(ca).read_text()).status == 200


def requests_gets(url: str) -> bool:
    """Say whether requests, which ZenML's client uses, gets an answer."""
    try:
        return requests.post(f"{url}/login", data={"password": CANARY}, timeout=5).ok
    except (requests.RequestException, OSError):
        return False


def hashed_name(ca: Path) -> str:
    """Return the name that c_rehash gives a certificate (X509_NAME_hash of OpenSSL)."""

    def der(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content)]) + content

    canonical = b""
    for attribute in x509.load_pem_x509_certificate(ca.read_bytes()).subject:
        last = int(attribute.oid.dotted_string.removeprefix("2.5.4."))
        oid, value = der(0x06, bytes([0x55, 0x04, last])), str(attribute.value).lower().encode()
        canonical += der(0x31, der(0x30, oid + der(0x0C, value)))
    first = hashlib.sha1(canonical, usedforsecurity=False).digest()[:4]
    return f"{int.from_bytes(first, 'little'):08x}.0"


TRUST = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def no_trust(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in TRUST:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_variables_of_requests_count(
    authority: trustme.CA, ca: str, name: str, no_trust: pytest.MonkeyPatch
) -> None:
    with faulty(answer(200), tls=tls(authority, "127.0.0.1")) as server:
        no_trust.setenv(name, ca)
        assert ask(server.url).status == 200
        for missing, why in (
            ("/nowhere/ca.pem", "does not exist"),
            ("-----BEGIN CERTIFICATE-----", "is text and no file"),
        ):
            no_trust.setenv(name, missing)
            message = refusal(FAILED, server.url)
            assert message.endswith(f"{why}: correct {name}")


@pytest.mark.parametrize("name", TRUST)
@pytest.mark.parametrize("kind", ["file", "text", "directory", "hashed directory", "nowhere"])
def test_trust_is_that_of_requests(
    authority: trustme.CA, ca: str, name: str, kind: str, no_trust: pytest.MonkeyPatch
) -> None:
    folder = Path(ca).parent
    (folder / "hashed").mkdir(exist_ok=True)
    (folder / "hashed" / hashed_name(Path(ca))).write_text(Path(ca).read_text())
    values = {
        "file": ca,
        "text": Path(ca).read_text(),
        "directory": str(folder),
        "hashed directory": str(folder / "hashed"),
        "nowhere": "/nowhere/ca.pem",
    }
    no_trust.setenv(name, values[kind])
    with faulty(answer(200), tls=tls(authority, "127.0.0.1")) as server:
        if requests_gets(server.url):
            assert ask(server.url).status == 200
        else:
            message = refusal(FAILED, server.url)
            if name == "SSL_CERT_FILE":
                assert message.endswith(
                    "not trusted here: give the CA as ca_bundle (ACME's client does not read "
                    "SSL_CERT_FILE)"
                )


def test_a_ca_bundle_that_cannot_be_used_says_so(tmp_path: Path, ca: str) -> None:
    (tmp_path / "empty.pem").write_text("")
    assert ca_problem(ca, CLIENT) is None
    assert ca_problem(Path(ca).read_text(), CLIENT) is None
    assert "is a directory, which ACME's client does not take" in (
        ca_problem(str(tmp_path), CLIENT) or ""
    )
    assert "does not exist" in (ca_problem("/nowhere", CLIENT) or "")
    assert "has an empty name" in (ca_problem("", CLIENT) or "")
    assert "cannot be read as PEM" in (ca_problem(str(tmp_path / "empty.pem"), CLIENT) or "")
    assert "cannot be read as PEM" in (ca_problem("-----BEGIN CERTIFICATE-----\nx", CLIENT) or "")
    assert "cannot be read as PEM" in (ca_problem("-----BEGIN CERTIFICATE-----\né", CLIENT) or "")


def test_a_ca_bundle_that_this_user_may_not_read_says_so(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 64)  # root may read every file
    said = f"the CA bundle {place} cannot be read (File name too long)"
    assert ca_problem(str(place), CLIENT) == said
    assert "cannot be read (it is no path)" in (ca_problem("a\0b", CLIENT) or "")


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_a_proxy_is_not_asked_for_this_machine(no_proxies: pytest.MonkeyPatch) -> None:
    with faulty(answer(200)) as proxy, faulty(answer(204)) as server:
        no_proxies.setenv("HTTP_PROXY", proxy.url)
        assert ask(server.url).status == 204
        assert proxy.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.example.com",
        "HTTP://hub.example.com",
        "http://10.1.2.3:8080",
        "http://localhost.example.com",
        "http://hub.example.com\\.localhost",
    ],
)
def test_no_credential_goes_by_http_to_another_machine(
    url: str, no_proxies: pytest.MonkeyPatch
) -> None:
    with faulty(answer(200)) as proxy, Service(url, Deadline(LIMIT)) as service:
        no_proxies.setenv("HTTP_PROXY", proxy.url)
        found = service.request("GET", "/", auth=Bearer(SecretStr(CANARY)))
        assert isinstance(found, Fault)
        assert not found.unknown
        said = f"{url}: http would send the key over the network in clear: use https"
        assert (found.line, found.sent) == (said, False)
        assert proxy.requests == []


@pytest.mark.parametrize("host", ["zenml.corp.test", "10.1.2.3", "[fd00::1]"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HTTP_PROXY": "PROXY"},
        {"http_proxy": "PROXY"},
        {"http_proxy": "", "HTTP_PROXY": "PROXY"},
        {"HTTP_PROXY": "PROXY", "REQUEST_METHOD": "GET"},
        {"HTTP_PROXY": "127.0.0.1:PORT"},
        {"HTTP_PROXY": "http://me:canary%40@127.0.0.1:PORT/"},
        {"HTTPS_PROXY": "PROXY"},
        {"ALL_PROXY": "PROXY"},
        {"all_proxy": "PROXY", "HTTP_PROXY": ""},
        {"ALL_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "PROXY"},
        *(
            {"HTTP_PROXY": "PROXY", name: value}
            for name in ("NO_PROXY", "no_proxy")
            for value in (
                "",
                "10.0.0.0/8,fd00::/8",
                "10.0.0.0/33,/8,10.1.2.3/",
                "192.168.0.0/16",
                "10.1.2.3",
                "fd00::1",
                "[fd00::1]",
                "[::1]",
                "*",
                "*.corp.test",
                ".corp.test",
                "corp.test",
                "rp.test",
                "ZENML.CORP.TEST",
                "zenml.corp.test:SERVER",
                "10.1.2.3:SERVER",
                "zenml.corp.test:1",
                " other.test , zenml.corp.test ,, ",
                "http://zenml.corp.test",
                "a b,\tc,:,é",
            )
        ),
        {"HTTP_PROXY": "PROXY", "NO_PROXY": "*", "no_proxy": "other.test"},
        {"HTTP_PROXY": "PROXY", "NO_PROXY": "corp.test", "no_proxy": ""},
    ],
    ids=str,
)
def test_the_route_is_that_of_requests(
    environment: dict[str, str], host: str, no_proxies: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    no_proxies.setattr(
        socket, "getaddrinfo", lambda _, *rest, **named: resolve("127.0.0.1", *rest[:1])
    )
    with faulty(answer(200)) as proxy, faulty(answer(200)) as server:
        for name, value in environment.items():
            ports = value.replace("PORT", str(proxy.port)).replace("SERVER", str(server.port))
            no_proxies.setenv(name, ports.replace("PROXY", proxy.url))
        url = f"http://{host}:{server.port}"
        assert requests_gets(url)
        asked = [len(each.requests) for each in (proxy, server)]
        assert sorted(asked) == [0, 1]
        assert ask(url).status == 200
        assert [len(each.requests) for each in (proxy, server)] == [2 * count for count in asked]
        theirs, ours = (proxy if asked[0] else server).requests
        # httpcore 1.0 leaves the brackets away in what it asks a proxy of an IPv6 address.
        assert ours.split()[:2] in (theirs.split()[:2], re.sub(rb"[][]", b"", theirs).split()[:2])
        assert (b"proxy-authorization" in ours.lower()) is (
            b"proxy-authorization" in theirs.lower()
        )


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_makes_a_tunnel_for_tls(name: str, no_proxies: pytest.MonkeyPatch) -> None:
    with faulty(answer(502)) as proxy:
        no_proxies.setenv(name, proxy.url)
        message = refusal(UNKNOWN, "https://zenml.corp.test")
        assert "the proxy gives no connection to zenml.corp.test" in message
        assert proxy.requests[0].startswith(b"CONNECT zenml.corp.test:443 ")
        assert not any(CANARY.encode() in request for request in proxy.requests)


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "socks4", "SOCKS5"])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_socks_proxy_is_one_line(name: str, kind: str, no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv(name, f"{kind}://me:canary@127.0.0.1:1080")
    message = refusal(UNKNOWN, "https://zenml.corp.test")  # requests can use it here
    assert message == (
        "zenml.corp.test is reached through the proxy of HTTPS_PROXY or ALL_PROXY here, and "
        "mlauth cannot use SOCKS: name one with http://host:port, or put the host into NO_PROXY"
    )
    no_proxies.setitem(sys.modules, "socks", None)  # and without PySocks it cannot
    message = refusal(FAILED, "https://zenml.corp.test")
    assert "and ACME's client cannot use SOCKS without PySocks: name one with http://" in message


@pytest.mark.parametrize(
    "value", ["ftp://canary:canary@host:1", "http://", "http://host:canary", "http://[canary", ":"]
)
def test_a_proxy_that_is_none_is_one_line(value: str, no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("HTTPS_PROXY", value)
    assert not requests_gets("https://zenml.corp.test")
    message = refusal(FAILED, "https://zenml.corp.test")
    assert "which is no proxy for HTTP: name one with http://host:port" in message
    assert "canary" not in message


NO_NUL = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@given(proxy=st.text(NO_NUL, max_size=20), hosts=st.text(NO_NUL, max_size=20))
@example(proxy="http://h:99999", hosts="")
@example(proxy="//", hosts="fd00::/8,10.0.0.0/,[")
@example(proxy="http://[::1", hosts="::")
def test_whatever_names_a_proxy_is_used_or_one_line(proxy: str, hosts: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in PROXIES:
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        for scheme in ("", "http://", "socks5://me:canary@"):
            patch.setenv("HTTPS_PROXY", f"{scheme}{proxy}")
            patch.setenv("NO_PROXY", hosts)
            try:
                proxy_to("https://zenml.corp.test", CLIENT)
            except FaultError as error:
                assert "\n" not in str(error)
                assert "canary" not in str(error)


def test_netrc_that_stops_zenmls_client_is_said(
    no_proxies: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_bytes(b"machine zenml.corp.test login \xff password x\n")
    no_proxies.setenv("NETRC", str(tmp_path / "netrc"))
    with faulty(answer(200)) as server, pytest.raises(UnicodeDecodeError):
        requests.get(server.url, timeout=5)
    assert "netrc is no text, and ACME's client stops there" in (
        netrc_problem("https://zenml.corp.test", CLIENT) or ""
    )


def test_netrc_is_not_read(no_proxies: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would replace the token. requests reads it, so the check warns about ZenML's client."""
    (tmp_path / ".netrc").write_text("default login canary-user password canary-password\n")
    no_proxies.setenv("HOME", str(tmp_path))
    no_proxies.delenv("NETRC", raising=False)
    with faulty(answer(200)) as server:
        assert requests_gets(server.url)
        assert b"Authorization: Basic" in server.requests.pop()
        ask(server.url)
        assert f"Authorization: Bearer {CANARY}".encode() in server.requests[0]
        assert b"Basic" not in server.requests[0]


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:8237", True),
        ("http://zenml.localhost", False),
        ("http://127.3.4.5", True),
        ("http://[::1]:8237", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://zenml.evil.example\\.localhost", False),
        ("http://zenml.evil.example%2f.localhost", False),
        ("http://evil.example\\@localhost", False),
        ("http://me@localhost", False),
        ("http://127.0.0.1.", False),
        ("http://127.1", False),
        ("http://[::ffff:10.0.0.1]", False),
        ("http://example.com", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, local: bool) -> None:
    assert is_loopback(url) is local


class TestSent:
    """Every fault says whether the service may have received the request."""

    def sent(self, url: str, *, ca: str | None = None, seconds: float = LIMIT) -> bool:
        found = tried(url, ca, seconds)
        assert isinstance(found, Fault)
        return found.sent

    def test_a_connection_that_was_never_made(self, authority: trustme.CA, ca: str) -> None:
        with faulty(silent) as server:
            closed = server.url
        assert not self.sent(closed)
        assert not self.sent("https://no-such-host.invalid")
        with faulty(answer(200), tls=tls(authority, "elsewhere.example")) as server:
            assert not self.sent(server.url, ca=ca)

    def test_a_proxy_that_gives_no_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with connect_proxy({}, lambda host: True) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            assert not self.sent("https://zenml.example")
            assert proxy.asked

    @pytest.mark.parametrize(
        "reply", [answer(303, Location="/elsewhere"), answer(503), reset, endless, silent]
    )
    def test_whatever_came_or_did_not_come_after_it_left(self, reply: Reply) -> None:
        with faulty(reply) as server:
            assert self.sent(server.url)

    def test_no_request_begins_after_the_deadline(self) -> None:
        with faulty(answer(200)) as server:
            deadline = Deadline(0.01)
            until(lambda: not deadline.remaining())
            with Service(server.url, deadline) as service:
                found = service.request("PUT", "/rotate", json={}, once=True)
            assert isinstance(found, Fault)
            assert "was not asked in time" in found.line
            assert not found.sent
            assert server.requests in ([], [b""])  # a connection, and nothing on it

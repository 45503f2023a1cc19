"""Every way in which a network or a service fails, at every place where mlauth asks one."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import format_datetime
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import trustme

from mlauth.systems.zenml.isolation import NO_DISK
from tests.faults.forks import Job, alone
from tests.support.connect_proxy import connect_proxy
from tests.support.faults import (
    FaultyServer,
    Reply,
    answer,
    drip,
    endless,
    faulty,
    late,
    reset,
    silent,
)
from tests.support.zenml_keys import api_key

KEY, TOKEN, SECRET, HEADER = (
    api_key("canary-key"),
    "canary.token",
    "canary-secret",
    "canary-header",
)
CANARIES = (KEY, TOKEN, SECRET, HEADER, "canary")
CLIENT = "11111111-1111-4111-8111-111111111111"
VAULT, LOGIN, TENANT = (
    "acme-prod.vault.azure.net",
    "login.microsoftonline.com",
    "00000000-0000-4000-8000-000000000000",
)
SOON, LONG = 6.0, 30.0  # the time limits of what is waited for, and of what is answered at once
HTML = b"<html><title>Sign in to the proxy</title></html>"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    Attributes:
        name: what a reader calls it.
        reply: how the service answers; None where it is not reached.
        tls: which certificate it shows: `good`, `expired`, `other`, `unknown`, or None for plain
            HTTP on the port that should speak TLS.
        waits: whether it is waited for, or tried again, until the time limit.
        open: whether it leaves open if the credential works.
        needs_tls: whether it can only be where TLS is spoken.
        connecting: whether it keeps a connection from being made.
    """

    name: str
    reply: Reply | None = None
    tls: str | None = "good"
    waits: bool = False
    open: bool = False
    needs_tls: bool = False
    connecting: bool = False


def _status(code: int, **headers: str) -> Reply:
    return answer(code, b'{"detail": "canary"}', **headers)


def _later(connection: socket.socket, server: FaultyServer) -> None:
    when = dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=10)
    _status(429, Retry_After=format_datetime(when, usegmt=True))(connection, server)


def _redirect(code: int, target: str) -> Reply:
    return _status(code, Location=target or "/there")


ELSEWHERE = "https://elsewhere.example.com/canary"
FAULTS = [
    Trouble("no such name", tls=None, connecting=True),
    Trouble("the port is closed", tls=None, waits=True, connecting=True),
    Trouble("accepted, and silent", silent, waits=True, open=True),
    Trouble("broken off in the middle", reset, waits=True, open=True),
    Trouble("a byte at a time", drip, waits=True, open=True),
    Trouble("certificate expired", silent, tls="expired", needs_tls=True, connecting=True),
    Trouble("certificate of another host", silent, tls="other", needs_tls=True, connecting=True),
    Trouble("certificate of an unknown CA", silent, tls="unknown", needs_tls=True, connecting=True),
    Trouble("plain HTTP on the TLS port", _status(400), tls=None, needs_tls=True, connecting=True),
    *(
        Trouble(f"redirect {code} {where}", _redirect(code, target))
        for code in (301, 302, 307, 308)
        for where, target in (("to itself", ""), ("to another host", ELSEWHERE))
    ),
    *(Trouble(f"HTTP {code}", _status(code)) for code in (400, 401, 403, 404)),
    Trouble("HTTP 408", _status(408), waits=True, open=True),
    Trouble("HTTP 409", _status(409)),
    Trouble("HTTP 429", _status(429), waits=True, open=True),
    Trouble("HTTP 429 with Retry-After, seconds", _status(429, Retry_After="600"), open=True),
    Trouble(
        "HTTP 429 with Retry-After, a date",
        _later,
        open=True,
    ),
    *(
        Trouble(f"HTTP {code}", _status(code), waits=True, open=True)
        for code in (500, 502, 503, 504)
    ),
    Trouble("a proxy's page with 200", answer(200, HTML, content_type="text/html")),
    Trouble("JSON cut short", answer(200, b'{"version": "0.9')),
    Trouble("JSON of wrong types", answer(200, b'[{"access_token": ["canary"], "value": 3}]')),
    Trouble("JSON without what is needed", answer(200, b'{"hello": "canary"}')),
    Trouble("50 MB", endless),
    Trouble("the right answer, too late", waits=True, open=True),
]


class Certificates:
    """What the services show, and what is trusted."""

    def __init__(self, folder: Path) -> None:
        trusted, stranger = trustme.CA(), trustme.CA()
        names = ("localhost", VAULT, LOGIN)
        day, now = dt.timedelta(days=1), dt.datetime.now(dt.timezone.utc)
        self.bundle = folder / "ca.pem"
        trusted.cert_pem.write_to_path(str(self.bundle))
        self.contexts = {
            "good": _context(trusted.issue_cert(*names)),
            "expired": _context(
                trusted.issue_cert(*names, not_before=now - 3 * day, not_after=now - day)
            ),
            "other": _context(trusted.issue_cert("other.example.com")),
            "unknown": _context(stranger.issue_cert(*names)),
        }


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def _json(**body: object) -> Reply:
    return answer(200, json.dumps(body).encode())


ZENML = _json(
    version=metadata.version("zenml"),
    deployment_type="other",
    database_type="sqlite",
    secrets_store_type="sql",
    auth_scheme="OAUTH2_PASSWORD_BEARER",
    access_token=TOKEN,
    id=TENANT,
    name="flows",
    body={
        "is_service_account": True,
        "active": True,
        "is_admin": False,
        "created": "2026-11-20T00:00:00",
        "updated": "2026-11-20T00:00:00",
    },
)
CHALLENGE = answer(
    401,
    WWW_Authenticate=f'Bearer authorization="https://{LOGIN}/{TENANT}", '
    'resource="https://vault.azure.net"',
)


def managed(connection: socket.socket, server: FaultyServer) -> None:
    """Answer as the endpoint of a managed identity does."""
    end = str(int(time.time()) + 3600)
    body = {"access_token": TOKEN, "expires_on": end, "resource": "r", "token_type": "Bearer"}
    _json(**body)(connection, server)


def entra(connection: socket.socket, server: FaultyServer) -> None:
    """Answer as Microsoft Entra does, to whatever it is asked."""
    base = f"https://{LOGIN}/{TENANT}"
    body = {
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "issuer": f"{base}/v2.0",
        "access_token": TOKEN,
        "expires_in": 3600,
        "token_type": "Bearer",
    }
    _json(**body)(connection, server)


@dataclass(frozen=True)
class Stage:
    """A place where mlauth asks a service.

    Attributes:
        name: the heading of its table.
        right: the right answer.
        asked: says of a request if it is one that the fault is for.
        uses: how mlauth comes there.
        tls: whether the service speaks TLS.
        first: whether the fault is met on the first connection to the service.
        real: whether a real ZenML server gives the right answers.
    """

    name: str
    right: Reply
    asked: Callable[[bytes], bool]
    uses: tuple[str, ...] = ("check", "activate")
    tls: bool = True
    first: bool = False
    real: bool = False

    def has(self, fault: Trouble) -> bool:
        """Say whether a fault can be met here."""
        return (self.tls or not fault.needs_tls) and (self.first or not fault.connecting)


def _every(request: bytes) -> bool:
    return True


def _path(part: str) -> Callable[[bytes], bool]:
    return lambda request: part.encode() in request.partition(b"\r\n")[0]


def _not_ours(request: bytes) -> bool:
    return b"\r\nuser-agent: mlauth" not in request.lower()


def _our_account(request: bytes) -> bool:
    return not _not_ours(request) and b"/current-user" in request


def _with_token(request: bytes) -> bool:
    return b"\r\nauthorization: bearer" in request.lower()


STAGES = [
    Stage("Managed identity endpoint", managed, _every, tls=False, first=True),
    Stage("Microsoft Entra", entra, _every, first=True),
    Stage("Microsoft Entra, the token", entra, _path("/token")),
    Stage("Key Vault", CHALLENGE, _every, first=True),
    Stage("Key Vault, with the token", CHALLENGE, _with_token),
    Stage("ZenML server", ZENML, _every, first=True),
    Stage("ZenML server, the login", ZENML, _path("/login")),
    Stage("ZenML server, the account", ZENML, _path("/current-user")),
    Stage("ZenML component", ZENML, _every, uses=("component",), first=True),
    Stage("ZenML component, ZenML's own client", ZENML, _not_ours, uses=("component",)),
    Stage("ZenML component, the account", ZENML, _our_account, uses=("component",), real=True),
]


# What a client reaches through the proxy of a company.
PROXIED = {stage.name for stage in STAGES if "Entra" in stage.name or "Key Vault" in stage.name}


@contextmanager
def place(
    stage: Stage,
    fault: Trouble,
    use: str,
    folder: Path,
    certificates: Certificates,
    real: tuple[str, str],
) -> Iterator[tuple[Job, FaultyServer]]:
    """Start the service with its fault; yield what to run, and the service.

    Args:
        stage: where.
        fault: what.
        use: how mlauth comes there.
        folder: for this cell; it is made.
        certificates: what services show.
        real: URL and token of a real ZenML server: what its own client needs is too much to say.
    """
    folder.mkdir(parents=True)
    seconds = SOON if fault.waits or "own client" in stage.name else LONG
    right = forward(real[0]) if stage.real else stage.right
    wrong = fault.reply or late(60, right)

    def reply(connection: socket.socket, server: FaultyServer) -> None:
        chosen = wrong if stage.asked(server.requests[-1]) else right
        chosen(connection, server)

    context = certificates.contexts.get(fault.tls or "") if stage.tls else None
    with ExitStack() as stack:
        service = stack.enter_context(faulty(reply, tls=context))
        if fault.name == "the port is closed":
            closed = stack.enter_context(socket.socket())
            closed.bind(("127.0.0.1", 0))  # taken, so that no other service gets it
            service.port = closed.getsockname()[1]
            service.url = f"http://127.0.0.1:{service.port}"
        exists = fault.name != "no such name"
        environment = alone(folder)
        if "ZenML" in stage.name:
            url = f"https://localhost:{service.port}" if exists else "https://zenml.invalid"
            environment |= _zenml(folder, url, certificates, use, real[1] if stage.real else TOKEN)
        else:
            environment |= _azure(stack, stage, service, exists, certificates)
            profile = '[profiles.p.env]\nACME = "azurekv://acme-prod/token"\n'
            (folder / "mlauth.toml").write_text(profile)
        yield Job(use, str(folder), environment, seconds), service


def _zenml(
    folder: Path, url: str, certificates: Certificates, use: str, token: str
) -> dict[str, str]:
    if use == "component":
        return {
            "ZENML_STORE_URL": url,
            "ZENML_STORE_API_TOKEN": token,
            "ZENML_STORE_VERIFY_SSL": str(certificates.bundle),
            NO_DISK: "true",
        }
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY)
    lines = {
        "store_url": url,
        "api_key": f"file://{folder}/key",
        "ca_bundle": certificates.bundle,
    }
    profile = "\n".join(f'{name} = "{value}"' for name, value in lines.items())
    (folder / "mlauth.toml").write_text(f"[profiles.p.zenml]\n{profile}\n")
    return {}


def log_in(url: str, key: str) -> str:
    """Return a token of a real ZenML server."""
    form = {"grant_type": "zenml-api-key", "password": key}
    answered = httpx.post(f"{url}/api/v1/login", data=form, timeout=60, trust_env=False)
    return str(answered.json()["access_token"])


def forward(url: str) -> Reply:
    """Hand a request on to a real server, and its answer back."""
    target = urlsplit(url)

    def reply(connection: socket.socket, server: FaultyServer) -> None:
        head, blank, body = server.requests[-1].partition(b"\r\n\r\n")
        head = re.sub(rb"(?im)^connection: [^\r\n]*", b"Connection: close", head)
        head += b"" if b"\r\nConnection: close" in head else b"\r\nConnection: close"
        with socket.create_connection((target.hostname or "", target.port or 80)) as far:
            far.sendall(head + blank + body)
            while piece := far.recv(65536):
                connection.sendall(piece)

    return reply


def _azure(
    stack: ExitStack, stage: Stage, service: FaultyServer, exists: bool, certificates: Certificates
) -> dict[str, str]:
    """Lead the real host names to the service, and to others that do what is right."""
    good = certificates.contexts["good"]
    hosts, missing = {}, ""
    endpoint = stack.enter_context(faulty(managed)).url
    if "Key Vault" in stage.name:
        hosts[VAULT], missing = service.port, VAULT
    else:
        hosts[VAULT] = stack.enter_context(faulty(CHALLENGE, tls=good)).port
    if "Entra" in stage.name:
        hosts[LOGIN], missing = service.port, LOGIN
        identity = {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
        }
    else:
        if "Managed" in stage.name:
            endpoint = service.url if exists else "http://identity.invalid"
        identity = {"IDENTITY_ENDPOINT": f"{endpoint}/msi/token", "IDENTITY_HEADER": HEADER}
    proxy = stack.enter_context(connect_proxy(hosts, lambda host: exists or host != missing))
    return {
        "HTTPS_PROXY": proxy.url,
        "https_proxy": proxy.url,
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": str(certificates.bundle),
        **identity,
    }

"""The HTTP requests of Azure's clients: their hosts, proxies, headers and sizes."""

from __future__ import annotations

import gzip
import hashlib
import json
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import trustme

from mlauth import SecretReference
from mlauth.azure import tokens as azure_tokens
from mlauth.deadline import Deadline
from mlauth.errors import IdentityUnavailable, StoreError, StoreUnavailable, StoreUnreachable
from mlauth.resolving import read_all
from mlauth.testing.stores import CANARY
from tests.support.azure import Azure, become
from tests.support.faults import Reply, answer, endless, faulty
from tests.support.identity import CLOUDS
from tests.support.web import Answer

MIB = 1024 * 1024
Use = Callable[[Mapping[str, str]], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that replaces the variables of an Azure client by others."""
    return partial(become, monkeypatch)


@pytest.fixture
def key(azure: Azure) -> SecretReference:
    vault = azure.vault()
    vault.put("key", CANARY)
    return SecretReference.parse(f"azurekv://{vault.host}/key")


def read(where: SecretReference, *, timeout: float = 20) -> str:
    return read_all([where], Deadline(timeout))[where].value.get_secret_value()


def refused(
    where: SecretReference, kind: type[StoreError] = StoreError, *, timeout: float = 20
) -> str:
    with pytest.raises(kind) as caught:
        read(where, timeout=timeout)
    said = str(caught.value)
    assert "\n" not in said
    assert CANARY not in said
    return said


def token(azure: Azure) -> str:
    return azure.directory.token(azure.reader, CLOUDS["public"], "https://vault.azure.net")


def issued(azure: Azure) -> Reply:
    """Answer as each kind of identity endpoint does."""
    body = {
        "access_token": token(azure),
        "token_type": "Bearer",
        "expires_in": "3600",
        "expires_on": str(int(time.time()) + 3600),
        "resource": "https://vault.azure.net",
    }
    return answer(200, json.dumps(body).encode())


class TestAnIdentityEndpointIsAskedThroughNoProxy:
    @pytest.fixture
    def proxied(self, monkeypatch: pytest.MonkeyPatch, use: Use, azure: Azure) -> Iterator[Use]:
        """Set a proxy for everything, without exceptions; only vaults may be asked through it."""

        def replace(environment: Mapping[str, str]) -> None:
            use(environment)
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, azure.proxy.url)
                monkeypatch.setenv(name.lower(), azure.proxy.url)
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)

        before = len(azure.proxy.asked)
        yield replace
        hosts = {asked.host for asked in azure.proxy.asked[before:]}
        assert [host for host in hosts if not host.endswith(".vault.azure.net")] == []

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    @pytest.mark.parametrize("kind", ["environment", "azure_ml", "imds"])
    def test_app_service_azure_ml_and_imds(
        self, azure: Azure, key: SecretReference, proxied: Use, kind: str, host: str
    ) -> None:
        identity = azure.identity("get")
        made = getattr(azure, kind)(identity)
        proxied({name: value.replace("//127.0.0.1", f"//{host}") for name, value in made.items()})
        assert read(key) == CANARY
        assert len(identity.requests) == 1

    def test_imds_that_is_looked_for(
        self, azure: Azure, key: SecretReference, proxied: Use, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without the variable, azure-identity first looks for an IMDS, for a second."""
        monkeypatch.setattr("azure.identity._credentials.imds.IMDS_AUTHORITY", "http://127.0.0.1:1")
        proxied({**azure.network(), "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential"})
        refused(key, IdentityUnavailable)

    @pytest.mark.parametrize("kind", ["Cloud Shell", "Azure Arc"])
    def test_cloud_shell_and_arc(
        self, azure: Azure, key: SecretReference, proxied: Use, kind: str
    ) -> None:
        arc = answer(401, WWW_Authenticate="Basic realm=/nowhere/1.key")
        with faulty(arc if kind == "Azure Arc" else issued(azure)) as server:
            if kind == "Azure Arc":
                variables = {"IDENTITY_ENDPOINT": server.url, "IMDS_ENDPOINT": server.url}
                proxied({**azure.network(), **variables})
                refused(key, IdentityUnavailable)
            else:
                proxied({**azure.network(), "MSI_ENDPOINT": server.url})
                assert read(key) == CANARY
            assert len(server.requests) == 1

    def test_service_fabric(
        self, azure: Azure, key: SecretReference, proxied: Use, recwarn: pytest.WarningsRecorder
    ) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = trustme.CA().issue_cert("127.0.0.1")
        certificate.configure_cert(tls)
        der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
        with faulty(issued(azure), tls=tls) as server:
            variables = {
                "IDENTITY_ENDPOINT": server.url,
                "IDENTITY_HEADER": "header",
                "IDENTITY_SERVER_THUMBPRINT": hashlib.sha1(der).hexdigest(),
            }
            proxied({**azure.network(), **variables})
            assert read(key) == CANARY
            assert b"\r\nSecret: header\r\n" in server.requests[0]
        assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("by", ["home", "NETRC"])
@pytest.mark.parametrize("entry", ["default", "machine"])
@pytest.mark.parametrize("kind", ["environment", "azure_ml", "imds", "service_principal"])
def test_netrc_is_read_for_no_request(
    azure: Azure,
    key: SecretReference,
    use: Use,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    entry: str,
    by: str,
) -> None:
    """Vaults and issuers of tokens answer no request with foreign credentials."""
    hosts = (key.place.parts[0], "login.microsoftonline.com", "127.0.0.1")
    whose = ["default"] if entry == "default" else [f"machine {host}" for host in hosts]
    text = "".join(f"{who} login somebody password {CANARY}\n" for who in whose)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(text if by == "home" else "")
    (tmp_path / "netrc").write_text(text)
    if by == "NETRC":
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    use(getattr(azure, kind)())
    assert read(key) == CANARY


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_of_the_environment_is_trusted_by_every_client(
    azure: Azure, key: SecretReference, use: Use, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """This holds also for the client that reads nothing else from the environment."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with faulty(issued(azure), tls=tls) as server, authority.cert_pem.tempfile() as ours:
        variables = azure.environment()
        both = Path(variables.pop("REQUESTS_CA_BUNDLE")).read_text() + Path(ours).read_text()
        Path(ours).write_text(both)
        use({**variables, "IDENTITY_ENDPOINT": server.url})
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        monkeypatch.setenv(name, ours)
        assert read(key) == CANARY


@pytest.mark.parametrize("content", [b"", b"no certificate\n", b"\x00\xff" * 500, "damaged", "cut"])
def test_a_ca_bundle_that_cannot_be_read_is_said(
    azure: Azure, key: SecretReference, use: Use, tmp_path: Path, content: bytes | str
) -> None:
    variables = azure.environment()
    pem = Path(variables["REQUESTS_CA_BUNDLE"]).read_bytes()
    damaged = {"damaged": pem.replace(b"M", b"?"), "cut": pem[:-40]}
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content if isinstance(content, bytes) else damaged[content])
    use({**variables, "REQUESTS_CA_BUNDLE": str(bundle)})
    said = refused(key, StoreUnreachable)
    assert "REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) cannot be read as PEM certificates" in said


class TestAtEachPlaceThatAnswers:
    """The vault, the identity's endpoint, and Microsoft Entra."""

    @pytest.fixture(params=["vault", "endpoint", "Entra"])
    def say(self, request: pytest.FixtureRequest, azure: Azure, use: Use) -> Callable[..., str]:
        identity = azure.identity("get")
        entra = request.param == "Entra"
        use(azure.service_principal(identity) if entra else azure.environment(identity))

        def say(said: Answer, kind: type[StoreError] = StoreUnreachable, timeout: int = 20) -> str:
            vault = azure.vault()
            vault.put("key", CANARY)
            (vault if request.param == "vault" else identity).troubles.say(said, 999)
            where = SecretReference.parse(f"azurekv://{vault.host}/key")
            return refused(where, kind, timeout=timeout)

        return say

    @pytest.mark.parametrize("status", [408, 530])
    def test_every_status_from_500_is_unknown_and_tried_again(
        self, say: Callable[..., str], status: int
    ) -> None:
        said = say(Answer(status, {"error": "some"}), StoreUnavailable, timeout=1)
        assert f"(HTTP {status}): try again later" in said

    @pytest.mark.parametrize("status", [501, 505, 511])
    def test_one_that_stays_as_it_is_is_unknown_at_once(
        self, say: Callable[..., str], status: int
    ) -> None:
        start = time.monotonic()
        said = say(Answer(status, b"<html>"), StoreUnavailable, timeout=30)
        assert f"(HTTP {status}): try again later" in said
        assert time.monotonic() - start < 15

    def test_a_fault_that_cannot_be_read_is_unknown(self, say: Callable[..., str]) -> None:
        for fault in (
            Answer(503, b" " * (MIB + 1)),
            Answer(503, b"packed", {"Content-Encoding": "gzip"}),
        ):
            assert "(HTTP 503)" in say(fault, StoreUnavailable, timeout=1)
            azure_tokens.tokens.cache_clear()

    @pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "deflate", "br", "zstd", "GZIP"])
    def test_no_encoding_is_undone(self, say: Callable[..., str], encoding: str) -> None:
        body = gzip.compress(json.dumps({"value": CANARY, "id": "x", "access_token": "x"}).encode())
        said = say(Answer(200, body, {"Content-Encoding": encoding}))
        assert "in an encoding that it was not asked for" in said

    def test_no_answer_is_longer_than_a_mebibyte(self, say: Callable[..., str]) -> None:
        assert "with more than 1 MiB" in say(Answer(200, b" " * (MIB + 1)))

    def test_an_error_is_bounded_too(self, say: Callable[..., str]) -> None:
        assert "with more than 1 MiB" in say(Answer(400, b" " * (MIB + 1)))

    def test_an_answer_with_the_encoding_identity_is_read(self, azure: Azure, use: Use) -> None:
        with faulty(answer(200, b'{"a": 1}', Content_Encoding="identity")) as server:
            use({**azure.environment(), "IDENTITY_ENDPOINT": server.url})
            said = refused(SecretReference.parse(f"azurekv://{azure.vault().host}/key"))
        assert "is not from the endpoint of an identity" in said


def test_the_vault_is_asked_for_no_encoding(azure: Azure, use: Use, tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    use({**azure.environment(), "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    with faulty(endless, tls=tls) as server:
        where = SecretReference.parse(f"azurekv://127.0.0.1:{server.port}/key")
        assert "with more than 1 MiB" in refused(where, StoreUnreachable)
        (request,) = server.requests
    assert b"\r\nAccept-Encoding: identity\r\n" in request


def bomb(size: int) -> bytes:
    """Pack zeros twice."""
    packer = zlib.compressobj(1, wbits=31)
    packed = [packer.compress(bytes(MIB)) for _ in range(size // MIB)]
    return gzip.compress(b"".join([*packed, packer.flush()]))


_READS = """
import sys, mlauth
for reference in sys.argv[1:]:
    try: mlauth.resolve(reference)
    except mlauth.MLAuthError as error: print(type(error).__name__)
for line in open("/proc/self/status"):  # getrusage begins with what the parent had
    if line.startswith("VmHWM:"): print(line.split()[1])
"""


@pytest.mark.process
@pytest.mark.parametrize("place", ["vault", "endpoint"])
def test_a_small_answer_takes_little_memory(azure: Azure, use: Use, place: str) -> None:
    vault, identity = azure.vault(), azure.identity("get")
    said = Answer(200, bomb(256 * MIB), {"Content-Encoding": "gzip, gzip"})
    assert len(said.body) < 4096
    (vault if place == "vault" else identity).troubles.say(said, 9)
    use(azure.environment(identity))
    command = [sys.executable, "-c", _READS, f"azurekv://{vault.host}/key"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    outcome, peak = done.stdout.split()
    assert outcome == "StoreUnreachable"
    assert int(peak) < 160 * 1024  # KiB: the SDKs alone take half of it

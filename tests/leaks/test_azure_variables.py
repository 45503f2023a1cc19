"""Whatever a variable of Azure holds, the outcome is a line of ours without any value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import mlauth
from mlauth import MLAuthError, SecretReference
from mlauth.azure import tokens as azure_tokens
from mlauth.azure.identity import choose
from mlauth.azure.tokens import Tokens
from mlauth.deadline import Deadline
from mlauth.net.faults import FaultError
from mlauth.record import own_environment
from mlauth.storing import SecretStore
from tests.leaks.watching import Watch, watching
from tests.support.azure import Azure
from tests.support.canaries import canary, leaks, token

pytestmark = pytest.mark.process

BOM, HALF = "\ufeff", "\udce9"  # HALF: what a byte that is not UTF-8 becomes in os.environ
SPOILT: dict[str, Callable[[str], str]] = {
    "a newline after it": lambda text: text + "\n",
    "lines around it": lambda text: "\r\n" + text + "\r\n",
    "a newline in it": lambda text: text[:4] + "\n" + text[4:],
    "a blank after it": lambda text: text + " ",
    "a tab before it": lambda text: "\t" + text,
    "quotes": lambda text: f'"{text}"',
    "a byte order mark": lambda text: BOM + text,
    "a path": lambda text: f"/run/secrets/{text}",
    "letters beyond ASCII": lambda text: text + "łé",
    "a byte that is not UTF-8": lambda text: text + HALF,
    "brackets": lambda text: f"[{text}",
    "a blank only": lambda text: " ",
    "nothing": lambda text: "",
    "much": lambda text: text + "a" * 5000,
}
APPLICATION = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_AUTHORITY_HOST")
POD = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST")
VARIABLES = [
    *(("service_principal", name) for name in APPLICATION),
    *(("workload_identity", name) for name in POD),
    *(("environment", name) for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER")),
    *(("azure_ml", name) for name in ("MSI_ENDPOINT", "MSI_SECRET")),
    ("imds", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
]
OTHERS = {
    "another place": {"AZURE_AUTHORITY_HOST": "file:///etc/passwd"},
    "a user in a URL": {"AZURE_AUTHORITY_HOST": "https://me:{canary}@login.microsoftonline.com"},
    "a label too long": {"AZURE_AUTHORITY_HOST": f"https://{'a' * 64}.example.com"},
    "a port too high": {"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com:99999"},
    "a region": {"AZURE_REGIONAL_AUTHORITY_NAME": "evil.example/\n"},
    "a choice": {"AZURE_TOKEN_CREDENTIALS": "{canary}"},
    "a chain": {"AZURE_CLIENT_SEND_CERTIFICATE_CHAIN": "{canary}\n"},
    "a CA that is not there": {"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem\n"},
    "a CA that is a folder": {"REQUESTS_CA_BUNDLE": "/"},
    "a CA that is none": {"REQUESTS_CA_BUNDLE": "/etc/hostname"},
    "a proxy that is no URL": {"HTTPS_PROXY": "[{canary}", "https_proxy": "[{canary}"},
    "a proxy of SOCKS": dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "socks5://127.0.0.1:1"),
    "a proxy with a port": dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://x:{canary}@h:p"),
}
ENDPOINTS = {
    "no URL": "endpoint",
    "no host": "http://",
    "a bracket": "http://[",
    "a port too high": "http://127.0.0.1:99999/",
    "a port that is none": "http://127.0.0.1:port/",
    "another scheme": "file:///etc/passwd",
    "a label too long": f"http://{'a' * 64}.localhost/",
}


def few(names: Iterable[str], *first: str) -> list[Any]:
    """Leave all but the first to `make test-load`: each logs a lot, and that takes time."""
    return [pytest.param(name, marks=[] if name in first else pytest.mark.load) for name in names]


class Place:
    """A vault, an identity, and the values that nothing may show."""

    def __init__(self, azure: Azure, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.azure, self._patch, self._folder = azure, patch, folder
        self.vault, self.identity = azure.vault(), azure.identity("get")
        self.value, self.canary = canary("value"), token("canary")
        self.vault.put("key", self.value)
        self.values = [self.value, self.canary, self.identity.secret]

    def be(self, kind: str) -> Mapping[str, str]:
        make, folder = getattr(self.azure, kind), self._folder
        variables = make(folder, self.identity) if kind == "workload_identity" else make()
        if kind == "service_principal":
            variables = make(self.identity)
        self.set({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1", **variables})
        for name in ("IDENTITY_HEADER", "MSI_SECRET"):
            self.values += [variables[name]] if name in variables else []
        if "AZURE_FEDERATED_TOKEN_FILE" in variables:
            self.values.append(Path(variables["AZURE_FEDERATED_TOKEN_FILE"]).read_text())
        return os.environ

    def set(self, variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            self._patch.setenv(name, value.replace("{canary}", self.canary))

    def outcomes(self, watch: Watch) -> list[BaseException]:
        """Go every way to the secret; return what was raised."""
        azure_tokens.tokens.cache_clear()
        text = f"azurekv://{self.vault.host}/key"
        reference = SecretReference.parse(text)
        store = SecretStore("azurekv")

        def tokens() -> Tokens:
            return Tokens(choose(own_environment()), "login.microsoftonline.com", "azurekv")

        calls: list[Callable[[], Any]] = [
            lambda: mlauth.resolve(text, timeout=1),
            lambda: store.read(reference, timeout=1),
            lambda: store.describe(reference),
            lambda: tokens().get("https://vault.azure.net", deadline=Deadline(20)).expires_on,
        ]
        for call in calls:
            watch.outcome(call)
        azure_tokens.tokens.cache_clear()
        return watch.raised

    def nothing_but_ours(self, watch: Watch) -> None:
        raised = self.outcomes(watch)
        text = watch.text()
        assert leaks(text, *self.values) == []
        for error in raised:
            # The issuer of tokens is asked by code that retries.
            assert isinstance(error, (MLAuthError, FaultError)), repr(error)
            assert "\n" not in str(error)
            assert str(error).isprintable()


@pytest.fixture
def place(
    azure: Azure, clean_environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Place:
    return Place(azure, monkeypatch, tmp_path)


@pytest.fixture
def watch(clean_environment: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    with watching(capfd) as watch:
        yield watch


@pytest.mark.parametrize("spoilt", few(SPOILT, "a byte that is not UTF-8"))
@pytest.mark.parametrize(("kind", "name"), VARIABLES)
def test_a_variable_that_is_spoilt_is_one_line_without_a_value(
    place: Place, watch: Watch, kind: str, name: str, spoilt: str
) -> None:
    before = place.be(kind).get(name, "login.microsoftonline.com")
    place.set({name: SPOILT[spoilt](before)})
    place.nothing_but_ours(watch)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", few(["service_principal", "environment"], "service_principal"))
def test_what_else_a_variable_may_hold(place: Place, watch: Watch, kind: str, other: str) -> None:
    place.be(kind)
    place.set(OTHERS[other])
    place.nothing_but_ours(watch)


@pytest.mark.parametrize("endpoint", few(ENDPOINTS, "a port that is none"))
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("environment", "IDENTITY_ENDPOINT"),
        ("azure_ml", "MSI_ENDPOINT"),
        ("imds", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
    ],
)
def test_an_endpoint_that_is_none(
    place: Place, watch: Watch, kind: str, name: str, endpoint: str
) -> None:
    place.be(kind)
    place.set({name: ENDPOINTS[endpoint]})
    place.nothing_but_ours(watch)


def certificates(folder: Path, canary: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Files that are no application's certificate, and their passwords."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    none = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(canary.encode())
    chain = trustme.CA().issue_cert("x", key_type=trustme.KeyType.RSA)
    own = chain.private_key_pem.bytes() + chain.cert_chain_pems[0].bytes()
    other = rsa.generate_private_key(65537, 2048)
    contents = {
        "text": canary.encode(),
        "bytes": b"\xff\xfe" + canary.encode(),
        "only-the-certificate": chain.cert_chain_pems[0].bytes(),
        "only-a-key": other.private_bytes(pem, pkcs8, none),
        "a-key-of-another-kind": ec.generate_private_key(ec.SECP256R1()).private_bytes(
            pem, pkcs8, none
        )
        + chain.cert_chain_pems[0].bytes(),
        "locked": other.private_bytes(pem, pkcs8, locked) + chain.cert_chain_pems[0].bytes(),
        "nothing": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield str(folder / name), {}
        yield str(folder / name), {"AZURE_CLIENT_CERTIFICATE_PASSWORD": canary + "\n"}
    (folder / "own").write_bytes(own)
    yield str(folder / "own"), {"AZURE_CLIENT_CERTIFICATE_PASSWORD": canary}
    yield str(folder / "locked"), {"AZURE_CLIENT_CERTIFICATE_PASSWORD": canary + HALF}
    for path in (folder, folder / "own\n", folder / "missing", f"{folder}/{'a' * 300}"):
        yield str(path), {}


@pytest.mark.load
def test_a_certificate_that_is_none(place: Place, watch: Watch, tmp_path: Path) -> None:
    place.be("service_principal")
    place.set({"AZURE_CLIENT_SECRET": ""})
    for path, password in certificates(tmp_path, place.canary):
        place.set({"AZURE_CLIENT_CERTIFICATE_PASSWORD": "", **password})
        place.set({"AZURE_CLIENT_CERTIFICATE_PATH": path})
        place.outcomes(watch)
    assert len(watch.raised) == 20 * 3
    place.nothing_but_ours(watch)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a\nb\n", b"a" * 100_000, None])
def test_a_federated_token_that_is_none(
    place: Place, watch: Watch, tmp_path: Path, content: bytes | None
) -> None:
    environment = place.be("workload_identity")
    file = Path(environment["AZURE_FEDERATED_TOKEN_FILE"])
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content + (place.canary.encode() if content.startswith(b"\xff") else b""))
    place.nothing_but_ours(watch)
    assert len(watch.raised) == 3

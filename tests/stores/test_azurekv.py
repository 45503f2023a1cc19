"""Azure Key Vault, with its own SDK over TLS and a server that is as strict as Azure."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

import mlauth
from mlauth import SecretReference
from mlauth.azure import identity as azure_identity
from mlauth.azure import tokens as azure_tokens
from mlauth.deadline import THREAD, Deadline
from mlauth.errors import (
    IdentityUnavailable,
    InvalidReference,
    ResolutionError,
    SecretDenied,
    SecretUnusable,
    StoreError,
    StoreUnavailable,
    StoreUnreachable,
)
from mlauth.profiles import Profile
from mlauth.report import Status
from mlauth.resolving import read_all
from mlauth.stores import StoredSecret
from mlauth.storing import SecretStore
from mlauth.testing.stores import CANARY, RemoteStoreContract, WritableStoreContract
from tests.support.azure import Azure, become
from tests.support.faults import answer, faulty, reset, silent
from tests.support.identity import CLOUDS
from tests.support.key_vault import Vault

DAY = 24 * 3600
NOW = int(time.time())
APPLICATION = {"AZURE_CLIENT_SECRET": CANARY, "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}


@pytest.fixture(autouse=True)
def _identity(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, azure.environment())


@pytest.fixture
def vault(azure: Azure) -> Vault:
    """A vault of the test's own."""
    return azure.vault()


def reference(vault: Vault, name: str = "key", **query: str) -> SecretReference:
    options = "&".join(f"{key}={value}" for key, value in query.items())
    return SecretReference.parse(
        f"azurekv://{vault.host.partition('.')[0]}/{name}" + (f"?{options}" if options else "")
    )


def read(where: SecretReference, *, timeout: float = 20) -> StoredSecret:
    return read_all([where], Deadline(timeout))[where]


def refused(where: SecretReference, kind: type[StoreError], *, timeout: float = 20) -> str:
    with pytest.raises(kind) as caught:
        read(where, timeout=timeout)
    said = str(caught.value)
    assert said.startswith(str(where))
    assert "\n" not in said
    assert CANARY not in said
    assert type(caught.value) is kind
    return said


class TestAzureKeyVault(WritableStoreContract, RemoteStoreContract):
    scheme = "azurekv"
    sdk = ("azure", "msal")

    @pytest.fixture(autouse=True)
    def _vault(self, vault: Vault) -> None:
        self.vault = vault

    def put(self, value: str) -> str:
        self.vault.put("secret", value)
        return str(reference(self.vault, "secret"))

    def missing(self) -> str:
        return str(reference(self.vault, "missing"))

    def denied(self) -> str:
        self.vault.deny("ForbiddenByRbac")
        return self.put(CANARY)

    def unavailable(self) -> str:
        self.vault.fail(503, 1000)
        return self.put(CANARY)

    @pytest.fixture
    def writable(
        self, store: SecretStore, azure: Azure, monkeypatch: pytest.MonkeyPatch
    ) -> SecretStore:
        become(monkeypatch, azure.environment(azure.writer))
        return store


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("azurekv://acme-prod/zenml_api_key", "no '_'"),
        ("azurekv://acme-prod", "the secret is missing"),
        ("azurekv://acme-prod/a/b", "there is one part too many after the secret"),
        (f"azurekv://acme-prod/{'a' * 128}", "a secret's name has 1 to 127"),
        ("azurekv://ac/key", "3 to 24"),
        ("azurekv://acme--prod/key", "single hyphens"),
        ("azurekv://1acme/key", "starts with a letter"),
        ("azurekv://acme-/key", "ends with a letter or digit"),
        ("azurekv://acme.vault.azure.net/secrets/key", "remove 'secrets/'"),
        ("azurekv://me@acme.vault.azure.net/key", "not a host name"),
        ("azurekv://acme.vault.azure.net:port/key", "not a host name"),
        ("azurekv://acme.vault.azure.net:99999/key", "not a host name"),
        ("azurekv://acme..vault.azure.net/key", "not a host name"),
        ("azurekv://acme.vault.azure.net./key", "not a host name"),
        (f"azurekv://{'a' * 64}.vault.azure.net/key", "not a host name"),
        ("azurekv://acme-prod/key?version=3", "32 digits"),
        ("azurekv://acme-prod/key?region=eu", "unknown option 'region' (known: version)"),
    ],
)
def test_a_name_is_refused_with_key_vaults_own_rule(text: str, said: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        SecretReference.parse(text)
    assert said in str(caught.value)


@pytest.mark.process
@pytest.mark.parametrize(
    "text",
    [
        "azurekv://acme-prod/zenml-api-key",
        "azurekv://acme.vault.azure.cn/key",
        "azurekv://acme.vault.localhost:8443/Key1#field",
        f"azurekv://acme-prod/key?version={'0a' * 16}",
    ],
)
def test_a_reference_is_parsed_without_the_sdk(text: str) -> None:
    code = (
        "import sys; from mlauth import SecretReference\n"
        f"assert str(SecretReference.parse({text!r})) == {text!r}\n"
        "assert not [name for name in sys.modules if name.startswith(('azure', 'msal'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_three_secrets_cost_one_token_one_challenge_and_a_get_each(
    azure: Azure, vault: Vault
) -> None:
    for name in ("one", "two", "three"):
        vault.put(name, f"{CANARY}-{name}")
    before = len(azure.directory.requests)
    values = mlauth.resolve({name: reference(vault, name) for name in ("one", "two", "three")})
    assert {name: value.get_secret_value() for name, value in values.items()} == {
        name: f"{CANARY}-{name}" for name in ("one", "two", "three")
    }
    assert len(azure.directory.requests) == before + 1
    assert sorted(request.status for request in vault.requests) == [200, 200, 200, 401]
    assert all(request.method == "GET" for request in vault.requests)
    assert not any(request.path.rstrip("/").endswith("/secrets") for request in vault.requests)
    vault.requests.clear()
    mlauth.resolve(reference(vault, "one"))  # another read of this process
    assert [request.status for request in vault.requests] == [200]
    assert len(azure.directory.requests) == before + 1


def test_two_vaults_share_the_token(azure: Azure) -> None:
    vaults = [azure.vault() for _ in range(2)]
    for vault in vaults:
        vault.put("key", CANARY)
    before = len(azure.directory.requests)
    mlauth.resolve({vault.host: reference(vault) for vault in vaults})
    assert len(azure.directory.requests) == before + 1
    assert [len(vault.requests) for vault in vaults] == [2, 2]


def test_a_version_is_said_and_can_be_pinned(vault: Vault) -> None:
    first, second = vault.put("key", f"{CANARY}-1"), vault.put("key", f"{CANARY}-2")
    assert read(reference(vault)).version == second
    pinned = read(reference(vault, version=first))
    assert (pinned.value.get_secret_value(), pinned.version) == (f"{CANARY}-1", first)


def test_disabled_secrets_are_said_with_how_to_pin(vault: Vault) -> None:
    first = vault.put("key", CANARY)
    second = vault.put("key", CANARY, enabled=False)
    said = refused(reference(vault), SecretUnusable)
    assert "its latest version is disabled" in said
    assert "pin an older one that is enabled: ?version=" in said
    assert read(reference(vault, version=first)).version == first
    assert "this version is disabled" in refused(reference(vault, version=second), SecretUnusable)


@pytest.mark.parametrize(
    ("validity", "said"),
    [({"exp": NOW - DAY}, "it expired on 20"), ({"nbf": NOW + DAY}, "it is not valid before 20")],
)
def test_an_outdated_secret_of_key_vault_is_refused_unless_the_profile_only_warns(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, validity: dict[str, int], said: str
) -> None:
    vault.put("key", CANARY, **validity)
    assert said in refused(reference(vault), SecretUnusable)
    profile = {"env": {"FLOW_TOKEN": str(reference(vault))}}
    report = mlauth.check(Profile.model_validate(profile))
    assert report.status is Status.FAILED
    assert 'expired = "warn"' in report.summary()
    lenient = Profile.model_validate({**profile, "expired": "warn"})
    with mlauth.activate(lenient) as activation:
        assert "FLOW_TOKEN" in activation.variables
        (warning,) = activation.warnings
    assert warning.startswith(f"{reference(vault)} is used though {said}")


def test_a_secret_that_will_expire_is_read(vault: Vault) -> None:
    vault.put("key", CANARY, nbf=NOW - DAY, exp=NOW + DAY)
    assert read(reference(vault)).outdated is None


def test_a_throttled_vault_is_asked_again_when_it_says(vault: Vault) -> None:
    vault.put("key", CANARY)
    vault.throttle(2, retry_after=1)
    start = time.monotonic()
    assert read(reference(vault)).value.get_secret_value() == CANARY
    assert time.monotonic() - start >= 2
    assert [request.status for request in vault.requests] == [429, 429, 401, 200]


def test_a_vault_that_does_not_exist_is_said(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    where = SecretReference.parse("azurekv://no-such-vault.invalid/key")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, ".invalid")
    said = refused(where, StoreUnreachable, timeout=10)
    assert "there is no host of that name (no-such-vault.invalid)" in said


def test_a_host_that_asks_for_a_token_of_another_service_gets_none(
    azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    login = "https://login.microsoftonline.com/common"
    challenge = f'Bearer authorization="{login}", resource="https://vault.azure.net"'
    before = len(azure.directory.requests)
    with faulty(answer(401, WWW_Authenticate=challenge), tls=tls) as server:
        where = SecretReference.parse(f"azurekv://127.0.0.1:{server.port}/key")
        assert "asks for a token of another service" in refused(where, StoreUnreachable)
    assert len(azure.directory.requests) == before


class TestIdentity:
    """The environment chooses the identity, and `explain` shows it."""

    @pytest.fixture
    def key(self, vault: Vault) -> SecretReference:
        vault.put("key", CANARY)
        return reference(vault)

    @pytest.fixture
    def own(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        return partial(become, monkeypatch)

    def identity(self, key: SecretReference) -> str:
        return SecretStore("azurekv").describe(key).identity

    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("environment", "managed identity (App Service, IDENTITY_ENDPOINT)"),
            ("azure_ml", "managed identity (Azure ML, MSI_ENDPOINT)"),
            ("imds", "managed identity of this machine (IMDS), else the `az login` of this user"),
            ("service_principal", "service principal {0.client_id} of tenant "),
            ("workload_identity", "workload identity {0.client_id} of tenant "),
        ],
    )
    def test_each_identity_reads_and_is_the_one_that_was_said(
        self,
        azure: Azure,
        key: SecretReference,
        own: Callable[..., None],
        tmp_path: Path,
        kind: str,
        said: str,
    ) -> None:
        identity, make = azure.identity("get"), getattr(azure, kind)
        own(make(tmp_path, identity) if kind == "workload_identity" else make(identity))
        assert self.identity(key).startswith(said.format(identity))
        assert read(key).value.get_secret_value() == CANARY
        path = {"environment": "/msi/", "azure_ml": "/MSI/", "imds": "/metadata/"}.get(kind)
        (request,) = identity.requests
        assert (path or "/oauth2/v2.0/token") in request.path

    @pytest.mark.parametrize("kind", ["environment", "azure_ml", "imds"])
    def test_the_client_id_names_the_user_assigned_identity(
        self, azure: Azure, key: SecretReference, own: Callable[..., None], kind: str
    ) -> None:
        first, second = azure.identity("get"), azure.identity("get")
        environment = getattr(azure, kind)(azure.reader, assigned=[first, second])
        own({**environment, "AZURE_CLIENT_ID": second.client_id})
        assert f"user-assigned managed identity {second.client_id}" in self.identity(key)
        read(key)
        assert [len(identity.requests) for identity in (first, second)] == [0, 1]
        own({**environment, "AZURE_CLIENT_ID": str(uuid.uuid4())})
        assert "user-assigned managed identity" in refused(key, IdentityUnavailable)

    @pytest.mark.parametrize(
        ("environment", "said"),
        [
            ({"AZURE_CLIENT_SECRET": CANARY}, "AZURE_CLIENT_SECRET is set without AZURE_TENANT_ID"),
            (
                {"AZURE_FEDERATED_TOKEN_FILE": "/t", "AZURE_TENANT_ID": "t"},
                "azure.workload.identity/client-id",
            ),
            ({"IDENTITY_ENDPOINT": "http://127.0.0.1"}, "without IDENTITY_HEADER"),
            (
                {**APPLICATION, "AZURE_TENANT_ID": "t\n"},
                "AZURE_TENANT_ID has a blank or a line break",
            ),
            ({**APPLICATION, "AZURE_TENANT_ID": '"t"'}, "AZURE_TENANT_ID is not a tenant's id"),
            ({**APPLICATION, "AZURE_CLIENT_ID": "c/d"}, "AZURE_CLIENT_ID is not an application's"),
            (
                {**APPLICATION, "AZURE_CLIENT_SECRET": f"{CANARY}\n"},
                "AZURE_CLIENT_SECRET has a blank",
            ),
            ({"MSI_ENDPOINT": "localhost:40342"}, "MSI_ENDPOINT is not a URL"),
            ({"MSI_ENDPOINT": "http://localhost", "MSI_SECRET": "é"}, "MSI_SECRET has characters"),
            ({"AZURE_TOKEN_CREDENTIALS": "VisualStudioCodeCredential"}, "mlauth does not use"),
            ({"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}, "are not"),
        ],
    )
    def test_half_an_identity_is_an_error_and_not_another_identity(
        self,
        key: SecretReference,
        own: Callable[..., None],
        environment: dict[str, str],
        said: str,
    ) -> None:
        own(environment)
        assert said in refused(key, IdentityUnavailable)
        assert self.identity(key).startswith("nobody: ")

    def test_an_empty_secret_is_as_good_as_none(
        self, azure: Azure, key: SecretReference, own: Callable[..., None]
    ) -> None:
        own({**azure.environment(), "AZURE_CLIENT_SECRET": "", "AZURE_CLIENT_ID": ""})
        read(key)

    def test_wrong_secrets_and_unknown_applications_are_told_apart(
        self, azure: Azure, key: SecretReference, own: Callable[..., None]
    ) -> None:
        own({**azure.service_principal(), "AZURE_CLIENT_SECRET": CANARY})
        said = refused(key, IdentityUnavailable)
        assert "AZURE_CLIENT_SECRET must be the secret's value, not its id (AADSTS7000215)" in said
        own({**azure.service_principal(), "AZURE_CLIENT_ID": str(uuid.uuid4())})
        assert "there is no such application" in refused(key, IdentityUnavailable)
        own({**azure.service_principal(), "AZURE_TENANT_ID": str(uuid.uuid4())})
        assert "the service is in another tenant" in refused(key, IdentityUnavailable)

    def test_a_federated_token_that_is_old_or_gone_is_said(
        self, azure: Azure, key: SecretReference, own: Callable[..., None], tmp_path: Path
    ) -> None:
        own(azure.workload_identity(tmp_path, lifetime=-60))
        said = refused(key, IdentityUnavailable)
        assert "the token in the file has expired" in said
        environment = azure.workload_identity(tmp_path)
        own({**environment, "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "missing")})
        assert "are its variables, and its file, right?" in refused(key, IdentityUnavailable)

    @pytest.mark.parametrize("password", [None, CANARY])
    def test_an_application_shows_its_certificate(
        self,
        azure: Azure,
        key: SecretReference,
        own: Callable[..., None],
        tmp_path: Path,
        password: str | None,
    ) -> None:
        identity, file = azure.identity("get"), tmp_path / "application.pem"
        certificate = trustme.CA().issue_cert("application", key_type=trustme.KeyType.RSA)
        loaded = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = serialization.Encoding.PEM
        identity.certificates.append(loaded.public_key().public_bytes(pem, public))
        private = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        kind = serialization.PrivateFormat.PKCS8
        locked = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        chain = certificate.cert_chain_pems[0].bytes()
        file.write_bytes(private.private_bytes(pem, kind, locked) + chain)
        environment = azure.service_principal(identity)
        del environment["AZURE_CLIENT_SECRET"]
        environment["AZURE_CLIENT_CERTIFICATE_PATH"] = str(file)
        own(environment | ({"AZURE_CLIENT_CERTIFICATE_PASSWORD": password} if password else {}))
        assert self.identity(key).endswith("(AZURE_CLIENT_CERTIFICATE_PATH)")
        assert read(key).value.get_secret_value() == CANARY

    def test_a_certificate_that_cannot_be_used_is_said(
        self, azure: Azure, key: SecretReference, own: Callable[..., None], tmp_path: Path
    ) -> None:
        environment = azure.service_principal()
        del environment["AZURE_CLIENT_SECRET"]
        (tmp_path / "pem").write_text(CANARY)
        for path in (tmp_path / "pem", tmp_path / "missing"):
            own({**environment, "AZURE_CLIENT_CERTIFICATE_PATH": str(path)})
            assert f"the certificate {path}" in refused(key, IdentityUnavailable)

    def test_the_login_of_a_laptop_is_used_when_there_is_no_machine_identity(
        self,
        azure: Azure,
        key: SecretReference,
        own: Callable[..., None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        own(no_identity(azure))
        az = tmp_path / "az"
        answer = json.dumps({"accessToken": token(azure), "expires_on": int(time.time()) + 3600})
        az.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\necho '{answer}'\n")
        az.chmod(az.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        others = {name: reference_like(key, name) for name in ("other", "third")}
        with pytest.raises(ResolutionError):
            read_all([key, *others.values()], Deadline(20))
        assert read(key).value.get_secret_value() == CANARY
        (line,) = (tmp_path / "asked").read_text().splitlines()  # one call a process
        assert line.startswith("account get-access-token")

    @pytest.mark.parametrize("az", ["is not installed", "is not logged in", "hangs"])
    def test_without_any_identity_nothing_hangs(
        self,
        azure: Azure,
        key: SecretReference,
        own: Callable[..., None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        az: str,
    ) -> None:
        own(no_identity(azure))
        script = {
            "is not logged in": "echo 'Please run az login to setup account.' >&2; exit 1",
            "hangs": "exec sleep 60",
        }
        if az in script:
            (tmp_path / "az").write_text(f"#!/bin/sh\n{script[az]}\n")
            (tmp_path / "az").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path) + ":/bin:/usr/bin")
        monkeypatch.setattr(azure_identity, "CLI_SECONDS", 1)
        start = time.monotonic()
        if az == "hangs":
            assert "az gave no token within" in refused(key, StoreUnavailable)
        else:
            said = refused(key, IdentityUnavailable)
            assert "neither gives a token here" in said
            assert ("`az login`, or" in said) == (az == "is not logged in")
        assert time.monotonic() - start < 8

    def test_az_that_hangs_is_not_asked_for_each_secret_when_the_time_is_up(
        self,
        azure: Azure,
        key: SecretReference,
        own: Callable[..., None],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        own(azure.environment())
        read(key)  # this imports the SDK, which takes longer than the time limit below
        own(azure.network() | {"AZURE_TOKEN_CREDENTIALS": "dev"})
        az = tmp_path / "az"
        az.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nexec sleep 60\n")
        az.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setattr(azure_identity, "CLI_SECONDS", 1)
        before = set(threading.enumerate())
        with pytest.raises(ResolutionError):
            read_all([reference_like(key, f"key-{n}") for n in range(8)], Deadline(2.5))
        for thread in set(threading.enumerate()) - before:
            if thread.name == THREAD:
                thread.join(30)
                assert not thread.is_alive()
        assert len((tmp_path / "asked").read_text().splitlines()) <= 3  # each takes a second

    def test_a_throttled_identity_endpoint_is_asked_again(
        self, azure: Azure, key: SecretReference, own: Callable[..., None]
    ) -> None:
        identity = azure.identity("get")
        own(azure.environment(identity))
        identity.troubles.throttle(1, retry_after=1)
        assert read(key).value.get_secret_value() == CANARY
        azure_tokens.tokens.cache_clear()
        identity.troubles.throttle(1000, retry_after=1)
        said = refused(key, StoreUnavailable, timeout=2)
        assert "throttles us (HTTP 429)" in said

    def test_an_identity_endpoint_that_is_down_or_silent_is_said(
        self, azure: Azure, key: SecretReference, own: Callable[..., None]
    ) -> None:
        with faulty(silent) as server:
            own({**azure.environment(), "IDENTITY_ENDPOINT": f"{server.url}/token"})
            assert "no answer within 1 s" in refused(key, StoreUnavailable, timeout=1)
        with faulty(reset) as server:
            own({**azure.environment(), "IDENTITY_ENDPOINT": f"{server.url}/token"})
            assert "broke off" in refused(key, StoreUnavailable, timeout=20)
        own({**azure.environment(), "IDENTITY_ENDPOINT": "http://127.0.0.1:1/token"})
        assert "refuses connections" in refused(key, StoreUnreachable, timeout=20)


def token(azure: Azure) -> str:
    """Return the output of `az account get-access-token`."""
    return azure.directory.token(azure.reader, CLOUDS["public"], "https://vault.azure.net")


def no_identity(azure: Azure) -> dict[str, str]:
    """Return an environment in which no endpoint of a machine's identity answers."""
    return {**azure.network(), "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1"}


def reference_like(key: SecretReference, name: str) -> SecretReference:
    return SecretReference.parse(f"azurekv://{key.place.parts[0]}/{name}")


@pytest.mark.parametrize("cloud", ["china", "usgov"])
@pytest.mark.parametrize("by", ["host", "host:443", "name"])
def test_vaults_of_other_clouds_are_read_with_identities_of_those(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, cloud: str, by: str
) -> None:
    """The full host needs no variable; a short name needs AZURE_AUTHORITY_HOST for the cloud."""
    vault = azure.vault(cloud=cloud)
    vault.put("key", CANARY)
    become(monkeypatch, azure.service_principal(cloud=cloud))
    where = reference(vault)
    if by != "name":
        monkeypatch.delenv("AZURE_AUTHORITY_HOST")
        where = SecretReference.parse(f"azurekv://{by.replace('host', vault.host)}/key")
    assert read(where).value.get_secret_value() == CANARY


class TestWriting:
    @pytest.fixture(autouse=True)
    def _writer(self, azure: Azure, _identity: None, monkeypatch: pytest.MonkeyPatch) -> None:
        become(monkeypatch, azure.environment(azure.writer))

    def write(self, where: SecretReference, value: str, *, timeout: float = 20) -> str | None:
        store = SecretStore("azurekv")
        return store.write(where, SecretStr(value), timeout=timeout)

    def test_a_new_version_is_what_is_read_next(self, vault: Vault) -> None:
        first = self.write(reference(vault), f"{CANARY}-1")
        second = self.write(reference(vault), f"{CANARY}-2")
        assert first != second
        secret = read(reference(vault))
        assert (secret.value.get_secret_value(), secret.version) == (f"{CANARY}-2", second)

    @pytest.mark.parametrize("value", ["", "a" * 25_601, "é" * 12_801])
    def test_what_key_vault_does_not_take_is_refused_before_it_is_sent(
        self, vault: Vault, value: str
    ) -> None:
        with pytest.raises(SecretUnusable, match="1 byte to 25 KiB"):
            self.write(reference(vault), value)
        assert vault.requests == []

    def test_the_largest_value_goes_there_and_back(self, vault: Vault) -> None:
        self.write(reference(vault), "a" * 25_600)
        assert len(read(reference(vault)).value.get_secret_value()) == 25_600

    def test_a_name_that_a_deleted_secret_holds_is_said(self, vault: Vault) -> None:
        vault.put("key", CANARY)
        vault.delete("key")
        with pytest.raises(SecretUnusable, match="a deleted secret still has the name; recover it"):
            self.write(reference(vault), CANARY)

    def test_a_name_that_is_being_recovered_is_tried_again(self, vault: Vault) -> None:
        vault.put("key", CANARY)
        vault.delete("key")
        vault.recover("key", conflicts=2)
        assert self.write(reference(vault), f"{CANARY}-new")

    def test_reading_alone_does_not_allow_to_write(
        self, azure: Azure, vault: Vault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        become(monkeypatch, azure.environment(azure.reader))
        with pytest.raises(SecretDenied, match="Key Vault Secrets Officer") as caught:
            self.write(reference(vault), CANARY)
        assert CANARY not in str(caught.value)

    def test_it_is_proven_without_a_new_version_and_with_the_same_tags(self, vault: Vault) -> None:
        writable = SecretStore("azurekv")
        for tags in (None, {"team": "flows"}):
            vault.put("key", CANARY, tags=tags, content_type="text/plain", exp=NOW + DAY)
            writable.prove_writable(reference(vault), timeout=20)
            assert vault.tags("key")[-1] == (tags or {})
        assert vault.values("key") == [CANARY, CANARY]
        assert vault.count("PATCH", "/secrets/key/", 200) == 2
        assert vault.count("PUT") == 0

    def test_a_token_that_comes_too_late_writes_nothing(
        self, azure: Azure, vault: Vault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vault.put("key", CANARY)
        identity = azure.identity("get", "set")
        become(monkeypatch, azure.environment(identity))
        identity.troubles.late(2)
        with pytest.raises(StoreUnavailable, match="was not asked, because no time was left"):
            self.write(reference(vault), "another", timeout=1)
        assert len(identity.requests) == 1
        assert vault.count("PUT", status=200) == 0

    def test_a_version_cannot_be_written(self, vault: Vault) -> None:
        with pytest.raises(SecretUnusable, match="without version"):
            self.write(reference(vault, version="0" * 32), CANARY)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AZURE_AUTHORITY_HOST", "file:///etc/passwd", "AZURE_AUTHORITY_HOST is not a host"),
        ("AZURE_AUTHORITY_HOST", "http://login.microsoftonline.com", "is not a host, or its https"),
        ("https_proxy", "ftp://127.0.0.1:1", "the proxy that HTTPS_PROXY (or ALL_PROXY) names"),
        ("https_proxy", "http://[", "the proxy that HTTPS_PROXY (or ALL_PROXY) names"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) names"),
    ],
)
@pytest.mark.parametrize("kind", ["environment", "service_principal"])
def test_a_setting_with_which_nothing_can_be_asked_is_said(
    azure: Azure,
    vault: Vault,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
    value: str,
    said: str,
) -> None:
    become(monkeypatch, getattr(azure, kind)())
    monkeypatch.setenv(name, value)
    assert said in refused(reference(vault), StoreUnreachable)


@pytest.mark.process
def test_a_missing_library_is_one_line_that_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['azure.identity'] = None\n"
        "import mlauth\n"
        "try: mlauth.resolve('azurekv://acme-prod/key')\n"
        "except mlauth.MLAuthError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("MissingDependency azurekv://acme-prod/key cannot be read: ")
    assert "mlauth[azurekv]" in done.stdout


@pytest.mark.process
def test_explain_shows_place_identity_and_time_limits(vault: Vault) -> None:
    vault.put("key", CANARY)
    command = [sys.executable, "-m", "mlauth.cli", "explain", str(reference(vault))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"points to  https://{vault.host}/secrets/key" in done.stdout
    assert "read as    managed identity (App Service, IDENTITY_ENDPOINT)" in done.stdout
    assert "note       time limits: the endpoint is asked for one token a process" in done.stdout
    assert "readable   yes (version " in done.stdout
    assert CANARY not in done.stdout + done.stderr

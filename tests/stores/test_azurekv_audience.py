"""A vault's host gets a token for the vaults of its own cloud, and for nothing else."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pytest
import trustme

from mlauth import SecretReference
from mlauth.azure import tokens as azure_tokens
from mlauth.deadline import Deadline
from mlauth.errors import StoreError, StoreUnreachable
from mlauth.resolving import read_all
from mlauth.testing.stores import CANARY
from tests.support.azure import Azure, become
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.faults import FaultyServer, Reply, answer, faulty
from tests.support.web import Answer

STACK = "vault.local.azurestack.external"
LOGIN = "https://login.microsoftonline.com"


class Host:
    """A host that may ask for any token, and answers a request that has one."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self._authority = trustme.CA()
        self.server: FaultyServer | None = None
        self.proxy: ConnectProxy | None = None

    def asks(self, host: str, challenge: str, **others: tuple[Reply, ...]) -> dict[str, str]:
        """Start this host and others; return the variables that lead to them."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(host, *others).configure_cert(tls)
        self._authority.cert_pem.write_to_path(self._folder / "ca.pem")
        secret = {"value": CANARY, "id": f"https://{host}/secrets/key/{'0' * 32}"}
        self.server = self._stack.enter_context(
            faulty(
                answer(401, WWW_Authenticate=challenge),
                answer(200, json.dumps(secret).encode()),
                tls=tls,
            )
        )
        ports = {host: self.server.port}
        for other, replies in others.items():
            ports[other] = self._stack.enter_context(faulty(*replies, tls=tls)).port
        self.proxy = self._stack.enter_context(connect_proxy(ports, lambda _: True))
        return {
            "REQUESTS_CA_BUNDLE": str(self._folder / "ca.pem"),
            "HTTPS_PROXY": self.proxy.url,
            "https_proxy": self.proxy.url,
        }


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    azure_tokens.tokens.cache_clear()
    with ExitStack() as stack:
        yield Host(stack, tmp_path)
    azure_tokens.tokens.cache_clear()


@pytest.fixture
def endpoint(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Answer every request for a token; return the variables of App Service."""
    body = {"access_token": "some", "expires_on": "9999999999", "resource": "?"}
    with faulty(answer(200, json.dumps(body).encode())) as server:
        use(monkeypatch, {**azure.environment(), "IDENTITY_ENDPOINT": server.url})
        yield server


def use(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def read(host: str) -> str:
    where = SecretReference.parse(f"azurekv://{host}/key")
    return read_all([where], Deadline(20))[where].value.get_secret_value()


@pytest.mark.parametrize("parameter", ["resource={}", "scope={}/.default"])
@pytest.mark.parametrize(
    ("name", "audience"),
    [
        ("x.azure.net", "https://azure.net"),
        ("x.vault.azure.net", "https://azure.net"),
        ("x.vault.azure.net", "https://net"),
        ("x.management.azure.com", "https://management.azure.com"),
        ("x.graph.microsoft.com", "https://graph.microsoft.com"),
        ("x.vault.azure.net.example.com", "https://vault.azure.net.example.com"),
        ("x.vault.azure.net", "http://vault.azure.net"),
        ("x.vault.azure.net", "https://vault.azure.net/other"),
        ("x.vault.azure.net", "https://me@vault.azure.net"),
        (f"x.{STACK}", f"https://{STACK}"),
    ],
)
def test_a_host_chooses_no_audience(
    host: Host,
    endpoint: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    audience: str,
    parameter: str,
) -> None:
    challenge = f'authorization="{LOGIN}/t", {parameter.format(audience)}'
    name = name.replace("x.", f"x{uuid4().hex[:8]}.", 1)
    use(monkeypatch, host.asks(name, f"Bearer {challenge}"))
    with pytest.raises(StoreUnreachable, match="asks for a token of another service"):
        read(name)
    assert endpoint.requests == []
    assert host.server is not None
    assert len(host.server.requests) == 1


@pytest.mark.parametrize("suffix", ["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"])
def test_a_vault_of_a_known_cloud_gets_a_token_for_the_vaults_of_that(
    host: Host, endpoint: FaultyServer, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    challenge = f'Bearer authorization="{LOGIN}/t", resource="https://{suffix}"'
    name = f"v{uuid4().hex[:8]}.{suffix}"  # the SDK keeps a host's challenge in the process
    use(monkeypatch, host.asks(name, challenge))
    assert read(name) == CANARY
    (asked,) = endpoint.requests
    assert f"resource=https://{suffix} HTTP/1.1" in unquote(asked.decode())


@pytest.mark.parametrize(
    ("name", "audience", "reads"),
    [
        (f"acme.{STACK}", f"https://{STACK}", True),
        (f"acme.{STACK}", "https://local.azurestack.external", False),
        (f"acme.{STACK}", "https://vault.azure.net", False),
        ("acme.management.azurestack.external", "https://management.azurestack.external", False),
        ("acme.graph.windows.net", "https://graph.windows.net", False),
        ("acme.vault.azure.net", "https://vault.azure.net", True),
        ("acme.vault.azure.net", "https://azure.net", False),
    ],
)
def test_a_cloud_that_the_environment_names_has_vaults_of_its_own(
    host: Host,
    endpoint: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    audience: str,
    reads: bool,
) -> None:
    challenge = f'Bearer authorization="{LOGIN}/t", resource="{audience}"'
    name = name.replace("acme", f"v{uuid4().hex[:8]}")
    use(monkeypatch, host.asks(name, challenge))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.local.azurestack.external/")
    if reads:
        assert read(name) == CANARY
        assert len(endpoint.requests) == 1
    else:
        with pytest.raises(StoreUnreachable, match="asks for a token of another service"):
            read(name)
        assert endpoint.requests == []


def test_a_cloud_of_your_own_issues_tokens_and_nobody_else_is_asked(
    host: Host, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MSAL asks the public Microsoft Entra about a host that it does not know, and stops there."""
    name, login = f"v{uuid4().hex[:8]}.{STACK}", "login.local.azurestack.external"
    endpoints = {
        f"{kind}_endpoint": f"https://{login}/t/oauth2/{kind}"
        for kind in ("token", "authorization")
    }
    issued = {"access_token": "some", "expires_in": 3600, "token_type": "Bearer"}
    variables = host.asks(
        name,
        f'Bearer authorization="https://{login}/{azure.directory.tenant}", '
        f'resource="https://{STACK}"',
        **{login: tuple(answer(200, json.dumps(each).encode()) for each in (endpoints, issued))},
    )
    use(monkeypatch, azure.service_principal() | variables)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{login}/")
    assert read(name) == CANARY
    assert host.proxy is not None
    assert {asked.host for asked in host.proxy.asked} == {name, login}


class TestTheAuthorityOfAChallenge:
    """The environment names the issuer of tokens and the tenant; the vault cannot name others."""

    @pytest.fixture
    def principal(self, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def be(**other: str) -> None:
            become(monkeypatch, azure.service_principal() | other)

        return be

    def refused(self, azure: Azure, vault_says: str) -> str:
        vault = azure.vault()
        vault.troubles.say(Answer(401, {}, {"WWW-Authenticate": f"Bearer {vault_says}"}), 9)
        with pytest.raises(StoreError) as caught:
            read(vault.host)
        return str(caught.value)

    def test_no_secret_goes_to_an_authority_that_the_vault_names(
        self, azure: Azure, principal: Callable[..., None]
    ) -> None:
        azure_tokens.tokens.cache_clear()
        principal()
        before = len(azure.proxy.asked)
        tenant = azure.directory.tenant
        for where in (f"https://login.evil.example/{tenant}", "https://login.evil.example/adfs"):
            self.refused(azure, f'authorization="{where}", resource="https://vault.azure.net"')
        hosts = {asked.host for asked in azure.proxy.asked[before:]}
        assert not [host for host in hosts if "evil" in host]

    @pytest.mark.parametrize("tenant", ["organizations", "common", "consumers", "Organizations"])
    def test_a_vault_names_no_tenant(
        self, azure: Azure, principal: Callable[..., None], tenant: str
    ) -> None:
        azure_tokens.tokens.cache_clear()
        principal(AZURE_TENANT_ID=tenant)
        before = len(azure.directory.requests)
        said = self.refused(
            azure, 'authorization="https://x/evil", resource="https://vault.azure.net"'
        )
        assert "AZURE_TENANT_ID" in said
        assert len(azure.directory.requests) == before

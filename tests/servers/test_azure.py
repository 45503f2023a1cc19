"""The stand-ins refuse what Azure refuses: the bare SDKs see it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.identity import (
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets._shared import http_challenge_cache

from tests.servers.azure import Azure, Vault

VALUE = "canary-7c1e"


class Fixed:
    """A credential that gives one token, whatever is asked."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(self.token, 2**40)


@pytest.fixture(autouse=True)
def _network(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    http_challenge_cache.clear()
    yield
    azure.identity.throttle(0)


@pytest.fixture
def vault(azure: Azure) -> Vault:
    vault = azure.vault(f"acme-{uuid.uuid4().hex[:8]}")
    vault.put("key", VALUE)
    return vault


def client(vault: Vault, credential: Any = None, **options: Any) -> SecretClient:
    credential = credential or ManagedIdentityCredential()
    return SecretClient(f"https://{vault.host}", credential, retry_total=0, **options)


def ask(azure: Azure, vault: Vault, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask without an SDK, with a token that is good."""
    network = azure.network()
    headers = {"Authorization": f"Bearer {azure.token()}"}
    with httpx.Client(proxy=network["HTTPS_PROXY"], verify=network["REQUESTS_CA_BUNDLE"]) as http:
        return http.request(method, f"https://{vault.host}{path}", headers=headers, **options)


def inner_code(caught: pytest.ExceptionInfo[HttpResponseError]) -> str:
    assert caught.value.response is not None
    return str(caught.value.response.json()["error"]["innererror"]["code"])


def test_the_sdk_reads_with_the_challenge_check_on(vault: Vault) -> None:
    secret = client(vault).get_secret("KEY")  # names have no case
    assert (secret.value, secret.properties.enabled) == (VALUE, True)
    assert [asked.status for asked in vault.requests] == [401, 200]


@pytest.mark.parametrize("fault", ["audience", "expired", "forged"])
def test_a_token_that_is_not_for_vaults_is_refused(azure: Azure, vault: Vault, fault: str) -> None:
    token = {
        "audience": azure.identity.issue("https://graph.microsoft.com"),
        "expired": azure.identity.issue("https://vault.azure.net", lifetime=-60),
        "forged": "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    }[fault]
    with pytest.raises(ClientAuthenticationError):
        client(vault, Fixed(token)).get_secret("key")


def test_a_token_of_another_cloud_is_refused(azure: Azure) -> None:
    vault = azure.vault("acme-cn", cloud="china")
    with pytest.raises(ClientAuthenticationError):
        client(vault, Fixed(azure.token())).get_secret("key")


def test_nobody_lists_without_the_right(vault: Vault) -> None:
    with pytest.raises(HttpResponseError) as caught:
        list(client(vault).list_properties_of_secrets())
    assert inner_code(caught) == "ForbiddenByRbac"
    vault.grant_list()
    for number in range(60):
        vault.put(f"other-{number}", VALUE)
    assert len(list(client(vault).list_properties_of_secrets())) == 61


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/secrets/key", None, 400),  # no api-version
        ("GET", "/secrets/key?api-version=1.0", None, 400),
        ("GET", "/secrets/a_b?api-version=7.5", None, 400),
        ("GET", f"/secrets/{'a' * 128}?api-version=7.5", None, 400),
        ("POST", "/secrets/key?api-version=7.5", None, 405),
        ("GET", "/keys/key?api-version=7.5", None, 404),
        ("GET", "/secrets/key/version/more?api-version=7.5", None, 404),
        ("PUT", "/secrets/key?api-version=7.5", {}, 400),
        ("PUT", "/secrets/key?api-version=7.5", {"value": ""}, 400),
        ("PUT", "/secrets/key?api-version=7.5", {"value": "a" * 25_601}, 400),
        ("PUT", "/secrets/key?api-version=7.5", {"value": "a", "contentType": "t" * 256}, 400),
        ("PUT", "/secrets/key?api-version=7.5", {"value": "a" * 25_600}, 200),
    ],
)
def test_what_the_protocol_does_not_have_is_refused(
    azure: Azure, vault: Vault, method: str, path: str, body: object, status: int
) -> None:
    assert ask(azure, vault, method, path, json=body).status_code == status


def test_a_deleted_name_is_neither_read_nor_written_until_it_is_recovered(vault: Vault) -> None:
    secrets = client(vault)
    vault.delete("key")
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret("key")
    with pytest.raises(HttpResponseError) as caught:
        secrets.set_secret("key", "other")
    assert inner_code(caught) == "ObjectIsDeletedButRecoverable"
    assert secrets.get_deleted_secret("key").scheduled_purge_date
    vault.recover("key")
    with pytest.raises(HttpResponseError) as caught:
        secrets.set_secret("key", "other")
    assert inner_code(caught) == "ObjectIsBeingRecovered"
    assert secrets.set_secret("key", "other").value == "other"


def test_a_host_that_nobody_has_is_not_reached(azure: Azure) -> None:
    with pytest.raises(httpx.ProxyError):
        httpx.get(
            "https://example.com", proxy=azure.network()["HTTPS_PROXY"], verify=False, timeout=5
        )


def test_managed_identities_want_their_own_header_and_parameters(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = "https://vault.azure.net/.default"
    assert ManagedIdentityCredential().get_token(scope).token
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    with pytest.raises(ClientAuthenticationError):
        ManagedIdentityCredential().get_token(scope)
    url, header = azure.identity.url, {"secret": azure.identity.header}
    query = {"api-version": "2017-09-01", "resource": "https://vault.azure.net"}
    known = azure.identity.client_id
    for parameters, status in (
        (query, 200),
        ({**query, "clientid": known}, 200),
        ({**query, "client_id": known}, 400),  # the name that other endpoints have
        ({**query, "clientid": str(uuid.uuid4())}, 400),
        ({**query, "api-version": "2019-08-01"}, 400),
    ):
        answer = httpx.get(f"{url}/ml/token", params=parameters, headers=header)
        assert answer.status_code == status, parameters
    imds = f"{url}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
    assert httpx.get(imds).status_code == 400  # without `Metadata: true`
    assert httpx.get(imds, headers={"Metadata": "true"}).status_code == 200


def test_entra_gives_tokens_to_whom_it_knows_alone(azure: Azure, tmp_path: Path) -> None:
    scope, identity = "https://vault.azure.net/.default", azure.identity
    known = (identity.tenant, identity.client_id)
    assert ClientSecretCredential(*known, identity.client_secret).get_token(scope).token
    for tenant, application, secret, code in (
        (*known, "wrong", "AADSTS7000215"),
        (identity.tenant, str(uuid.uuid4()), identity.client_secret, "AADSTS700016"),
        (str(uuid.uuid4()), identity.client_id, identity.client_secret, "AADSTS90002"),
    ):
        with pytest.raises(ClientAuthenticationError, match=code):
            ClientSecretCredential(tenant, application, secret).get_token(scope)
    file = tmp_path / "token"
    for content, passes in ((identity.assertion, True), ("other", False)):
        file.write_text(content)
        workload = WorkloadIdentityCredential(
            tenant_id=identity.tenant, client_id=identity.client_id, token_file_path=str(file)
        )
        if passes:
            assert workload.get_token(scope).token
        else:
            with pytest.raises(ClientAuthenticationError, match="AADSTS700213"):
                workload.get_token(scope)

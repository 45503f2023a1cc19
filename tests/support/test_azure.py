"""The stand-ins of Azure hold what the real SDK expects of Azure, and refuse what Azure refuses."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import (
    ClientSecretCredential,
    CredentialUnavailableError,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.secrets import SecretClient

from tests.support.azure import Azure
from tests.support.identity import CLOUDS, Directory, Identity
from tests.support.key_vault import DENIALS, Vault

CANARY = "canary-4f1d2c"
MANAGED = ["environment", "azure_ml", "imds"]
PUBLIC = "https://vault.azure.net"

Enter = Callable[[dict[str, str]], None]
Open = Callable[..., SecretClient]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Make this process one that runs in an environment of Azure."""

    def entered(environment: dict[str, str]) -> None:
        for name in list(os.environ):
            if name.startswith(("AZURE_", "IDENTITY_", "MSI_")) or name.endswith("_BUNDLE"):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return entered


@pytest.fixture
def client(azure: Azure, enter: Enter) -> Iterator[Open]:
    """Open a vault with the real SDK, as an identity of an app; nothing is retried."""
    with ExitStack() as stack:

        def opened(vault: Vault, identity: Identity | None = None, **options: Any) -> SecretClient:
            enter(azure.environment(identity, cloud=vault.cloud.name))
            credential = stack.enter_context(ManagedIdentityCredential(retry_total=0))
            options = {"retry_total": 0, **options}
            secrets = SecretClient(f"https://{vault.host}", credential, **options)
            return stack.enter_context(secrets)

        yield opened


@pytest.fixture
def raw(azure: Azure) -> Iterator[httpx.Client]:
    """Speak with the stand-ins without the SDK, which never sends what must be refused."""
    trust = ssl.create_default_context(cafile=str(azure.ca_bundle))
    with httpx.Client(proxy=azure.proxy.url, verify=trust, trust_env=False) as opened:
        yield opened


@pytest.fixture
def direct() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as opened:
        yield opened


def bearer(azure: Azure, identity: Identity | None = None, resource: str = PUBLIC) -> Any:
    token = azure.directory.token(identity or azure.reader, CLOUDS["public"], resource)
    return {"Authorization": f"Bearer {token}"}


def inner_code(error: HttpResponseError) -> str:
    assert error.error is not None
    return str(error.error.innererror["code"])


# Identity


@pytest.mark.parametrize("place", MANAGED)
def test_managed_identity_reads_three_secrets_with_one_token_and_one_challenge(azure, enter, place):
    identity, vault = azure.identity("get"), azure.vault()
    for name in ("a", "b", "c"):
        vault.put(name, CANARY + name)
    enter(getattr(azure, place)(identity))
    with (
        ManagedIdentityCredential() as credential,
        SecretClient(f"https://{vault.host}", credential) as secrets,
    ):
        assert [secrets.get_secret(name).value for name in "abc"] == [CANARY + n for n in "abc"]
    assert len(identity.requests) == 1
    assert [one.status for one in vault.requests] == [401, 200, 200, 200]
    assert vault.count("GET", "/secrets/", 200) == 3


@pytest.mark.parametrize("cloud", list(CLOUDS))
def test_client_secret_and_federated_token_read_in_each_cloud(azure, enter, tmp_path, cloud):
    vault = azure.vault(cloud=cloud)
    vault.put("key", CANARY)
    identity = azure.identity("get")
    for environment, make in (
        (azure.service_principal(identity, cloud=cloud), EnvironmentCredential),
        (azure.workload_identity(tmp_path, identity, cloud=cloud), WorkloadIdentityCredential),
        (azure.workload_identity(tmp_path, identity, cloud=cloud), ManagedIdentityCredential),
    ):
        enter(environment)
        with make() as credential, SecretClient(f"https://{vault.host}", credential) as secrets:
            assert secrets.get_secret("key").value == CANARY
    tokens = [one for one in identity.requests if one.method == "POST"]
    assert [(one.host, one.status) for one in tokens] == [(CLOUDS[cloud].login, 200)] * 3


def test_the_environment_alone_leads_a_child_process_to_the_vault(azure):
    vault = azure.vault()
    vault.put("key", CANARY)
    code = (
        "import sys\n"
        "from azure.identity import ManagedIdentityCredential\n"
        "from azure.keyvault.secrets import SecretClient\n"
        "client = SecretClient(sys.argv[1], ManagedIdentityCredential())\n"
        "print(len(client.get_secret('key').value))\n"
    )
    command = [sys.executable, "-c", code, f"https://{vault.host}"]
    environment = {**os.environ, **azure.environment()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(CANARY))), done.stderr


@pytest.mark.parametrize("place", MANAGED)
def test_user_assigned_identity_is_taken_by_its_client_id(azure, enter, place):
    system, assigned = azure.identity("get"), azure.identity("get")
    enter(getattr(azure, place)(system, assigned=[assigned]))
    with ManagedIdentityCredential(client_id=assigned.client_id) as credential:
        credential.get_token(f"{PUBLIC}/.default")
    assert (len(system.requests), len(assigned.requests)) == (0, 1)


@pytest.mark.parametrize("place", MANAGED)
def test_client_id_of_an_identity_that_is_not_assigned_is_refused(azure, enter, place):
    enter(getattr(azure, place)(assigned=[azure.identity("get"), azure.identity("get")]))
    stranger = azure.identity("get")
    for client_id in (stranger.client_id, None):
        with (
            ManagedIdentityCredential(client_id=client_id, retry_total=0) as credential,
            pytest.raises((ClientAuthenticationError, CredentialUnavailableError)) as caught,
        ):
            credential.get_token(f"{PUBLIC}/.default")
        expected = {"environment": "No User Assigned", "azure_ml": "No MSI found"}.get(
            place, "Identity not found" if client_id else "Multiple user assigned identities"
        )
        assert expected in str(caught.value)
    assert not stranger.requests


def test_imds_gives_the_only_assigned_identity_unasked_and_app_service_does_not(azure, enter):
    only = azure.identity("get")
    enter(azure.imds(assigned=[only]))
    with ManagedIdentityCredential() as credential:
        assert credential.get_token(f"{PUBLIC}/.default").token
    enter(azure.environment(assigned=[only]))
    with ManagedIdentityCredential() as credential, pytest.raises(ClientAuthenticationError):
        credential.get_token(f"{PUBLIC}/.default")


def test_app_service_refuses_other_headers_versions_and_resources(azure, direct):
    there = azure.environment()
    good = {"api-version": "2019-08-01", "resource": PUBLIC}
    key = {"X-IDENTITY-HEADER": there["IDENTITY_HEADER"]}
    for query, headers, status in (
        (good, key, 200),
        (good, {}, 401),
        (good, {"secret": there["IDENTITY_HEADER"]}, 401),
        (good, {"X-IDENTITY-HEADER": "other"}, 401),
        ({**good, "api-version": "2017-09-01"}, key, 400),
        ({**good, "client_id": "other"}, key, 400),
        ({**good, "resource": "https://vault.azure.cn"}, key, 500),
    ):
        answer = direct.get(there["IDENTITY_ENDPOINT"], params=query, headers=headers)
        assert answer.status_code == status, (query, answer.text)


def test_azure_ml_has_names_of_its_own(azure, direct):
    system, assigned = azure.identity("get"), azure.identity("get")
    there = azure.azure_ml(system, assigned=[assigned])
    good = {"api-version": "2017-09-01", "resource": PUBLIC}
    key = {"secret": there["MSI_SECRET"]}
    for query, headers, status in (
        ({**good, "clientid": assigned.client_id}, key, 200),
        ({**good, "clientid": "other"}, key, 400),
        ({**good, "api-version": "2019-08-01"}, key, 400),
        (good, {"X-IDENTITY-HEADER": there["MSI_SECRET"]}, 401),
    ):
        answer = direct.get(there["MSI_ENDPOINT"], params=query, headers=headers)
        assert answer.status_code == status, (query, answer.text)
    unnoticed = {**good, "client_id": assigned.client_id}
    answer = direct.get(there["MSI_ENDPOINT"], params=unnoticed, headers=key)
    assert isinstance(answer.json()["expires_on"], int)
    assert (len(system.requests), len(assigned.requests)) == (1, 1)


def test_imds_wants_its_header_and_no_proxy_and_gives_numbers_as_text(azure, direct):
    url = azure.imds()["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + "/metadata/identity/oauth2/token"
    good = {"api-version": "2018-02-01", "resource": PUBLIC}
    for query, headers, status in (
        (good, {"Metadata": "true"}, 200),
        (good, {}, 400),
        (good, {"Metadata": "true", "X-Forwarded-For": "203.0.113.7"}, 400),
        ({**good, "api-version": "2019-08-01"}, {"Metadata": "true"}, 400),
        ({**good, "resource": "https://vault.azure.cn"}, {"Metadata": "true"}, 400),
    ):
        answer = direct.get(url, params=query, headers=headers)
        assert answer.status_code == status, (query, answer.text)
    numbers = direct.get(url, params=good, headers={"Metadata": "true"}).json()
    assert numbers["expires_in"] == "3599"
    assert isinstance(numbers["expires_on"], str)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong-secret-91c"}, "AADSTS7000215"),
        ({"AZURE_CLIENT_ID": "11111111-1111-1111-1111-111111111111"}, "AADSTS700016"),
        ({"AZURE_AUTHORITY_HOST": "https://login.chinacloudapi.cn"}, "AADSTS500011"),
    ],
)
def test_entra_refuses_an_application_and_says_why(azure, enter, change, code):
    enter({**azure.service_principal(), **change})
    with EnvironmentCredential() as credential, pytest.raises(ClientAuthenticationError) as caught:
        credential.get_token(f"{PUBLIC}/.default")
    assert code in str(caught.value)
    assert "wrong-secret-91c" not in str(caught.value)


def test_entra_knows_only_its_tenant_and_its_instances(azure, enter):
    enter(azure.network())
    elsewhere = "22222222-2222-2222-2222-222222222222"
    before = len(azure.directory.requests)
    for tenant, authority, said in (
        (elsewhere, "login.microsoftonline.com", "check your tenant name"),
        (azure.directory.tenant, "login.example.org", "is not (well-)?known"),
    ):
        credential = ClientSecretCredential(
            tenant, azure.reader.client_id, azure.reader.secret, authority=authority
        )
        with credential, pytest.raises(ClientAuthenticationError, match=said):
            credential.get_token(f"{PUBLIC}/.default")
    asked = azure.directory.requests[before:]
    assert [(one.path.split("/")[-1], one.status) for one in asked] == [
        ("openid-configuration", 400),
        ("instance", 400),
    ]


def test_entra_refuses_federated_tokens_that_are_old_of_others_or_forged(azure, enter, tmp_path):
    identity = azure.identity("get")
    expired = azure.workload_identity(tmp_path, identity, lifetime=-60)
    other = azure.directory.federated_token(azure.identity("get"))
    forged = Directory().federated_token(identity)
    file = Path(expired["AZURE_FEDERATED_TOKEN_FILE"])
    enter(expired)
    for content, code in (
        (file.read_text(), "AADSTS700024"),
        (other, "AADSTS700213"),
        (forged, "AADSTS50027"),
        (azure.directory.token(identity, CLOUDS["public"], PUBLIC), "AADSTS50027"),
        ("no token at all", "AADSTS50027"),
    ):
        file.write_text(content)
        with (
            WorkloadIdentityCredential() as credential,
            pytest.raises(ClientAuthenticationError) as caught,
        ):
            credential.get_token(f"{PUBLIC}/.default")
        assert code in str(caught.value)


def test_identity_can_be_throttled_fail_and_hang(azure, enter):
    identity = azure.identity("get")
    enter(azure.environment(identity))

    def ask(**options: Any) -> str:
        with ManagedIdentityCredential(retry_total=0, **options) as credential:
            return credential.get_token(f"{PUBLIC}/.default").token

    identity.troubles.throttle(1, retry_after=7)
    identity.troubles.fail(503)
    for _ in range(2):
        with pytest.raises(ClientAuthenticationError):
            ask()
    assert [one.status for one in identity.requests] == [429, 503]
    identity.troubles.hang()
    with pytest.raises(ServiceResponseError):
        ask(read_timeout=0.3)
    identity.troubles.late(0.3)
    started = time.monotonic()
    assert ask()
    assert time.monotonic() - started >= 0.3


def test_identity_endpoints_are_waited_for_as_retry_after_says(azure, enter):
    identity = azure.identity("get")
    identity.troubles.throttle(1, retry_after=1)
    enter(azure.environment(identity))
    started = time.monotonic()
    with ManagedIdentityCredential() as credential:
        assert credential.get_token(f"{PUBLIC}/.default").token
    assert time.monotonic() - started >= 1


# The network


def test_a_vault_that_does_not_exist_looks_like_a_name_that_does_not_resolve(azure, enter):
    enter(azure.environment())
    with (
        ManagedIdentityCredential() as credential,
        SecretClient("https://missing.vault.azure.net", credential, retry_total=0) as secrets,
        pytest.raises(ServiceRequestError),
    ):
        secrets.get_secret("key")
    assert azure.proxy.asked[-1].host == "missing.vault.azure.net"
    assert azure.proxy.asked[-1].status == 503


def test_the_proxy_leads_nowhere_else(azure, raw):
    for url in ("https://example.org/", "https://vault.azure.net/", "https://127.0.0.1/"):
        with pytest.raises(httpx.ProxyError, match="502"):
            raw.get(url)


def test_the_vault_is_trusted_only_with_the_authority_of_the_test(azure, enter, monkeypatch):
    vault = azure.vault()
    enter(azure.environment())
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with (
        ManagedIdentityCredential() as credential,
        SecretClient(f"https://{vault.host}", credential, retry_total=0) as secrets,
        pytest.raises(ServiceRequestError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        secrets.get_secret("key")
    assert not vault.requests


def test_a_vault_behind_another_port_passes_the_challenge_check(azure, enter):
    vault = azure.vault()
    vault.put("key", CANARY)
    enter(azure.environment())
    with (
        ManagedIdentityCredential() as credential,
        SecretClient(f"https://{vault.host}:8443", credential) as secrets,
    ):
        assert secrets.get_secret("key").value == CANARY


# Tokens


def test_no_token_is_challenged_with_the_tenant_and_the_resource_of_the_cloud(azure, raw):
    for cloud in CLOUDS.values():
        vault = azure.vault(cloud=cloud.name)
        answer = raw.get(f"https://{vault.host}/secrets/key?api-version=7.6")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == (
            f'Bearer authorization="https://{cloud.login}/{azure.directory.tenant}", '
            f'resource="https://{cloud.suffix}"'
        )


def test_only_a_token_of_ours_for_this_cloud_that_is_not_expired_is_good(azure, raw):
    vault = azure.vault()
    vault.put("key", CANARY)
    stranger = Directory().token(azure.reader, CLOUDS["public"], PUBLIC)
    china = azure.directory.token(azure.reader, CLOUDS["china"], PUBLIC)
    for headers, status in (
        (bearer(azure), 200),
        (bearer(azure, azure.identity("get", lifetime=-60)), 401),
        (bearer(azure, resource="https://management.azure.com"), 401),
        (bearer(azure, resource="https://vault.azure.cn"), 401),
        (bearer(azure, resource=f"https://{vault.host}"), 401),
        ({"Authorization": f"Bearer {stranger}"}, 401),
        ({"Authorization": f"Bearer {china}"}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
    ):
        answer = raw.get(f"https://{vault.host}/secrets/key?api-version=7.6", headers=headers)
        assert answer.status_code == status, answer.text
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        assert (CANARY in answer.text) == (status == 200)


def test_an_expired_token_ends_in_an_authentication_error(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    with pytest.raises(ClientAuthenticationError, match="TokenExpired"):
        client(vault, azure.identity("get", lifetime=-60)).get_secret("key")


def test_rights_are_the_identitys_own(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    with pytest.raises(HttpResponseError) as caught:
        client(vault, azure.identity("set")).get_secret("key")
    assert inner_code(caught.value) == "ForbiddenByRbac"
    reader = client(vault)
    for forbidden in (
        lambda: reader.set_secret("key", "new"),
        lambda: reader.begin_delete_secret("key"),
        lambda: list(reader.list_properties_of_secrets()),
        lambda: list(reader.list_properties_of_secret_versions("key")),
    ):
        with pytest.raises(HttpResponseError) as caught:
            forbidden()
        assert (caught.value.status_code, inner_code(caught.value)) == (403, "ForbiddenByRbac")
    assert vault.requests[-2].path == "/secrets"
    assert reader.get_secret("key").value == CANARY


# Secrets


def test_versions_are_read_newest_first_or_by_name_in_any_case(azure, client):
    vault = azure.vault()
    old, new = vault.put("Api-Key", "old-value"), vault.put("api-key", "new-value")
    secrets = client(vault)
    assert secrets.get_secret("API-KEY").properties.version == new
    assert secrets.get_secret("api-key", old).value == "old-value"
    assert len(old) == 32
    for version in ("0" * 32, old[:-1] + "g"):
        with pytest.raises(HttpResponseError) as caught:
            secrets.get_secret("api-key", version)
        assert caught.value.status_code == (404 if version == "0" * 32 else 400)


def test_names_and_api_versions_are_checked(azure, raw):
    vault = azure.vault()
    vault.put("key", CANARY)
    for path, status in (
        ("/secrets/key?api-version=7.6", 200),
        ("/secrets/key", 400),
        ("/secrets/key?api-version=7.9", 400),
        ("/secrets/a_b?api-version=7.6", 400),
        ("/secrets/a%20b?api-version=7.6", 400),
        (f"/secrets/{'a' * 128}?api-version=7.6", 400),
        (f"/secrets/{'a' * 127}?api-version=7.6", 404),
        ("/keys/key?api-version=7.6", 405),
    ):
        answer = raw.get(f"https://{vault.host}{path}", headers=bearer(azure))
        assert answer.status_code == status, path
        if status == 400:
            assert answer.json()["error"]["code"] == "BadParameter"


def test_expired_and_not_yet_valid_secrets_are_given_all_the_same(azure, client):
    vault, now = azure.vault(), int(time.time())
    vault.put("old", CANARY, exp=now - 60)
    vault.put("early", CANARY, nbf=now + 3600)
    secrets = client(vault)
    assert secrets.get_secret("old").properties.expires_on.timestamp() == now - 60
    assert secrets.get_secret("early").properties.not_before.timestamp() == now + 3600


def test_the_newest_version_disabled_hides_an_older_one_that_is_enabled(azure, client):
    vault = azure.vault()
    old, new = vault.put("key", CANARY), vault.put("key", "disabled", enabled=False)
    secrets = client(vault)
    for version in (None, new):
        with pytest.raises(HttpResponseError) as caught:
            secrets.get_secret("key", version)
        assert (caught.value.status_code, inner_code(caught.value)) == (403, "SecretDisabled")
    assert secrets.get_secret("key", old).value == CANARY
    vault.enable("key", new, enabled=True)
    assert secrets.get_secret("key").value == "disabled"


def test_a_deleted_secret_is_missing_and_keeps_its_name(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    secrets = client(vault, azure.writer)
    vault.delete("key")
    with pytest.raises(ResourceNotFoundError) as missing:
        secrets.get_secret("key")
    assert missing.value.error.code == "SecretNotFound"
    with pytest.raises(ResourceExistsError) as conflict:
        secrets.set_secret("key", "new")
    assert inner_code(conflict.value) == "ObjectIsDeletedButRecoverable"
    vault.recover("key")
    assert secrets.get_secret("key").value == CANARY
    with pytest.raises(ResourceExistsError) as conflict:
        secrets.set_secret("key", "new")
    assert inner_code(conflict.value) == "ObjectIsBeingRecovered"
    assert secrets.set_secret("key", "new").value == "new"


def test_the_sdk_deletes_and_recovers(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    secrets = client(vault, azure.identity("get", "delete", "recover"))
    assert secrets.begin_delete_secret("key").result().scheduled_purge_date
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret("key")
    assert secrets.begin_recover_deleted_secret("key").result().name == "key"
    assert secrets.get_secret("key").value == CANARY


def test_what_is_written_is_read_and_has_limits(azure, client):
    vault = azure.vault()
    secrets = client(vault, azure.writer)
    written = secrets.set_secret(
        "key", "x" * 25600, content_type="t" * 255, tags={"a": "b"}, enabled=True
    )
    read = secrets.get_secret("key")
    assert (read.value, read.id) == (written.value, written.id)
    assert (read.properties.content_type, read.properties.tags) == ("t" * 255, {"a": "b"})
    for value, kind in (("x" * 25601, None), ("é" * 12801, None), ("x", "t" * 256)):
        with pytest.raises(HttpResponseError) as caught:
            secrets.set_secret("key", value, content_type=kind)
        assert (caught.value.status_code, caught.value.error.code) == (400, "BadParameter")
    assert secrets.get_secret("key").id == written.id


def test_an_update_changes_what_it_names_and_no_value(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY, tags={"a": "b"}, content_type="text/plain")
    secrets = client(vault, azure.writer)
    version = secrets.get_secret("key").properties.version
    updated = secrets.update_secret_properties("key", version, enabled=False)
    assert (updated.tags, updated.content_type, updated.enabled) == (
        {"a": "b"},
        "text/plain",
        False,
    )
    updated = secrets.update_secret_properties("key", tags={"c": "d"}, enabled=True)
    assert (updated.tags, updated.version) == ({"c": "d"}, version)
    assert vault.values("key") == [CANARY]
    with pytest.raises(ResourceNotFoundError):
        secrets.update_secret_properties("key", "0" * 32, tags={})
    for rights in (["get"], ["get", "set"]):  # a role's right to write is not the one to update
        with pytest.raises(HttpResponseError) as caught:
            client(vault, azure.identity(*rights)).update_secret_properties("key", tags={})
        assert inner_code(caught.value) == "ForbiddenByRbac"
        assert "secrets/update/action" in caught.value.message


def test_a_list_comes_in_pages_of_25_without_values(azure, client, raw):
    vault = azure.vault()
    names = {f"secret-{number}" for number in range(60)}
    for name in names:
        vault.put(name, CANARY)
    assert {one.name for one in client(vault, azure.lister).list_properties_of_secrets()} == names
    assert vault.count("GET", "/secrets", 200) == 3
    url = f"https://{vault.host}/secrets?api-version=7.6"
    page = raw.get(url, headers=bearer(azure, azure.lister))
    assert CANARY not in page.text
    assert page.json()["nextLink"].startswith(f"https://{vault.host}:443/secrets?")


def test_versions_are_listed(azure, client):
    vault = azure.vault()
    versions = [vault.put("key", CANARY), vault.put("key", CANARY)]
    listed = client(vault, azure.lister).list_properties_of_secret_versions("key")
    assert {one.version for one in listed} == set(versions)


# What goes wrong


@pytest.mark.parametrize("kind", list(DENIALS))
def test_each_kind_of_403_has_its_inner_code_until_it_is_allowed(azure, client, kind):
    vault = azure.vault()
    vault.put("key", CANARY)
    secrets = client(vault)
    vault.deny(kind)
    for _ in range(2):
        with pytest.raises(HttpResponseError) as caught:
            secrets.get_secret("key")
        assert (caught.value.status_code, inner_code(caught.value)) == (403, kind)
        assert azure.reader.object_id in caught.value.message
    vault.allow()
    assert secrets.get_secret("key").value == CANARY
    vault.deny(kind, n=1)
    with pytest.raises(HttpResponseError):
        secrets.get_secret("key")
    assert secrets.get_secret("key").value == CANARY


def test_throttled_requests_say_when_to_come_back(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    secrets = client(vault)
    vault.throttle(1, retry_after=7)
    with pytest.raises(HttpResponseError) as caught:
        secrets.get_secret("key")
    assert (caught.value.status_code, caught.value.error.code) == (429, "Throttled")
    assert caught.value.response.headers["Retry-After"] == "7"
    patient = client(vault, retry_total=3)
    vault.throttle(1, retry_after=1)
    started = time.monotonic()
    assert patient.get_secret("key").value == CANARY
    assert time.monotonic() - started >= 1


def test_a_rate_limits_requests_and_forgets_those_it_refused(azure, raw):
    vault = azure.vault()
    vault.put("key", CANARY)
    vault.limit(3, seconds=3600)
    url, headers = f"https://{vault.host}/secrets/key?api-version=7.6", bearer(azure)
    assert [raw.get(url, headers=headers).status_code for _ in range(5)] == [200] * 3 + [429] * 2
    vault.limit(4, seconds=3600)
    assert raw.get(url, headers=headers).status_code == 200


@pytest.mark.parametrize("status", [500, 503])
def test_a_vault_in_trouble_recovers_and_the_sdk_gets_through(azure, client, status):
    vault = azure.vault()
    vault.put("key", CANARY)
    secrets = client(vault)
    vault.fail(status, 1)
    with pytest.raises(HttpResponseError) as caught:
        secrets.get_secret("key")
    assert caught.value.status_code == status
    vault.fail(status, 1)
    assert client(vault, retry_total=3).get_secret("key").value == CANARY


def test_a_vault_that_hangs_is_given_up(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    vault.hang()
    with pytest.raises(ServiceResponseError):
        client(vault, read_timeout=0.3).get_secret("key")
    assert client(vault).get_secret("key").value == CANARY


def test_many_at_once_are_all_answered_and_counted(azure, raw):
    vault = azure.vault()
    vault.put("key", CANARY)
    url, headers = f"https://{vault.host}/secrets/key?api-version=7.6", bearer(azure)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: raw.get(url, headers=headers), range(200)))
    assert {answer.json()["value"] for answer in answers} == {CANARY}
    assert vault.count("GET", "/secrets/key", 200) == 200


def test_vaults_of_one_name_in_two_clouds_are_two(azure, client):
    public, china = azure.vault("acme"), azure.vault("acme", cloud="china")
    public.put("key", "of-public")
    china.put("key", "of-china")
    assert client(public).get_secret("key").value == "of-public"
    assert client(china).get_secret("key").value == "of-china"


def test_nothing_that_is_recorded_or_printed_holds_a_secret(azure, client):
    vault = azure.vault()
    vault.put("key", CANARY)
    client(vault).get_secret("key")
    shown = f"{vault.requests}{azure.directory.requests}{azure.proxy.asked}{azure.reader!r}{vault}"
    for secret in (CANARY, azure.reader.secret, "Bearer "):
        assert secret not in shown

"""The stand-ins of Azure refuse what Azure refuses.

The tests of the product show their right answers, with the real SDK.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import canaries
from tests.support.azure import Azure
from tests.support.identity import CLOUDS, FEDERATION_ASSERTION, Directory, Identity

CANARY = canaries.token("azure")
PUBLIC = "https://vault.azure.net"
CHINA = "https://vault.azure.cn"


@pytest.fixture
def raw(azure: Azure) -> Iterator[httpx.Client]:
    """Ask the stand-ins without the SDK, which never sends requests that must be refused."""
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


# The endpoints of managed identities


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
        ({**good, "resource": CHINA}, key, 500),
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
        ({**good, "client_id": assigned.client_id}, key, 200),  # takes no notice of that name
        ({**good, "clientid": "other"}, key, 400),
        ({**good, "api-version": "2019-08-01"}, key, 400),
        (good, {"X-IDENTITY-HEADER": there["MSI_SECRET"]}, 401),
    ):
        answer = direct.get(there["MSI_ENDPOINT"], params=query, headers=headers)
        assert answer.status_code == status, (query, answer.text)
    assert (len(system.requests), len(assigned.requests)) == (1, 1)


def test_imds_wants_its_header_and_no_proxy(azure, direct):
    url = azure.imds()["AZURE_POD_IDENTITY_AUTHORITY_HOST"] + "/metadata/identity/oauth2/token"
    good = {"api-version": "2018-02-01", "resource": PUBLIC}
    for query, headers, status in (
        (good, {"Metadata": "true"}, 200),
        (good, {}, 400),
        (good, {"Metadata": "true", "X-Forwarded-For": "203.0.113.7"}, 400),
        ({**good, "api-version": "2019-08-01"}, {"Metadata": "true"}, 400),
        ({**good, "resource": CHINA}, {"Metadata": "true"}, 400),
        ({**good, "client_id": "other"}, {"Metadata": "true"}, 400),
    ):
        answer = direct.get(url, params=query, headers=headers)
        assert answer.status_code == status, (query, answer.text)


def test_only_imds_gives_the_only_assigned_identity_unasked(azure, direct):
    only = azure.identity("get")
    imds = azure.imds(assigned=[only])["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
    query = {"api-version": "2018-02-01", "resource": PUBLIC}
    url = f"{imds}/metadata/identity/oauth2/token"
    assert direct.get(url, params=query, headers={"Metadata": "true"}).status_code == 200
    there = azure.environment(assigned=[only])
    query["api-version"] = "2019-08-01"
    header = {"X-IDENTITY-HEADER": there["IDENTITY_HEADER"]}
    answer = direct.get(there["IDENTITY_ENDPOINT"], params=query, headers=header)
    assert answer.status_code == 400


# Entra


def test_entra_refuses_other_instances_tenants_proofs_and_resources(azure, raw, tmp_path):
    identity, other = azure.identity("get"), azure.identity("get")
    login = f"https://{CLOUDS['public'].login}"
    url = f"{login}/{azure.directory.tenant}/oauth2/v2.0/token"
    good = {
        "grant_type": "client_credentials",
        "client_id": identity.client_id,
        "client_secret": identity.secret,
        "scope": f"{PUBLIC}/.default",
    }

    def federated(assertion: str) -> dict[str, str]:
        shown = {"client_assertion_type": FEDERATION_ASSERTION, "client_assertion": assertion}
        return {**{k: v for k, v in good.items() if k != "client_secret"}, **shown}

    expired = azure.workload_identity(tmp_path, identity, lifetime=-60)
    for where, form, code in (
        (url, good, None),
        (url, federated(azure.directory.federated_token(identity)), None),
        (url.replace(azure.directory.tenant, "elsewhere"), good, 90002),
        (url, {**good, "grant_type": "password"}, 70003),
        (url, {**good, "client_id": "11111111-1111-1111-1111-111111111111"}, 700016),
        (url, {**good, "client_secret": "wrong"}, 7000215),
        (url, {k: v for k, v in good.items() if k != "client_secret"}, 7000218),
        (url, {**good, "scope": f"{CHINA}/.default"}, 500011),
        (url, {**good, "scope": PUBLIC}, 500011),
        (url, federated(Path(expired["AZURE_FEDERATED_TOKEN_FILE"]).read_text()), 700024),
        (url, federated(azure.directory.federated_token(other)), 700213),
        (url, federated(Directory().federated_token(identity)), 50027),
        (url, federated(azure.directory.token(identity, CLOUDS["public"], PUBLIC)), 50027),
    ):
        answer = raw.post(where, data=form)
        assert answer.status_code == 200 if code is None else answer.status_code in {400, 401}
        assert answer.json().get("error_codes") == (None if code is None else [code])
    instance = {"api-version": "1.1", "authorization_endpoint": "https://login.example.org/x"}
    answer = raw.get(f"{login}/common/discovery/instance", params=instance)
    assert answer.json()["error"] == "invalid_instance"


# Key Vault


def test_a_request_without_a_token_gets_a_challenge_with_tenant_and_resource(azure, raw):
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
        (bearer(azure, resource=CHINA), 401),
        (bearer(azure, resource=f"https://{vault.host}"), 401),
        ({"Authorization": f"Bearer {stranger}"}, 401),
        ({"Authorization": f"Bearer {china}"}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
    ):
        answer = raw.get(f"https://{vault.host}/secrets/key?api-version=7.6", headers=headers)
        assert answer.status_code == status, answer.text
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        assert (CANARY in answer.text) == (status == 200)
    shown = f"{vault.requests}{azure.directory.requests}{azure.reader!r}{vault}"
    for secret in (CANARY, azure.reader.secret, stranger):
        assert secret not in shown


def test_names_versions_limits_and_rights_are_checked(azure, raw):
    vault = azure.vault()
    vault.put("key", CANARY)
    writer = bearer(azure, azure.writer)
    for method, path, value, status in (
        ("GET", "/secrets/key?api-version=7.6", None, 200),
        ("GET", "/secrets/key", None, 400),
        ("GET", "/secrets/key?api-version=7.9", None, 400),
        ("GET", "/secrets/a_b?api-version=7.6", None, 400),
        ("GET", f"/secrets/{'a' * 128}?api-version=7.6", None, 400),
        ("GET", f"/secrets/{'a' * 127}?api-version=7.6", None, 404),
        ("GET", f"/secrets/key/{'g' * 32}?api-version=7.6", None, 400),
        ("GET", "/keys/key?api-version=7.6", None, 405),
        ("GET", "/secrets?api-version=7.6", None, 403),  # a writer may not list
        ("PUT", "/secrets/key?api-version=7.6", "x" * 25_600, 200),
        ("PUT", "/secrets/key?api-version=7.6", "x" * 25_601, 400),
        ("PUT", "/secrets/key?api-version=7.6", "é" * 12_801, 400),
        ("PATCH", "/secrets/key?api-version=7.6", CANARY, 400),  # no value can be updated
    ):
        body = None if value is None else {"value": value}
        url = f"https://{vault.host}{path}"
        answer = raw.request(method, url, headers=writer, json=body)
        assert answer.status_code == status, path
        if method != "GET":  # the reader may do neither
            answer = raw.request(method, url, headers=bearer(azure), json=body)
            assert answer.json()["error"]["innererror"]["code"] == "ForbiddenByRbac"
    assert len(vault.values("key")) == 2


def test_a_list_comes_in_pages_of_25_without_values(azure, raw):
    vault = azure.vault()
    for number in range(26):
        vault.put(f"secret-{number}", CANARY)
    headers = bearer(azure, azure.lister)
    first = raw.get(f"https://{vault.host}/secrets?api-version=7.6", headers=headers)
    second = raw.get(first.json()["nextLink"], headers=headers)
    assert [len(page.json()["value"]) for page in (first, second)] == [25, 1]
    assert CANARY not in first.text + second.text


def test_the_proxy_leads_nowhere_else(raw):
    for url in ("https://example.org/", "https://vault.azure.net/", "https://127.0.0.1/"):
        with pytest.raises(httpx.ProxyError, match="502"):
            raw.get(url)

"""Faults of vaults, of identities, and of Azure's own client."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mlauth
from mlauth import SecretReference
from mlauth.azure import tokens as azure_tokens
from mlauth.errors import StoreError
from mlauth.storing import SecretStore
from mlauth.testing.stores import CANARY
from tests.faults.conftest import Certificates
from tests.faults.tables import Row
from tests.faults.test_network import ROWS as OF_NETWORK
from tests.faults.test_network import NetworkFault
from tests.support.azure import Azure
from tests.support.connect_proxy import connect_proxy
from tests.support.faults import answer, faulty, reset
from tests.support.identity import Identity
from tests.support.key_vault import Vault
from tests.support.web import Answer

DAY, SECONDS = 24 * 3600, 2
NOW = int(time.time())
LATE = {"Retry-After": "86400"}  # so that nothing is waited for


@dataclass(frozen=True)
class OfVault(Row):
    """An answer of a vault.

    Attributes:
        prepare: makes the vault give it.
        tail: of the reference, behind the vault.
    """

    prepare: Callable[[Vault], object] = lambda vault: None
    tail: str = "key"


def _says(status: int, body: Any = None, **headers: str) -> Callable[[Vault], object]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda vault: vault.troubles.say(Answer(status, body, LATE | named), 9)


def _denied(line: str, kind: str) -> OfVault:
    return OfVault("403", "SecretDenied", line, lambda vault: vault.deny(kind))


def _odd(line: str, *said: Any, ends: str = "StoreUnreachable", shown: bool = True) -> OfVault:
    return OfVault("another service", ends, line, _says(*said), shown=shown)


def _hangs(vault: Vault) -> None:
    vault.hang(9)


BUSY = "no answer, or 408, 429, 500 and above"
UNAUTHORIZED = {"error": {"code": "Unauthorized", "message": CANARY}}
OF_VAULT = [
    OfVault(
        "404",
        "SecretNotFound",
        "VAULT has no such secret; check the name, and that it is the right vault",
        tail="another",
    ),
    OfVault(
        "404",
        "SecretNotFound",
        "VAULT has no such version of it; check the name, and that it is the right vault",
        tail=f"key?version={'0' * 32}",
        shown=False,
    ),
    OfVault(
        "404",
        "SecretNotFound",
        "it was deleted, and can be recovered until DATE: az keyvault secret recover",
        lambda vault: vault.delete("key"),
    ),
    OfVault(
        "disabled or outdated",
        "SecretUnusable",
        "its latest version is disabled; enable it, or pin an older one that is enabled: "
        "?version=… (az keyvault secret list-versions shows them)",
        lambda vault: vault.put("key", CANARY, enabled=False),
    ),
    OfVault(
        "disabled or outdated",
        "SecretUnusable",
        "it expired on DATE UTC, and is handed out all the same; store a new version, or give the "
        'profile expired = "warn"',
        lambda vault: vault.put("key", CANARY, exp=NOW - DAY),
    ),
    OfVault(
        "disabled or outdated",
        "SecretUnusable",
        "it is not valid before DATE UTC, and is handed out all the same; store a new version, or "
        'give the profile expired = "warn"',
        lambda vault: vault.put("key", CANARY, nbf=NOW + DAY),
        shown=False,
    ),
    _denied(
        "WHO has no role for it: assign 'Key Vault Secrets User' (to write: 'Key Vault Secrets "
        "Officer') on the vault or the secret; a new assignment takes minutes to work",
        "ForbiddenByRbac",
    ),
    _denied(
        "the vault's access policies give WHO no such right: add the secret permission Get (to "
        "write: Set)",
        "AccessDenied",
    ),
    _denied(
        "the vault's firewall does not let this address in: add it, or this network, to the "
        "vault's networking",
        "ForbiddenByFirewall",
    ),
    _denied(
        "the vault takes no connections from public networks: reach it over its private endpoint "
        "(does its name lead there in this network's DNS?)",
        "ForbiddenByConnection",
    ),
    _denied("a policy of the vault forbids it: ask who administers the vault", "ForbiddenByPolicy"),
    OfVault(
        "401",
        "SecretDenied",
        "the vault does not take WHO: is it of the vault's tenant? (Unauthorized)",
        _says(401, UNAUTHORIZED),
    ),
    OfVault(
        BUSY, "StoreUnavailable", "VAULT throttles us (HTTP STATUS): try again later", _says(429)
    ),
    OfVault(
        BUSY,
        "StoreUnavailable",
        "VAULT has a fault (HTTP STATUS): try again later",
        _says(503),
    ),
    OfVault(
        BUSY,
        "StoreUnavailable",
        "no answer within N s from the store or the issuer of its tokens: is a firewall or proxy "
        "in the way? a busy service needs a longer timeout",
        _hangs,
    ),
    _odd(
        "VAULT answers, but not as a Key Vault does: is a proxy's page in the way?", 200, b"<html>"
    ),
    OfVault(
        "another service",
        "StoreUnreachable",
        "VAULT redirects (STATUS), and a token is sent to no other host: is a proxy in the way?",
        _says(302, None, Location="https://login.example.com/"),
    ),
    _odd(
        "VAULT answers with more than 1 MiB: is a proxy in the way?",
        200,
        b" " * (1024**2 + 1),
        shown=False,
    ),
    OfVault(
        "another service",
        "StoreUnreachable",
        "VAULT asks for a token of another service than the vaults of its cloud, and gets none: "
        "use the vault's own name, and set AZURE_AUTHORITY_HOST in a private cloud",
        _says(
            401, None, WWW_Authenticate='Bearer authorization="https://a/b", resource="https://c"'
        ),
    ),
    _odd(
        "VAULT answers HTTP STATUS (no code): is it a Key Vault, and is nothing in the way?",
        418,
        b"tea",
        ends="SecretUnusable",
    ),
    _odd(
        "VAULT answers HTTP STATUS (no code): is it a Key Vault, and is nothing in the way?",
        403,  # of a proxy
        b"<html>blocked</html>",
        ends="SecretUnusable",
    ),
]


ANSWERS = Answer(200, {})


@dataclass(frozen=True)
class OfIdentity(Row):
    """An identity that gets no token.

    Attributes:
        variables: those that choose it.
        said: the answer of the issuer of its tokens.
    """

    variables: Callable[[Azure, Identity, Path], dict[str, str]]
    said: Answer = ANSWERS


def _alone(line: str, ends: str = "IdentityUnavailable", **variables: str) -> OfIdentity:
    return OfIdentity(
        "variables", ends, line, lambda azure, who, folder: {**azure.network(), **variables}
    )


def _endpoint(azure: Azure, who: Identity, folder: Path) -> dict[str, str]:
    return azure.environment(who)


def _entra(azure: Azure, who: Identity, folder: Path) -> dict[str, str]:
    return azure.service_principal(who)


def _no_file(azure: Azure, who: Identity, folder: Path) -> dict[str, str]:
    file = {"AZURE_FEDERATED_TOKEN_FILE": str(folder / "missing")}
    return azure.workload_identity(folder, who) | file


def _nobody(azure: Azure, who: Identity, folder: Path) -> dict[str, str]:
    endpoint = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1"}
    return {**azure.network(), **endpoint, "PATH": str(folder)}


def _application(line: str, code: str, *, shown: bool = True) -> OfIdentity:
    """Microsoft Entra refuses an application."""
    said = {"error": "invalid_client", "error_description": f"{code}: {CANARY}"}
    return OfIdentity(
        "Microsoft Entra",
        "IdentityUnavailable",
        f"WHO: {line} ({code})",
        _entra,
        Answer(401, said),
        shown=shown,
    )


UNAVAILABLE = "IdentityUnavailable"
OF_IDENTITY = [
    _alone(
        "AZURE_CLIENT_SECRET is set without AZURE_TENANT_ID: set both or none",
        AZURE_CLIENT_SECRET=CANARY,
        AZURE_CLIENT_ID="id",
    ),
    _alone(
        "AZURE_TOKEN_CREDENTIALS names an identity that mlauth does not use: it takes dev, prod, "
        "EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential and "
        "AzureCliCredential",
        AZURE_TOKEN_CREDENTIALS="vscode",
    ),
    OfIdentity(
        "variables",
        UNAVAILABLE,
        "WHO: no token was given: are its variables, and its file, right?",
        _no_file,
    ),
    OfIdentity(
        "variables",
        UNAVAILABLE,
        "WHO: neither gives a token here: set the AZURE_* variables of an identity (mlauth explain "
        "shows the choice)",
        _nobody,
    ),
    _alone(
        "AZURE_AUTHORITY_HOST names no cloud whose vaults are known; name the vault by its full "
        "host",
        "StoreUnreachable",
        AZURE_AUTHORITY_HOST="https://login.example.com",
    ),
    OfIdentity(
        "identity's endpoint",
        UNAVAILABLE,
        "WHO: the endpoint does not give a token (HTTP STATUS): is an identity assigned here, and "
        "is AZURE_CLIENT_ID its client id?",
        _endpoint,
        Answer(400, {"message": CANARY}),
    ),
    *(
        OfIdentity(
            "identity's endpoint",
            UNAVAILABLE,
            "WHO: the answer (HTTP STATUS) is not from the endpoint of an identity: is the "
            "variable right, and no proxy in the way?",
            _endpoint,
            Answer(200, said),
        )
        for said in (
            b"<html>",
            *(
                {"access_token": token, "expires_on": "9999999999", "resource": "?"}
                for token in (12345, ["a", "token"], "a\r\nX-Header: b", "tökén")
            ),
        )
    ),
    OfIdentity(
        "Microsoft Entra",
        UNAVAILABLE,
        "WHO: login.microsoftonline.com answers HTTP STATUS, and not as Microsoft Entra does: is a "
        "proxy in the way, and is AZURE_TENANT_ID right?",
        _entra,
        Answer(200, b"<html>"),
    ),
    _application(
        "the secret is wrong: AZURE_CLIENT_SECRET must be the secret's value, not its id",
        "AADSTS7000215",
    ),
    _application(
        "its secret has expired: make a new one, and set AZURE_CLIENT_SECRET", "AADSTS7000222"
    ),
    _application("the application is disabled: enable it", "AADSTS7000112"),
    _application(
        "there is no such application in the tenant: is AZURE_CLIENT_ID right?", "AADSTS700016"
    ),
    _application("there is no such tenant in this cloud: is AZURE_TENANT_ID right?", "AADSTS90002"),
    _application(
        "its certificate is not one of the application's, or has expired: renew it", "AADSTS700027"
    ),
    _application(
        "no federated credential matches issuer, subject and audience of the token: add one",
        "AADSTS70021",
    ),
    _application(
        "no federated credential matches the token's issuer: add one", "AADSTS700211", shown=False
    ),
    _application(
        "no federated credential matches the token's audience: add one", "AADSTS700212", shown=False
    ),
    _application(
        "no federated credential matches the token's subject (service account): add one",
        "AADSTS700213",
        shown=False,
    ),
    _application(
        "the token in the file has expired: is it still the projected one?", "AADSTS700024"
    ),
    _application("Microsoft Entra refuses it: look the code up", "AADSTS500011"),
    OfIdentity(
        BUSY,
        "StoreUnavailable",
        "the issuer of tokens for the WHO throttles us (HTTP STATUS): try again later",
        _endpoint,
        Answer(429, None, LATE),
        shown=False,
    ),
    OfIdentity(
        BUSY,
        "StoreUnavailable",
        "the issuer of tokens for the WHO has a fault (HTTP STATUS): try again later",
        _entra,
        Answer(503, None, LATE),
    ),
]
ROWS = [*OF_VAULT, *OF_IDENTITY]


@pytest.fixture(autouse=True)
def _no_tokens_of_other_tests(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    azure_tokens.tokens.cache_clear()
    for name in azure.environment():
        monkeypatch.delenv(name, raising=False)


def refused(reference: str, vault: str, timeout: float = 30) -> tuple[str, str]:
    """Read, and return the class of the error, and its line in the words of the tables."""
    with pytest.raises(StoreError) as caught:
        mlauth.resolve(reference, timeout=timeout)
    said = str(caught.value)
    assert CANARY not in said
    parsed = SecretReference.parse(reference)
    who = str(SecretStore("azurekv").describe(parsed).identity)
    for found, shown in (
        (rf"^{re.escape(reference)} (cannot be read|is refused): ", ""),
        (re.escape(who), "WHO"),
        (re.escape(vault), "VAULT"),
        (r"\((HTTP )?\d{3}\)|HTTP \d{3}", lambda m: re.sub(r"\d+", "STATUS", m[0])),
        (r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "DATE"),
        # Two time limits end at almost the same moment, and either may be noticed first.
        (
            r"VAULT gave no answer in time: ",
            f"no answer within {timeout} s from the store or the issuer of its tokens: ",
        ),
        (rf"within {timeout} s", "within N s"),
    ):
        said = re.sub(found, shown, said)
    return type(caught.value).__name__, said


@pytest.mark.parametrize("row", OF_VAULT, ids=lambda row: row.what)
def test_an_answer_of_a_vault_is_one_line_that_says_what_it_means(
    row: OfVault, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in azure.environment().items():
        monkeypatch.setenv(name, value)
    vault = azure.vault()
    vault.put("key", CANARY)
    row.prepare(vault)
    reference = f"azurekv://{vault.host}/{row.tail}"
    timeout = SECONDS if row.prepare is _hangs else 30
    assert refused(reference, vault.host, timeout) == (row.ends, row.line)
    if row.ends != "StoreUnavailable":  # what is certain is not asked for again
        assert len(vault.requests) <= 3


@pytest.mark.parametrize("row", OF_IDENTITY, ids=lambda row: row.what)
def test_an_identity_that_gets_no_token_is_one_line(
    row: OfIdentity, azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = azure.identity("get")
    for name, value in row.variables(azure, who, tmp_path).items():
        monkeypatch.setenv(name, value)
    if row.said is not ANSWERS:
        who.troubles.say(row.said, 9)
    assert refused("azurekv://acme-prod/key", azure.vault("acme-prod").host) == (row.ends, row.line)
    assert len(who.requests) <= 1


CHALLENGE = answer(
    401,
    WWW_Authenticate='Bearer authorization="https://login.microsoftonline.com/tenant", '
    'resource="https://vault.azure.net"',
)
OF_CONNECTIONS = [
    each
    for each in OF_NETWORK
    if (each.tls and not each.ca) or each.scheme or each.replies == (reset,)
]


@pytest.mark.parametrize("place", ["vault", "Microsoft Entra"])
@pytest.mark.parametrize("fault", OF_CONNECTIONS, ids=lambda fault: fault.what)
def test_azures_client_says_of_a_connection_what_every_system_says(
    fault: NetworkFault, place: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK remembers what a vault asked for.
    vault, login = f"v-{uuid.uuid4().hex[:9]}.vault.azure.net", "login.microsoftonline.com"
    there = "name the CA in" if place == "vault" else "name it in"
    line = fault.line.replace("give the CA as ca_bundle", f"{there} REQUESTS_CA_BUNDLE")
    certificate = "" if fault.scheme else fault.tls or "good"
    with ExitStack() as stack:
        wrong = faulty(*fault.replies, tls=certificates.contexts[certificate])
        right = faulty(CHALLENGE, tls=certificates.contexts["good"])
        ports = [stack.enter_context(each).port for each in (wrong, right)]
        hosts = [vault, login] if place == "vault" else [login, vault]
        proxy = stack.enter_context(
            connect_proxy(dict(zip(hosts, ports, strict=True)), lambda host: True)
        )
        for name, value in {
            "HTTPS_PROXY": proxy.url,
            "https_proxy": proxy.url,
            "REQUESTS_CA_BUNDLE": str(certificates.bundle),
            "AZURE_TENANT_ID": "tenant",
            "AZURE_CLIENT_ID": "id",
            "AZURE_CLIENT_SECRET": CANARY,
        }.items():
            monkeypatch.setenv(name, value)
        ends, said = refused(f"azurekv://{vault}/key", hosts[0], SECONDS if fault.waits else 30)
    said = re.sub(r"failed \(\w[\w ]+\)", "failed (REASON)", said.removeprefix("WHO: "))
    kind = "StoreUnavailable" if fault.ends == "unknown" else "StoreUnreachable"
    assert (ends, said) == (kind, line.replace("HOST", "VAULT"))

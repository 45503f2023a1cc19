"""Strict stand-ins of the endpoints where an identity of Azure gets its tokens.

App Service, Azure ML and IMDS give tokens to managed identities. Microsoft Entra gives tokens to
applications, for a secret or a federated token. Error texts are Microsoft's own where a public
report shows them. App Service's answer to a wrong `X-IDENTITY-HEADER` is a guess (401).
"""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt

from tests.support.web import NO_ANSWER, Answer, Call, Request, Trouble, Troubles

FEDERATION_ISSUER = "https://oidc.prod-aks.azure.com/mlauth-tests/"
FEDERATION_AUDIENCE = "api://AzureADTokenExchange"
FEDERATION_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME = 3599


@dataclass(frozen=True)
class Cloud:
    """A cloud's host names: its login, the suffix of its vaults, the issuer of its tokens."""

    name: str
    login: str
    suffix: str
    issuer: str
    arm: str

    @property
    def resources(self) -> tuple[str, ...]:
        return f"https://{self.suffix}", f"https://{self.arm}"


CLOUDS = {
    cloud.name: cloud
    for cloud in (
        Cloud(
            "public",
            "login.microsoftonline.com",
            "vault.azure.net",
            "sts.windows.net",
            "management.azure.com",
        ),
        Cloud(
            "china",
            "login.chinacloudapi.cn",
            "vault.azure.cn",
            "sts.chinacloudapi.cn",
            "management.chinacloudapi.cn",
        ),
        Cloud(
            "usgov",
            "login.microsoftonline.us",
            "vault.usgovcloudapi.net",
            "sts.windows.net",
            "management.usgovcloudapi.net",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Identity:
    """An identity in the directory, managed or an application's.

    Attributes:
        rights: its rights on secrets: `get`, `list`, `set`, `update`.
        lifetime: seconds that its tokens are valid; with a negative number, they have expired.
        certificates: public keys (PEM) whose owner may show an assertion instead of the secret.
        troubles: the faults of its next token requests.
        requests: its token requests.
    """

    rights: frozenset[str]
    lifetime: int = _LIFETIME
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    object_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    certificates: list[bytes] = field(default_factory=list, repr=False)
    troubles: Troubles = field(default_factory=Troubles, repr=False)
    requests: list[Request] = field(default_factory=list, repr=False)

    @property
    def subject(self) -> str:
        """Its subject in federated tokens."""
        return f"system:serviceaccount:flows:{self.client_id}"


@dataclass(frozen=True)
class Machine:
    """A machine with a managed identity's endpoint: an app, a compute instance, or a VM."""

    cloud: Cloud
    system: Identity | None
    assigned: tuple[Identity, ...]

    def identity(self, query: dict[str, str]) -> Identity | None:
        """The identity that a request means; without one named, the system-assigned one."""
        if "client_id" not in query:
            return self.system
        return next((one for one in self.assigned if one.client_id == query["client_id"]), None)


class Directory:
    """One tenant: its identities, and the key that signs its tokens.

    Attributes:
        requests: all token requests of every endpoint, also those for unknown identities.
    """

    def __init__(self) -> None:
        self.tenant = str(uuid.uuid4())
        self.requests: list[Request] = []
        self._key = secrets.token_bytes(32)
        self._federation_key = secrets.token_bytes(32)
        self._applications: dict[str, Identity] = {}
        self._machines: dict[str, Machine] = {}

    def add(self, rights: Sequence[str], lifetime: int = _LIFETIME) -> Identity:
        """Make an identity."""
        identity = Identity(frozenset(rights), lifetime)
        self._applications[identity.client_id] = identity
        return identity

    def machine(
        self, cloud: Cloud, system: Identity | None, assigned: Sequence[Identity] = ()
    ) -> str:
        """Make a machine; return the secret that its programs show to its endpoint."""
        key = secrets.token_hex(16)
        self._machines[key] = Machine(cloud, system, tuple(assigned))
        return key

    def issuer(self, cloud: Cloud) -> str:
        return f"https://{cloud.issuer}/{self.tenant}/"

    def token(self, identity: Identity, cloud: Cloud, resource: str) -> str:
        """Sign an access token."""
        now = int(time.time())
        claims = {
            "aud": resource,
            "iss": self.issuer(cloud),
            "iat": now,
            "nbf": now + min(0, identity.lifetime),
            "exp": now + identity.lifetime,
            "appid": identity.client_id,
            "oid": identity.object_id,
            "tid": self.tenant,
            "rights": sorted(identity.rights),
        }
        return jwt.encode(claims, self._key, "HS256")

    def claims(self, token: str, cloud: Cloud, audience: str) -> dict[str, Any]:
        """Return the claims of a token that is valid for an audience; else raise PyJWT's error."""
        return jwt.decode(token, self._key, ["HS256"], audience=audience, issuer=self.issuer(cloud))

    def federated_token(self, identity: Identity, lifetime: int = 3600) -> str:
        """Sign a token as a Kubernetes cluster projects it into a pod."""
        claims = {
            "iss": FEDERATION_ISSUER,
            "aud": FEDERATION_AUDIENCE,
            "sub": identity.subject,
            "exp": int(time.time()) + lifetime,
        }
        return jwt.encode(claims, self._federation_key, "HS256")

    def managed(self, call: Call) -> Answer:
        """Serve App Service (`/msi/token`), Azure ML (`/MSI/auth`) and IMDS (behind `/<key>`)."""
        if "authorization" in call.headers:
            return self._seen(call, Answer(400, {"error": "other credentials than its own"}))
        if call.path == "/msi/token":
            known = self._machines.get(call.headers.get("x-identity-header", ""))
            return self._app_service(call, known)
        if call.path == "/MSI/auth":
            return self._azure_ml(call, self._machines.get(call.headers.get("secret", "")))
        key, _, path = call.path.removeprefix("/").partition("/")
        if key in self._machines and path == "metadata/identity/oauth2/token":
            return self._imds(call, self._machines[key])
        return self._seen(call, Answer(404, {"error": "not_found"}))

    def _app_service(self, call: Call, machine: Machine | None) -> Answer:
        def refuse(status: int, message: str) -> Answer:
            return Answer(status, {"statusCode": status, "message": message})

        resource = call.query.get("resource", "")
        if machine is None:
            return self._seen(call, refuse(401, "The X-IDENTITY-HEADER is missing or invalid."))
        if call.method != "GET" or call.query.get("api-version") != "2019-08-01":
            return self._seen(call, refuse(400, "The api-version is not supported."))
        identity = machine.identity(dict(call.query))
        if identity is None:
            message = (
                "No User Assigned or Delegated Managed Identity found for specified "
                "ClientId/ResourceId/PrincipalId."
            )
            return self._seen(call, refuse(400, message))
        if not _known(resource, machine.cloud):
            return self._seen(call, refuse(500, "An unexpected error occured."), identity)
        trouble = identity.troubles.pop()
        if trouble.status is not None:
            return self._seen(call, _failed(trouble), identity)
        now = int(time.time())
        body = {
            "access_token": self.token(identity, machine.cloud, resource),
            "expires_on": str(now + max(identity.lifetime, _LIFETIME)),
            "resource": resource,
            "token_type": "Bearer",
            "client_id": identity.client_id,
        }
        return self._seen(call, Answer(200, body), identity)

    def _azure_ml(self, call: Call, machine: Machine | None) -> Answer:
        resource = call.query.get("resource", "")
        if machine is None:
            return self._seen(call, Answer(401, {"StatusCode": 401, "Message": "Unauthorized"}))
        if call.method != "GET" or call.query.get("api-version") != "2017-09-01":
            body = {"StatusCode": 400, "Message": "The api-version is not supported."}
            return self._seen(call, Answer(400, body))
        # This version reads `clientid` and ignores `client_id`.
        wanted = {"client_id": call.query["clientid"]} if "clientid" in call.query else {}
        identity = machine.identity(wanted)
        if identity is None or not _known(resource, machine.cloud):
            body = {"StatusCode": 400, "Message": "No MSI found for specified ClientId/ResourceId."}
            return self._seen(call, Answer(400, body), identity)
        trouble = identity.troubles.pop()
        if trouble.status is not None:
            return self._seen(call, _failed(trouble), identity)
        body = {
            "access_token": self.token(identity, machine.cloud, resource),
            "expires_on": int(time.time()) + max(identity.lifetime, _LIFETIME),
            "resource": resource,
            "token_type": "Bearer",
        }
        return self._seen(call, Answer(200, body), identity)

    def _imds(self, call: Call, machine: Machine) -> Answer:
        def refuse(error: str, description: str) -> Answer:
            return Answer(400, {"error": error, "error_description": description})

        resource = call.query.get("resource", "")
        if call.headers.get("metadata") != "true" or "x-forwarded-for" in call.headers:
            description = "Required metadata header not specified"
            return self._seen(call, refuse("invalid_request", description))
        if call.method != "GET" or call.query.get("api-version") != "2018-02-01":
            return self._seen(call, refuse("invalid_request", "Bad request: api-version"))
        named = "client_id" in call.query
        identity = machine.identity(dict(call.query))
        if identity is None and not named and len(machine.assigned) == 1:
            identity = machine.assigned[0]  # documented: an only identity is the default
        if identity is None and not named and machine.assigned:
            description = (
                "Multiple user assigned identities exist, please specify the clientId / resourceId "
                "of the identity in the token request"
            )
            return self._seen(call, refuse("invalid_request", description))
        if identity is None:
            return self._seen(call, refuse("invalid_request", "Identity not found"))
        if not _known(resource, machine.cloud):
            description = f"AADSTS500011: {_no_principal(resource, self.tenant)}"
            return self._seen(call, refuse("invalid_resource", description), identity)
        trouble = identity.troubles.pop()
        if trouble.status is not None:
            return self._seen(call, _failed(trouble), identity)
        now, good = int(time.time()), max(identity.lifetime, _LIFETIME)
        body = {  # IMDS gives numbers as text
            "access_token": self.token(identity, machine.cloud, resource),
            "client_id": identity.client_id,
            "expires_in": str(good),
            "expires_on": str(now + good),
            "ext_expires_in": str(good),
            "not_before": str(now),
            "resource": resource,
            "token_type": "Bearer",
        }
        return self._seen(call, Answer(200, body), identity)

    def entra(self, call: Call) -> Answer:
        """Serve Microsoft Entra: the documents that MSAL asks for, and tokens."""
        cloud = next(cloud for cloud in CLOUDS.values() if cloud.login == call.host)
        if "authorization" in call.headers:
            message = "The request has other credentials than those in its body."
            return self._seen(call, _refused(400, "invalid_request", 900144, message))
        if call.path == "/common/discovery/instance":
            return self._seen(call, self._instance(call))
        tenant, _, path = call.path.removeprefix("/").partition("/")
        if tenant != self.tenant:
            message = f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant"
            return self._seen(call, _refused(400, "invalid_tenant", 90002, message))
        if path == "v2.0/.well-known/openid-configuration" and call.method == "GET":
            base = f"https://{cloud.login}/{tenant}"
            body = {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
            return self._seen(call, Answer(200, body))
        if path == "oauth2/v2.0/token" and call.method == "POST":
            form = dict(parse_qsl(call.body.decode()))
            identity = self._applications.get(form.get("client_id", ""))
            return self._seen(call, self._entra_token(cloud, form, identity), identity)
        return self._seen(call, Answer(404))

    def _instance(self, call: Call) -> Answer:
        asked = urlsplit(call.query.get("authorization_endpoint", ""))
        if call.query.get("api-version") not in {"1.0", "1.1"}:
            return _refused(400, "invalid_request", 900144, "The request needs 'api-version'.")
        if asked.hostname not in {cloud.login for cloud in CLOUDS.values()}:
            message = "The authorization_endpoint is not a known instance."
            return _refused(400, "invalid_instance", 50049, message)
        tenant = asked.path.split("/")[1]
        document = f"https://{asked.hostname}/{tenant}/v2.0/.well-known/openid-configuration"
        metadata = [
            {
                "preferred_network": cloud.login,
                "preferred_cache": cloud.login,
                "aliases": [cloud.login],
            }
            for cloud in CLOUDS.values()
        ]
        body = {
            "tenant_discovery_endpoint": document,
            "api-version": call.query["api-version"],
            "metadata": metadata,
        }
        return Answer(200, body)

    def _entra_token(self, cloud: Cloud, form: dict[str, str], identity: Identity | None) -> Answer:
        client = form.get("client_id", "")
        if form.get("grant_type") != "client_credentials":
            message = "The grant type is not supported."
            return _refused(400, "unsupported_grant_type", 70003, message)
        if identity is None:
            message = (
                f"Application with identifier '{client}' was not found in the directory "
                f"'{self.tenant}'."
            )
            return _refused(400, "unauthorized_client", 700016, message)
        refusal = self._proof_refused(cloud, form, identity)
        if refusal is not None:
            return refusal
        scope = form.get("scope", "")
        resource = scope.removesuffix("/.default")
        if scope == resource or not _known(resource, cloud):
            message = _no_principal(resource, self.tenant)
            return _refused(400, "invalid_resource", 500011, message)
        trouble = identity.troubles.pop()
        if trouble.status is not None:
            return _failed(trouble)
        good = max(identity.lifetime, _LIFETIME)
        body = {
            "token_type": "Bearer",
            "expires_in": good,
            "ext_expires_in": good,
            "access_token": self.token(identity, cloud, resource),
        }
        return Answer(200, body)

    def _proof_refused(
        self, cloud: Cloud, form: dict[str, str], identity: Identity
    ) -> Answer | None:
        if "client_secret" in form:
            if secrets.compare_digest(form["client_secret"], identity.secret):
                return None
            message = (
                "Invalid client secret provided. Ensure the secret being sent in the request is "
                "the client secret value, not the client secret ID, for a secret added to app "
                f"'{identity.client_id}'."
            )
            return _refused(401, "invalid_client", 7000215, message)
        if form.get("client_assertion_type") != FEDERATION_ASSERTION:
            message = (
                "The request body must contain the following parameter: 'client_assertion' or "
                "'client_secret'."
            )
            return _refused(401, "invalid_client", 7000218, message)
        for certificate in identity.certificates:
            audience = f"https://{cloud.login}/{self.tenant}/oauth2/v2.0/token"
            with contextlib.suppress(jwt.InvalidTokenError):
                assertion = form.get("client_assertion", "")
                jwt.decode(assertion, certificate, ["RS256", "PS256"], audience=audience)
                return None
        try:
            claims = jwt.decode(
                form.get("client_assertion", ""),
                self._federation_key,
                ["HS256"],
                audience=FEDERATION_AUDIENCE,
                issuer=FEDERATION_ISSUER,
            )
        except jwt.ExpiredSignatureError:
            message = "Client assertion is not within its valid time range."
            return _refused(401, "invalid_client", 700024, message)
        except jwt.InvalidAudienceError:
            message = "No matching federated identity record found for presented assertion audience"
            return _refused(401, "invalid_client", 700212, message)
        except jwt.InvalidTokenError:
            message = "The client assertion is not a token of a known issuer, or is malformed."
            return _refused(401, "invalid_client", 50027, message)
        if claims["sub"] != identity.subject:
            message = "No matching federated identity record found for presented assertion subject"
            return _refused(401, "invalid_client", 700213, message)
        return None

    def _seen(self, call: Call, answer: Answer, identity: Identity | None = None) -> Answer:
        self.requests.append(Request.of(call, answer))
        if identity is not None:
            identity.requests.append(Request.of(call, answer))
        return answer


def _known(resource: str, cloud: Cloud) -> bool:
    """Say whether a cloud has a resource."""
    return resource.removesuffix("/") in cloud.resources


def _no_principal(resource: str, tenant: str) -> str:
    return f"The resource principal named {resource} was not found in the tenant named {tenant}."


def _failed(trouble: Trouble) -> Answer:
    """Return the answer that a trouble causes."""
    if trouble.answer is not None:
        return trouble.answer
    status, retry_after = trouble.status, trouble.retry_after
    if not status:
        return NO_ANSWER
    error = "temporarily_unavailable" if status != 429 else "too_many_requests"
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"error": error, "error_description": f"The service answered {status}."}
    return Answer(status, body, headers)


def _refused(status: int, error: str, code: int, message: str) -> Answer:
    trace, correlation = uuid.uuid4(), uuid.uuid4()
    stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    body = {
        "error": error,
        "error_description": (
            f"AADSTS{code}: {message} Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {stamp}"
        ),
        "error_codes": [code],
        "timestamp": stamp,
        "trace_id": str(trace),
        "correlation_id": str(correlation),
    }
    return Answer(status, body)

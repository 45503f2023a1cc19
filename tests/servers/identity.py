"""A stand-in of what issues tokens in Azure: Microsoft Entra and three managed identities.

- App Service: https://learn.microsoft.com/azure/app-service/overview-managed-identity (2019-08-01)
- Azure ML: the same of 2017-09-01, with the header `secret` and the parameter `clientid`
- virtual machines: https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
- Entra: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import jwt

from tests.servers.json_server import Answer, JsonServer, Request

AUTHORITIES = {
    "public": "login.microsoftonline.com",
    "china": "login.chinacloudapi.cn",
    "us-government": "login.microsoftonline.us",
}
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class TokenRequest:
    """A request for a token.

    Attributes:
        kind: which endpoint was asked: the name of the method of `Azure` that gives its variables.
        client_id: the identity that was named, or None.
        status: what was answered.
    """

    kind: str
    client_id: str | None
    status: int


class Identity:
    """Issues tokens to the identities that it knows.

    Attributes:
        client_id: of the service principal, and of the user-assigned managed identity.
        client_secret: of the service principal.
        tenant: the tenant of both.
        assertion: what Kubernetes would put into the federated token file.
        requests: every request for a token, in order.
        latency: seconds that every answer takes.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.client_id, self.tenant = str(uuid.uuid4()), str(uuid.uuid4())
        self.client_secret = secrets.token_urlsafe(30)
        self.header = secrets.token_urlsafe(20)
        self.assertion = jwt.encode({"sub": "system:serviceaccount:flows:worker"}, "k" * 32)
        self.requests: list[TokenRequest] = []
        self.latency = 0.0
        self._key = secrets.token_bytes(32)
        self._throttled = (0, 1)
        self._lock = threading.Lock()
        self._local = JsonServer(self._managed)
        self._entra = JsonServer(self._answer_entra, tls)
        self.url, self.entra_port = f"http://127.0.0.1:{self._local.port}", self._entra.port

    def close(self) -> None:
        self._local.close()
        self._entra.close()

    def throttle(self, times: int, *, retry_after: int = 1) -> None:
        """Answer the next requests with 429."""
        self._throttled = (times, retry_after)

    def issue(self, audience: str, *, lifetime: int = 3600, client_id: str | None = None) -> str:
        claims = {
            "aud": audience,
            "exp": int(time.time()) + lifetime,
            "appid": client_id or "system-assigned",
            "tid": self.tenant,
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def accepts(self, token: str, audience: str) -> bool:
        """Say whether a token is of this issuer, for an audience, and still valid."""
        try:
            jwt.decode(token, self._key, algorithms=["HS256"], audience=audience)
        except jwt.InvalidTokenError:
            return False
        return True

    def _managed(self, request: Request) -> Answer:
        time.sleep(self.latency)
        kinds = {
            "/app-service/token": ("environment", "client_id", "2019-08-01"),
            "/ml/token": ("azure_ml", "clientid", "2017-09-01"),
            "/metadata/identity/oauth2/token": ("imds", "client_id", "2018-02-01"),
        }
        if request.path not in kinds or request.method != "GET":
            return Answer(404, {"error": "not_found"})
        kind, parameter, version = kinds[request.path]
        client_id = request.query.get(parameter)
        if kind == "imds" and "resource" not in request.query:
            # How azure-identity asks whether there is an IMDS.
            return Answer(400, {"error": "invalid_request"})
        answer = self._throttle() or self._managed_token(kind, request, version, client_id)
        self.requests.append(TokenRequest(kind, client_id, answer.status))
        return answer

    def _managed_token(
        self, kind: str, request: Request, version: str, client_id: str | None
    ) -> Answer:
        header = {"environment": "x-identity-header", "azure_ml": "secret"}.get(kind)
        if header and request.headers.get(header) != self.header:
            return Answer(403, {"statusCode": 403, "message": "the header is not that of here"})
        if kind == "imds" and request.headers.get("metadata") != "true":
            return Answer(400, {"error": "bad_request_102", "error_description": "Metadata header"})
        if request.query.get("api-version") != version:
            return Answer(400, {"error": "invalid_request", "error_description": "api-version"})
        unknown = {"clientid", "client_id"} & set(request.query) - (
            {"clientid"} if kind == "azure_ml" else {"client_id"}
        )
        if unknown or (client_id is not None and client_id != self.client_id):
            if kind == "imds":
                description = "Identity not found"
                return Answer(400, {"error": "invalid_request", "error_description": description})
            message = "No User Assigned or Delegated Managed Identity found for specified ClientId"
            return Answer(400, {"statusCode": 400, "message": message})
        resource = request.query["resource"]
        ends = int(time.time()) + 3600
        token = {
            "access_token": self.issue(resource, client_id=client_id),
            "expires_on": str(ends),
            "resource": resource,
            "token_type": "Bearer",
        }
        return Answer(200, token | ({"expires_in": "3599"} if kind == "imds" else {}))

    def _answer_entra(self, request: Request) -> Answer:
        time.sleep(self.latency)
        if request.method == "GET" and request.path == "/common/discovery/instance":
            hosts = [
                {"preferred_network": host, "preferred_cache": host, "aliases": [host]}
                for host in AUTHORITIES.values()
            ]
            endpoint = f"https://{request.host}/{self.tenant}/v2.0/.well-known/openid-configuration"
            return Answer(200, {"tenant_discovery_endpoint": endpoint, "metadata": hosts})
        tenant = request.path.split("/")[1]
        base = f"https://{request.host}/{tenant}"
        if request.path.endswith("/.well-known/openid-configuration"):
            return Answer(
                200,
                {
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "issuer": f"{base}/v2.0",
                },
            )
        if request.path != f"/{tenant}/oauth2/v2.0/token" or request.method != "POST":
            return Answer(404, {"error": "not_found"})
        form = dict(parse_qsl(request.body.decode()))
        kind = "workload_identity" if "client_assertion" in form else "service_principal"
        answer = self._throttle() or self._entra_token(tenant, form)
        self.requests.append(TokenRequest(kind, form.get("client_id"), answer.status))
        return answer

    def _entra_token(self, tenant: str, form: Mapping[str, str]) -> Answer:
        def refuse(status: int, error: str, text: str) -> Answer:
            return Answer(status, {"error": error, "error_description": f"{text} Trace ID: 0"})

        scope = form.get("scope", "").split()[:1]
        if form.get("grant_type") != "client_credentials" or not scope:
            return refuse(400, "invalid_request", "AADSTS900144: The request body must contain")
        if tenant != self.tenant:
            return refuse(400, "invalid_request", "AADSTS90002: Tenant not found.")
        if form.get("client_id") != self.client_id:
            return refuse(400, "unauthorized_client", "AADSTS700016: Application not found.")
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION:
                return refuse(400, "invalid_request", "AADSTS50027: JWT token is invalid")
            if form["client_assertion"] != self.assertion:
                return refuse(401, "invalid_client", "AADSTS700213: No matching federated identity")
        elif form.get("client_secret") != self.client_secret:
            return refuse(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        audience = scope[0].removesuffix("/.default")
        token = self.issue(audience, client_id=self.client_id)
        return Answer(200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token})

    def _throttle(self) -> Answer | None:
        with self._lock:
            times, retry_after = self._throttled
            if times <= 0:
                return None
            self._throttled = (times - 1, retry_after)
        return Answer(429, {"error": "too_many"}, {"Retry-After": str(retry_after)})

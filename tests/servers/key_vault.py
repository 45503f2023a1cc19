"""A stand-in of Azure Key Vault's secrets, as strict as the service.

The protocol: https://learn.microsoft.com/rest/api/keyvault/secrets; what it refuses:
https://learn.microsoft.com/azure/key-vault/general/rest-error-codes and
https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tests.servers.identity import AUTHORITIES, Identity
from tests.servers.json_server import Answer, JsonServer, Request

DOMAINS = {
    "public": "vault.azure.net",
    "china": "vault.azure.cn",
    "us-government": "vault.usgovcloudapi.net",
}
_VERSIONS = re.compile(r"7\.[0-6]|2016-10-01|202\d-\d\d-\d\d")
_MOST_BYTES = 25 * 1024
_REFUSALS = {
    "ForbiddenByRbac": "Caller is not authorized to perform action on resource.\r\nIf role "
    "assignments, deny assignments or role definitions were changed recently, please observe "
    "propagation time.",
    "AccessDenied": "The user, group or application 'appid=…' does not have secrets get permission "
    "on key vault.",
    "ForbiddenByFirewall": "Client address is not authorized and caller is not a trusted service.",
    "ForbiddenByConnection": "Public network access is disabled and request is not from a trusted "
    "service nor via an approved private link.",
    "ForbiddenByPolicy": "The request is forbidden by policy.",
}


@dataclass(frozen=True)
class Asked:
    """A request that a vault answered."""

    method: str
    path: str
    status: int


@dataclass
class _Version:
    id: str
    value: str
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None
    content_type: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))


class Vault:
    """One vault, and what a test does to it.

    Attributes:
        host: its host name.
        requests: what it was asked, in order.
    """

    def __init__(self, name: str, cloud: str) -> None:
        self.host = f"{name}.{DOMAINS[cloud]}"
        self.resource = f"https://{DOMAINS[cloud]}"
        self.authority = f"https://{AUTHORITIES[cloud]}"
        self.requests: list[Asked] = []
        self._secrets: dict[str, list[_Version]] = {}
        self._deleted: dict[str, list[_Version]] = {}
        self._recovering: set[str] = set()
        self._denied: str | None = None
        self._listable = False
        self._faults: list[Answer] = []
        self._lock = threading.Lock()

    def put(
        self,
        name: str,
        value: str,
        *,
        enabled: bool = True,
        nbf: datetime | None = None,
        exp: datetime | None = None,
    ) -> str:
        """Make a new version and return its name."""
        times = [int(moment.timestamp()) if moment else None for moment in (nbf, exp)]
        version = _Version(uuid.uuid4().hex, value, enabled, *times)
        self._secrets.setdefault(name.lower(), []).append(version)
        return version.id

    def value(self, name: str) -> str:
        """Return what the latest version holds."""
        return self._secrets[name.lower()][-1].value

    def delete(self, name: str) -> None:
        """Delete softly, as every vault does today."""
        self._deleted[name.lower()] = self._secrets.pop(name.lower())

    def recover(self, name: str) -> None:
        """Recover; the next request for it still finds it in recovery."""
        self._secrets[name.lower()] = self._deleted.pop(name.lower())
        self._recovering.add(name.lower())

    def deny(self, kind: str | None) -> None:
        """Refuse everything, with the inner code `kind`."""
        self._denied = kind

    def grant_list(self) -> None:
        """Give callers the right to list, which by default they do not have."""
        self._listable = True

    def throttle(self, times: int, *, retry_after: int = 1) -> None:
        """Answer the next requests that carry a token with 429."""
        error = {"code": "Throttled", "message": "Request was not processed because too many"}
        answer = Answer(429, {"error": error}, {"Retry-After": str(retry_after)})
        self._faults = [answer] * times

    def fail(self, status: int, times: int) -> None:
        """Answer the next requests that carry a token with a fault."""
        self.say(Answer(status, {"error": {"code": "Fault", "message": "…"}}), times)

    def say(self, answer: Answer, times: int = 1) -> None:
        """Answer the next requests that carry a token with what no vault would say."""
        self._faults = [answer] * times

    def answer(self, request: Request, identity: Identity) -> Answer:
        answer = self._answer(request, identity)
        with self._lock:
            self.requests.append(Asked(request.method, request.path, answer.status))
        return answer

    def _answer(self, request: Request, identity: Identity) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or not identity.accepts(token, self.resource):
            why = "Error validating token: IDX10214" if token else "Request is missing a Bearer"
            tenant = f"{self.authority}/{identity.tenant}"
            return _error(401, "Unauthorized", why, headers=_challenge(tenant, self.resource))
        with self._lock:
            if self._faults:
                return self._faults.pop()
        if not _VERSIONS.fullmatch(request.query.get("api-version", "")):
            return _error(400, "BadParameter", "api-version must be specified")
        if self._denied:
            return _error(403, "Forbidden", _REFUSALS[self._denied], self._denied)
        collection, _, rest = request.path.strip("/").partition("/")
        if collection == "secrets" and not rest and request.method == "GET":
            return self._list(request)
        name, _, version = rest.partition("/")
        if collection not in ("secrets", "deletedsecrets") or "/" in version:
            return _error(404, "NotFound", "the path is none")
        if not re.fullmatch(r"[0-9a-zA-Z-]{1,127}", name):
            return _error(400, "BadParameter", f"The request URI contains an invalid name: {name}")
        handlers: dict[tuple[str, str], Callable[[], Answer]] = {
            ("GET", "secrets"): lambda: self._get(name, version),
            ("PUT", "secrets"): lambda: self._set(name, request.body),
            ("GET", "deletedsecrets"): lambda: self._get_deleted(name),
        }
        handler = handlers.get((request.method, collection))
        return handler() if handler else _error(405, "MethodNotAllowed", "not that method")

    def _get(self, name: str, version: str) -> Answer:
        versions = self._secrets.get(name.lower(), [])
        found = [each for each in versions if not version or each.id == version]
        if not found:
            return _error(
                404,
                "SecretNotFound",
                f"A secret with (name/id) {name}/{version} was not found in this key vault. If you "
                "recently deleted this secret you may be able to recover it",
            )
        if not found[-1].enabled:
            message = "Operation get is not allowed on a disabled secret."
            return _error(403, "Forbidden", message, "SecretDisabled")
        return Answer(200, self._bundle(name, found[-1]))

    def _set(self, name: str, body: bytes) -> Answer:
        if name.lower() in self._deleted:
            message = f"Secret {name} is currently in a deleted but recoverable state"
            return _error(409, "Conflict", message, "ObjectIsDeletedButRecoverable")
        if name.lower() in self._recovering:
            self._recovering.discard(name.lower())
            message = f"Secret {name} is currently being recovered"
            return _error(409, "Conflict", message, "ObjectIsBeingRecovered")
        content = json.loads(body or b"{}")
        value, kind = content.get("value"), content.get("contentType")
        if not isinstance(value, str) or not value:
            return _error(400, "BadParameter", "Property  has invalid value")
        if len(value.encode()) > _MOST_BYTES or len(kind or "") > 255:
            return _error(400, "BadParameter", "The value is larger than 25k, or its type than 255")
        made = self.put(name, value)
        self._secrets[name.lower()][-1].content_type = kind
        assert made
        return Answer(200, self._bundle(name, self._secrets[name.lower()][-1]))

    def _get_deleted(self, name: str) -> Answer:
        versions = self._deleted.get(name.lower())
        if not versions:
            return _error(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        bundle = self._bundle(name, versions[-1])
        del bundle["value"]
        now = int(time.time())
        return Answer(
            200,
            bundle
            | {
                "recoveryId": f"https://{self.host}/deletedsecrets/{name}",
                "deletedDate": now,
                "scheduledPurgeDate": now + 90 * 24 * 3600,
            },
        )

    def _list(self, request: Request) -> Answer:
        if not self._listable:
            return _error(403, "Forbidden", _REFUSALS["ForbiddenByRbac"], "ForbiddenByRbac")
        names, start = sorted(self._secrets), int(request.query.get("$skiptoken", 0))
        page = int(request.query.get("maxresults", 25))
        items = []
        for name in names[start : start + page]:
            bundle = self._bundle(name, self._secrets[name][-1])
            del bundle["value"]
            items.append(bundle | {"id": f"https://{self.host}/secrets/{name}"})
        version = request.query["api-version"]
        following = (
            f"https://{self.host}/secrets?api-version={version}&$skiptoken={start + page}"
            if start + page < len(names)
            else None
        )
        return Answer(200, {"value": items, "nextLink": following})

    def _bundle(self, name: str, version: _Version) -> dict[str, object]:
        times = {"nbf": version.nbf, "exp": version.exp}
        return {
            "value": version.value,
            "id": f"https://{self.host}/secrets/{name}/{version.id}",
            "attributes": {
                "enabled": version.enabled,
                **{key: moment for key, moment in times.items() if moment is not None},
                "created": version.created,
                "updated": version.created,
                "recoveryLevel": "Recoverable+Purgeable",
                "recoverableDays": 90,
            },
            "tags": {},
            **({"contentType": version.content_type} if version.content_type else {}),
        }


class KeyVault:
    """The vaults of all clouds, on one TLS server.

    Attributes:
        latency: seconds that every answer takes.
    """

    def __init__(self, identity: Identity, tls: ssl.SSLContext) -> None:
        self.identity = identity
        self.latency = 0.0
        self._vaults: dict[str, Vault] = {}
        self._server = JsonServer(self._answer, tls)
        self.port = self._server.port

    def vault(self, name: str, cloud: str = "public") -> Vault:
        """Return the vault of a name; a new one is empty."""
        vault = Vault(name, cloud)
        return self._vaults.setdefault(vault.host, vault)

    def close(self) -> None:
        self._server.close()

    def _answer(self, request: Request) -> Answer:
        time.sleep(self.latency)
        vault = self._vaults.get(request.host.partition(":")[0])
        if vault is None:  # its name would lead nowhere; one that asks for others' tokens
            tenant = "https://login.microsoftonline.com/common"
            headers = _challenge(tenant, "https://graph.microsoft.com")
            return _error(401, "Unauthorized", "…", headers=headers)
        return vault.answer(request, self.identity)


def _challenge(tenant: str, resource: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer authorization="{tenant}", resource="{resource}"'}


def _error(
    status: int,
    code: str,
    message: str,
    inner: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    error: dict[str, object] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return Answer(status, {"error": error}, headers or {})

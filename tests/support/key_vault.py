"""A strict stand-in of Azure Key Vault's secrets: many vaults, in every cloud, behind one server.

Texts of errors are Key Vault's own where a public report shows them. The texts for a bad version, a
missing api-version, and a value or content type that is too long are guesses; their codes are real.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.support.identity import CLOUDS, Cloud, Directory
from tests.support.web import NO_ANSWER, Answer, Call, Request, Troubles

_API_VERSIONS = {
    "2016-10-01",
    *("7.0 7.1 7.2 7.3 7.4 7.5 7.6".split()),
    "2025-07-01",
    "2026-04-01",
}
_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
_VERSION = re.compile(r"[0-9a-f]{32}")
_PAGE = 25
_ACTIONS = {  # RBAC's names of the rights
    "get": "secrets/getSecret/action",
    "list": "secrets/readMetadata/action",
    "set": "secrets/setSecret/action",
    "update": "secrets/update/action",
}
DENIALS = {  # by inner code, the text for a caller, a right and a vault
    "ForbiddenByRbac": (
        "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny "
        "assignments or role definitions were changed recently, please observe propagation time."
        "\r\nCaller: {caller}\r\nAction: 'Microsoft.KeyVault/vaults/{action}'\r\n"
        "Resource: '/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/tests/"
        "providers/microsoft.keyvault/vaults/{vault}{path}'\r\nAssignment: (not found)\r\n"
        "DenyAssignmentId: null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\n"
        "Vault: {vault};location=westeurope\r\n"
    ),
    "AccessDenied": (
        "The user, group or application '{caller}' does not have secrets {right} permission on key "
        "vault '{vault};location=westeurope'. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125287"
    ),
    "ForbiddenByFirewall": (
        "Client address is not authorized and caller is not a trusted service.\r\n"
        "Client address: 203.0.113.7\r\nCaller: {caller}\r\nVault: {vault};location=westeurope"
    ),
    "ForbiddenByConnection": (
        "Public network access is disabled and request is not from a trusted service nor via an "
        "approved private link.\r\nCaller: {caller}\r\nVault: {vault};location=westeurope"
    ),
    "ForbiddenByPolicy": (
        "The policy requires the caller '{caller}' to use on-behalf-of (OBO) flow. For more "
        "information on OBO, please see https://go.microsoft.com/fwlink/?linkid=2152310"
    ),
}


@dataclass
class _Version:
    version: str
    value: str
    attributes: dict[str, Any]
    content_type: str | None
    tags: dict[str, str] | None


@dataclass
class _Secret:
    name: str  # as it was first written
    versions: list[_Version] = field(default_factory=list)
    deleted: int | None = None  # when
    conflicts: int = 0  # writes that are still refused after it was recovered


class Refused(Exception):
    """An answer with which Key Vault refuses a request."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        error: dict[str, Any] = {"code": code, "message": message}
        if inner is not None:
            error["innererror"] = {"code": inner}
        super().__init__(message)
        self.answer = Answer(status, {"error": error})


class Vault:
    """One vault.

    Attributes:
        name, host: `acme`, `acme.vault.azure.net`.
        requests: the requests so far.
        troubles: the faults of its next requests, the first one without a token included.
    """

    def __init__(self, name: str, cloud: Cloud, directory: Directory) -> None:
        self.name = name
        self.cloud = cloud
        self.host = f"{name}.{cloud.suffix}"
        self.requests: list[Request] = []
        self.troubles = Troubles()
        self.throttle, self.fail = self.troubles.throttle, self.troubles.fail
        self.late, self.hang = self.troubles.late, self.troubles.hang
        self._directory = directory
        self._secrets: dict[str, _Secret] = {}
        self._lock = threading.RLock()
        self._denial: str | None = None
        self._rate: tuple[int, float] | None = None
        self._served: deque[float] = deque()

    def count(self, method: str, path: str = "", status: int | None = None) -> int:
        """Count the requests whose path contains a text."""
        return sum(
            one.method == method and path in one.path and status in {None, one.status}
            for one in self.requests
        )

    def put(
        self,
        name: str,
        value: str,
        *,
        enabled: bool = True,
        nbf: int | None = None,
        exp: int | None = None,
        content_type: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        """Write a new version, past all rights and limits; return its name. Times are epochs."""
        attributes = {"enabled": enabled, "nbf": nbf, "exp": exp}
        with self._lock:
            secret = self._secrets.setdefault(name.lower(), _Secret(name))
            return self._write(secret, value, attributes, content_type, tags).version

    def tags(self, name: str) -> list[dict[str, str] | None]:
        """Return the tags of a secret's versions, the newest last."""
        with self._lock:
            return [each.tags for each in self._secrets[name.lower()].versions]

    def values(self, name: str) -> list[str]:
        """Return the values of a secret's versions, the newest last."""
        with self._lock:
            return [each.value for each in self._secrets[name.lower()].versions]

    def delete(self, name: str) -> None:
        """Delete softly."""
        with self._lock:
            self._secrets[name.lower()].deleted = int(time.time())

    def recover(self, name: str, conflicts: int = 1) -> None:
        """Recover; the next `conflicts` writes are still refused."""
        with self._lock:
            secret = self._secrets[name.lower()]
            secret.deleted, secret.conflicts = None, conflicts

    def deny(self, kind: str) -> None:
        """Answer 403 with an inner code of `DENIALS`, until `allow`."""
        assert kind in DENIALS, kind
        self._denial = kind

    def allow(self) -> None:
        """End a denial."""
        self._denial = None

    def limit(self, requests: int, seconds: float) -> None:
        """Answer 429 after so many requests in so many seconds; answers with 429 do not count."""
        self._rate = (requests, seconds)

    def answer(self, call: Call) -> Answer:
        """Answer a request, and record it."""
        try:
            answer = self._answer(call)
        except Refused as refused:
            answer = refused.answer
        self.requests.append(Request.of(call, answer))
        headers = {
            "Cache-Control": "no-cache",
            "x-ms-keyvault-region": "westeurope",
            "x-ms-request-id": str(uuid.uuid4()),
        }
        return Answer(answer.status, answer.body, {**headers, **answer.headers})

    def _answer(self, call: Call) -> Answer:
        trouble = self.troubles.pop(call.method)
        if trouble.done:
            answer = self._right_answer(call)
            trouble.pass_time()
            return answer
        if trouble.answer is not None:
            return trouble.answer
        if trouble.status == 0:
            return NO_ANSWER
        if trouble.status == 429:
            return _throttled(trouble.retry_after)
        if trouble.status is not None:
            code = {500: "InternalServerError", 503: "ServiceUnavailable"}.get(trouble.status)
            error = {"code": code or "Error", "message": "The service is having trouble."}
            return Answer(trouble.status, {"error": error})
        return self._right_answer(call)

    def _right_answer(self, call: Call) -> Answer:
        resource = f"https://{self.cloud.suffix}"
        try:
            caller = self._caller(call, resource)
        except Refused as refused:
            login = f"https://{self.cloud.login}/{self._directory.tenant}"
            challenge = f'Bearer authorization="{login}", resource="{resource}"'
            return Answer(401, refused.answer.body, {"WWW-Authenticate": challenge})
        if self._too_many():
            return _throttled(1)
        if self._denial is not None:
            right = {"PUT": "set", "PATCH": "update"}.get(call.method, "get")
            self._forbid(self._denial, caller, right, call)
        if call.query.get("api-version") not in _API_VERSIONS:
            raise Refused(400, "BadParameter", "The api-version is missing or not supported.")
        with self._lock:
            return self._route(call, caller)

    def _caller(self, call: Call, resource: str) -> dict[str, Any]:
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "AKV10000: Request is missing a Bearer or PoP token."
            raise Refused(401, "Unauthorized", message)
        try:
            return self._directory.claims(token, self.cloud, resource)
        except jwt.ExpiredSignatureError:
            message = "[TokenExpired] Error validating token."
        except jwt.InvalidAudienceError:
            message = f"AKV10022: Invalid audience. Expected {resource}, found another."
        except jwt.InvalidIssuerError:
            expected = self._directory.issuer(self.cloud)
            message = f"AKV10032: Invalid issuer. Expected one of {expected}, found another."
        except jwt.InvalidTokenError:
            message = "[BearerReadAccessTokenFailed] Error validating token."
        raise Refused(401, "Unauthorized", message)

    def _too_many(self) -> bool:
        if self._rate is None:
            return False
        requests, seconds = self._rate
        with self._lock:
            now = time.monotonic()
            while self._served and self._served[0] <= now - seconds:
                self._served.popleft()
            if len(self._served) >= requests:
                return True
            self._served.append(now)
            return False

    def _forbid(self, kind: str, caller: dict[str, Any], right: str, call: Call) -> None:
        who = f"appid={caller['appid']};oid={caller['oid']};iss={caller['iss']}"
        policy = "set" if right == "update" else right  # what access policies call it
        message = DENIALS[kind].format(
            caller=who, right=policy, action=_ACTIONS[right], vault=self.name, path=call.path
        )
        raise Refused(403, "Forbidden", message, kind)

    def _route(self, call: Call, caller: dict[str, Any]) -> Answer:
        kind, *rest = call.path.strip("/").split("/")
        name, version = [*rest, "", ""][:2]
        route = (call.method, kind, len(rest))

        def needs(right: str) -> None:
            if right not in caller["rights"]:
                self._forbid("ForbiddenByRbac", caller, right, call)

        if route == ("GET", "secrets", 0):
            needs("list")
            live = [one for one in self._secrets.values() if one.deleted is None]
            items = [self._item(one, one.versions[-1], short=True) for one in live]
            return self._page(call, items)
        if not rest or kind not in {"secrets", "deletedsecrets"}:
            message = f"Method {call.method} does not allow operation '{kind}'"
            raise Refused(405, "MethodNotAllowed", message)
        if not _NAME.fullmatch(name):
            message = f"The request URI contains an invalid name: {name}"
            raise Refused(400, "BadParameter", message)
        if kind == "secrets" and call.method == "GET":
            needs("get")
            return self._get(name, version)
        if route == ("PUT", "secrets", 1):
            needs("set")
            return self._set(name, call.body)
        if kind == "secrets" and call.method == "PATCH":
            needs("update")
            return self._update(name, version, call.body)
        if route == ("GET", "deletedsecrets", 1):
            needs("get")
            return Answer(200, self._deleted(self._gone(name)))
        message = f"Method {call.method} does not allow operation '{kind}'"
        raise Refused(405, "MethodNotAllowed", message)

    def _get(self, name: str, version: str) -> Answer:
        if version and not _VERSION.fullmatch(version):
            message = f"The request URI contains an invalid version: {version}"
            raise Refused(400, "BadParameter", message)
        secret = self._live(name, version)
        found = _find(secret, version) if version else secret.versions[-1]
        if not found.attributes[
            "enabled"
        ]:  # the newest version decides, even if an older one is enabled
            message = "Operation get is not allowed on a disabled secret."
            raise Refused(403, "Forbidden", message, "SecretDisabled")
        return Answer(200, {"value": found.value, **self._item(secret, found)})

    def _set(self, name: str, body: bytes) -> Answer:
        try:
            sent = json.loads(body)
            value, kind, tags = sent["value"], sent.get("contentType"), sent.get("tags")
            attributes = sent.get("attributes") or {}
        except (ValueError, KeyError, AttributeError):
            message = "The request body has no property value."
            raise Refused(400, "BadParameter", message) from None
        if not isinstance(value, str) or len(value.encode()) > 25 * 1024:
            message = "Secret is beyond the maximum permitted length of 25600 characters."
            raise Refused(400, "BadParameter", message)
        if kind is not None and len(kind) > 255:
            message = "Property contentType is beyond the maximum permitted length of 255."
            raise Refused(400, "BadParameter", message)
        secret = self._secrets.setdefault(name.lower(), _Secret(name))
        if secret.deleted is not None:
            message = (
                f"Secret {name} is currently in a deleted but recoverable state, and its name "
                "cannot be reused; in this state, the secret can only be recovered or purged."
            )
            raise Refused(409, "Conflict", message, "ObjectIsDeletedButRecoverable")
        if secret.conflicts:
            secret.conflicts -= 1
            message = f"Secret {name} is currently being recovered and cannot be re-created; "
            raise Refused(409, "Conflict", message + "retry later.", "ObjectIsBeingRecovered")
        written = self._write(secret, value, attributes, kind, tags)
        return Answer(200, {"value": value, **self._item(secret, written)})

    def _update(self, name: str, version: str, body: bytes) -> Answer:
        """Change attributes of a version, but never its value; all tags are replaced."""
        try:
            sent = json.loads(body)
            attributes, tags = sent.get("attributes") or {}, sent.get("tags")
            kind = sent.get("contentType")
        except (ValueError, AttributeError):
            raise Refused(400, "BadParameter", "The request body is not an object.") from None
        if set(sent) - {"attributes", "tags", "contentType"}:
            raise Refused(400, "BadParameter", "Property value cannot be updated.")
        secret = self._live(name, version)
        found = _find(secret, version) if version else secret.versions[-1]
        found.attributes |= attributes | {"updated": int(time.time())}
        found.tags = found.tags if tags is None else tags
        found.content_type = found.content_type if kind is None else kind
        return Answer(200, self._item(secret, found))

    def _write(
        self,
        secret: _Secret,
        value: str,
        attributes: dict[str, Any],
        content_type: str | None,
        tags: dict[str, str] | None,
    ) -> _Version:
        now = int(time.time())
        kept = {name: attributes.get(name) for name in ("nbf", "exp")}
        full = {
            "enabled": attributes.get("enabled") is not False,
            **{name: moment for name, moment in kept.items() if moment is not None},
            "created": now,
            "updated": now,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
        }
        version = _Version(uuid.uuid4().hex, value, full, content_type, tags)
        secret.versions.append(version)
        return version

    def _live(self, name: str, version: str = "") -> _Secret:
        secret = self._secrets.get(name.lower())
        known = secret and (not version or any(v.version == version for v in secret.versions))
        if secret is None or secret.deleted is not None or not known:
            message = (
                f"A secret with (name/id) {'/'.join(filter(None, (name, version)))} was not found "
                "in this key vault. If you recently deleted this secret you may be able to recover "
                "it using the correct recovery command. For help resolving this issue, please see "
                "https://go.microsoft.com/fwlink/?linkid=2125182"
            )
            raise Refused(404, "SecretNotFound", message)
        return secret

    def _gone(self, name: str) -> _Secret:
        secret = self._secrets.get(name.lower())
        if secret is None or secret.deleted is None:
            raise Refused(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        return secret

    def _item(self, secret: _Secret, version: _Version, *, short: bool = False) -> dict[str, Any]:
        tail = "" if short else f"/{version.version}"
        item = {
            "id": f"https://{self.host}/secrets/{secret.name}{tail}",
            "attributes": dict(version.attributes),
            "contentType": version.content_type,
            "tags": version.tags,
        }
        return {name: value for name, value in item.items() if value is not None}

    def _deleted(self, secret: _Secret) -> dict[str, Any]:
        assert secret.deleted is not None
        return {
            "recoveryId": f"https://{self.host}/deletedsecrets/{secret.name}",
            "deletedDate": secret.deleted,
            "scheduledPurgeDate": secret.deleted + 90 * 86400,
            **self._item(secret, secret.versions[-1]),
        }

    def _page(self, call: Call, items: list[dict[str, Any]]) -> Answer:
        end = int(call.query.get("$skiptoken", "0")) + _PAGE
        following = None
        if end < len(items):
            version = call.query["api-version"]
            following = (
                f"https://{self.host}:{call.port}{call.path}?api-version={version}&$skiptoken={end}"
            )
        return Answer(200, {"value": items[end - _PAGE : end], "nextLink": following})


class KeyVaults:
    """The vaults that exist, by host."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._vaults: dict[str, Vault] = {}

    def new(self, name: str, cloud: str = "public") -> Vault:
        """Make an empty vault; it replaces an earlier one with the same name and cloud."""
        vault = Vault(name, CLOUDS[cloud], self._directory)
        self._vaults[vault.host] = vault
        return vault

    def exists(self, host: str) -> bool:
        """Whether a vault's host name resolves."""
        return host in self._vaults

    def __call__(self, call: Call) -> Answer:
        """Answer for the vault that the host names."""
        vault = self._vaults.get(call.host)
        return vault.answer(call) if vault else Answer(400)


def _find(secret: _Secret, version: str) -> _Version:
    return next(one for one in secret.versions if one.version == version)


def _throttled(retry_after: int | None) -> Answer:
    message = (
        "Request was not processed because too many requests were received. "
        "Reason: VaultRequestTypeLimitReached"
    )
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Answer(429, {"error": {"code": "Throttled", "message": message}}, headers)

"""Asks a ZenML server for its version, and proves that it takes a key or a token.

The requests are those of ZenML 0.80.2 to 0.98.0: `POST /api/v1/login` with the form
`grant_type=zenml-api-key&password=<key>`, `GET /api/v1/current-user`, and `GET /api/v1/info`
(https://docs.zenml.io/api-reference/oss-api/getting-started, and the sources of these versions).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from importlib import metadata
from typing import Any

from pydantic import SecretStr

from mlauth import masking
from mlauth.connection import Connection
from mlauth.deadline import Deadline
from mlauth.errors import (
    StageFailed,
    StageUnknown,
)
from mlauth.net.http import Answer, Bearer, Text
from mlauth.report import (
    Stage,
)
from mlauth.stages import Stages
from mlauth.systems import Proof
from mlauth.systems.zenml.isolation import CLIENT
from mlauth.text import plain

_LONGEST_NAME = 255  # `STR_FIELD_MAX_LENGTH` of zenml/constants.py


def prove_server(
    url: str,
    stages: Stages,
    *,
    ca: str | None = None,
    key: SecretStr | None = None,
    token: SecretStr | None = None,
    service_account: str | None = None,
    wanted: Mapping[str, str | None] | None = None,
) -> Proof:
    """Prove that a server takes a key (with one login) or a token (without a login).

    Args:
        url: the server.
        stages: gets the account and the facts `server_url`, `server_version` and, for a token
            that expires, `expires_at` (ISO 8601, UTC).
        ca: see `mlauth.net.http.Service`.
        key: the API key to log in with.
        token: a token of an earlier login, in place of a key.
        service_account: the name that the account must have.
        wanted: the names of `stack` and `project`; None for a name that does not matter.

    Returns:
        The secret `token`, and the ids of the wanted stack and project.

    Raises:
        StageFailed, StageUnknown: a stage did not pass; the report says why.
    """
    secret = key or token
    assert secret is not None
    stages.facts["server_url"] = url
    with ExitStack() as stack:
        with stages.stage(Stage.REACHABLE) as result:
            # Connecting is part of the stage: it fails if a CA bundle cannot be used.
            service = stack.enter_context(stages.connect(url, ca=ca, client=CLIENT))
            info = server_info(service)
            result.detail = f"{url} is a ZenML server"
        with stages.stage(Stage.COMPATIBLE) as result:
            stages.facts["server_version"] = plain(info["version"])
            result.detail, warning = _compatible(info, secret.get_secret_value())
            result.warnings += [warning] if warning else []
        with stages.stage(Stage.AUTHENTICATED) as result:
            if key is not None:
                token, expires_at = _login(
                    service, {"grant_type": "zenml-api-key", "password": key}
                )
                if expires_at:
                    stages.facts["expires_at"] = expires_at.isoformat(timespec="seconds")
                    result.warnings.append(f"the login's token expires at {expires_at:%F %T} UTC")
            assert token is not None
            masking.register([token.get_secret_value()])
            account = current_user(service, token, service_account)
            result.detail = (
                f"the server took the {'key' if key else 'token'} as {account['name']!r}"
            )
        with stages.stage(Stage.AUTHORIZED) as result:
            stages.account = account["name"]
            _right_account(account, service_account, url)
            ids = {
                kind: _id_of(service, kind, name, token, account["name"])
                for kind, name in (wanted or {}).items()
                if name is not None
            }
            result.detail = f"service account {account['name']!r}" + "".join(
                f", {kind} {(wanted or {})[kind]!r}" for kind in ids
            )
    return Proof({"token": token}, ids)


def connect(url: str, deadline: Deadline, ca: str | None, *, insecure: bool) -> Connection:
    """Return a connection to a server outside of a check; see `Stages.connect`."""
    return Connection(url, deadline, ca=ca, client=CLIENT, insecure=insecure)


def server_info(service: Connection) -> dict[str, Any]:
    """Ask a ZenML server for its version and more; needs no credential.

    Raises:
        StageFailed, StageUnknown: there is no ZenML server, or it cannot be reached.
    """
    answer = service.request("GET", "/api/v1/info")
    body = answer.json
    if answer.status == 200 and isinstance(body, dict) and isinstance(body.get("version"), str):
        return body
    raise StageFailed(
        f"{service.url} is not a ZenML server: /api/v1/info answers {answer.status} with "
        f"{answer.content_type}; is a proxy's login page in the way, or a path missing in the URL?"
    )


def _compatible(info: Mapping[str, Any], secret: str) -> tuple[str, str | None]:
    version = info["version"]
    server = plain(version)[:40]
    if secret.startswith("ZENPROKEY_"):
        if not info.get("pro_api_url"):
            raise StageFailed(
                "the key is one of a ZenML Pro organisation (ZENPROKEY_), but the server is not "
                "one of ZenML Pro: use a key of a service account of this server (ZENKEY_)"
            )
        raise StageUnknown(
            "keys of a ZenML Pro organisation are exchanged at ZenML Pro's own API, which mlauth "
            "does not ask: ZenML's client will find out"
        )
    try:
        client = metadata.version("zenml")
    except metadata.PackageNotFoundError:
        return f"server {server}; ZenML is not installed here", None
    detail = f"server {server}, client {client}"
    if version.split(".")[:2] == client.split(".")[:2]:
        return detail, None
    return detail, (
        f"the server is ZenML {server} and the client {client}: install zenml=={server} to be safe"
    )


def log_in(service: Connection, user: str, password: SecretStr) -> SecretStr:
    """Log in as a person, and return the token.

    Raises:
        StageFailed, StageUnknown: the server refused, or gave no answer that can be used.
    """
    token, _ = _login(service, {"grant_type": "password", "username": user, "password": password})
    masking.register([token.get_secret_value()])
    return token


def _login(service: Connection, form: Mapping[str, Text]) -> tuple[SecretStr, datetime | None]:
    asked = datetime.now(timezone.utc)
    answer = service.request("POST", "/api/v1/login", data=form)
    body = answer.json if isinstance(answer.json, dict) else {}
    token, seconds = body.get("access_token"), body.get("expires_in")
    if answer.status == 200 and isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]+", token):
        if isinstance(seconds, (int, float)) and 0 < seconds < 10**9:
            return SecretStr(token), asked + timedelta(seconds=seconds)
        return SecretStr(token), None
    if answer.status in (401, 403):
        raise StageFailed(_refusal(answer, service.url))
    raise StageFailed(_unexpected(service, "/api/v1/login", answer))


# The texts with which a ZenML server refuses, and their meaning.
_REFUSALS = {
    "error decoding API key": (
        "cannot read the key: it is cut short or damaged where it is stored; store it whole"
    ),
    "error retrieving API key": (
        "does not know the key: it was deleted, or belongs to another server; make a new one with "
        "`zenml service-account api-key … create`"
    ),
    "could not verify key value": ("says that the key was rotated: put the new one into the store"),
    "no longer valid": "says that the key was rotated after this login: log in again",
    "error: service account .* is not active": (
        "says that the service account is not active: `zenml service-account update … "
        "--active true`"
    ),
    "error: API key .* is not active": (
        "says that the key is not active: `zenml service-account api-key … update … --active true`"
    ),
    "account .* is not active": "says that the account is not active",
}


def _refusal(answer: Answer, url: str) -> str:
    said = json.dumps(answer.json) if answer.json is not None else ""
    return refusal(said, url, f"HTTP {answer.status}")


def refusal(said: str, url: str, status: str) -> str:
    """Say why a login was refused, in our own words: the server's text could hold anything."""
    for pattern, meaning in _REFUSALS.items():
        if re.search(pattern, said):
            return f"{url} {meaning}"
    return f"{url} refuses the credential ({status}): is it of this server?"


def current_user(
    service: Connection, token: SecretStr, expected: str | None = None
) -> dict[str, Any]:
    """Ask who a token belongs to.

    Args:
        service: the server.
        token: the token.
        expected: the name that the configuration gives, which is no secret.

    Returns:
        `id`, `is_service_account`, `real_name` (a `SecretStr`, for comparisons), and `name` for
        messages. A name that is not the expected one is masked, because a server may echo the
        secret.

    Raises:
        StageFailed, StageUnknown: the server refused, or gave no answer that can be used.
    """
    answer = service.request("GET", "/api/v1/current-user", auth=Bearer(token))
    if answer.status in (401, 403):
        raise StageFailed(_refusal(answer, service.url))
    body = answer.json if isinstance(answer.json, dict) else {}
    inner, name = body.get("body"), body.get("name")
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        name = None
    if answer.status == 200 and isinstance(inner, dict) and name is not None:
        return {
            "id": body.get("id"),
            "is_service_account": inner.get("is_service_account") is True,
            "real_name": SecretStr(name),
            "name": name if name == expected else masking.mask(name),
        }
    raise StageFailed(_unexpected(service, "/api/v1/current-user", answer))


def _right_account(account: Mapping[str, Any], expected: str | None, url: str) -> None:
    if not account["is_service_account"]:
        wanted = "a service account" if expected is None else f"service account {expected!r}"
        raise StageFailed(
            f"{url} knows this credential as the person {account['name']!r}, not as {wanted}: use "
            "the API key of a service account"
        )
    if expected is not None and account["real_name"].get_secret_value() != expected:
        raise StageFailed(
            # The names are shown in ASCII, because letters of different scripts can look alike.
            f"{url} knows this key as service account {account['name']!a}, not as {expected!a}: "
            "correct the reference or service_account"
        )


def _id_of(service: Connection, kind: str, name: str, token: SecretStr, account: str) -> str:
    answer = service.request(
        "GET",
        f"/api/v1/{kind}s",
        auth=Bearer(token),
        params={"name": f"equals:{name}", "size": "2"},
    )
    if answer.status == 403:
        raise StageFailed(
            f"service account {account!r} may not see {kind}s: give it a role for that"
        )
    items = answer.json.get("items") if isinstance(answer.json, dict) else None
    if answer.status != 200 or not isinstance(items, list):
        raise StageFailed(_unexpected(service, f"/api/v1/{kind}s", answer))
    for item in items:
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get("id"), str):
            return str(item["id"])
    raise StageFailed(
        f"{service.url} has no {kind} {name!r} that {account!r} can see: `zenml {kind} list`"
    )


def _unexpected(service: Connection, path: str, answer: Answer) -> str:
    return (
        f"{service.url}{path} answers {answer.status} with {answer.content_type}, unlike a ZenML "
        "server: is a proxy in the way?"
    )

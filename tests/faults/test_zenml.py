"""Faults of a ZenML server, of a key, and of variables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

import mlauth
from mlauth import ZenMLCredentials
from mlauth.stores import memory
from tests.faults.tables import Row
from tests.support.faults import Reply, answer, faulty
from tests.support.zenml_keys import api_key

KEY = api_key("canary-key")
INFO = answer(200, b'{"version": "0.98.0"}')
TOKEN = answer(200, b'{"access_token": "canary.token"}')
NOT_ZENML = (
    "URL is not a ZenML server: /api/v1/info answers STATUS with TYPE; is a proxy's login page in "
    "the way, or a path missing in the URL?"
)


@dataclass(frozen=True)
class Answered(Row):
    """Answers of a server.

    Attributes:
        replies: in order; the last one is repeated.
        key: the value in the store.
        fields: more of the credentials.
    """

    replies: tuple[Reply, ...] = ()
    key: str = KEY
    fields: Mapping[str, str] = field(default_factory=dict)


def _refused(line: str, said: str) -> Answered:
    body = json.dumps({"detail": ["AuthorizationException", f"Authentication error: {said}"]})
    return Answered("login", "failed", line, (INFO, answer(401, body.encode())))


def _account(line: str, user: str, *replies: Reply, shown: bool = True, **fields: str) -> Answered:
    said = (INFO, TOKEN, answer(200, user.encode()), *replies)
    return Answered("account", "failed", line, said, fields=fields, shown=shown)


def _key(line: str, value: str, *, shown: bool = True) -> Answered:
    return Answered("key", "failed", f"the value of REFERENCE {line}", key=value, shown=shown)


PERSON = '{"name": "ann", "body": {"is_service_account": false}}'
FLOWS = '{"name": "flows", "body": {"is_service_account": true}}'
ANSWERS = [
    Answered("URL", "failed", NOT_ZENML, (answer(404),)),
    Answered("URL", "failed", NOT_ZENML, (answer(200, b"<html>", content_type="text/html"),)),
    Answered("URL", "failed", NOT_ZENML, (answer(200, b'{"version": ["canary"]}'),)),
    _refused(
        "URL cannot read the key: it is cut short or damaged where it is stored; store it whole",
        "error decoding API key",
    ),
    _refused(
        "URL does not know the key: it was deleted, or belongs to another server; make a new one "
        "with `zenml service-account api-key … create`",
        "error retrieving API key 7",
    ),
    _refused(
        "URL says that the key was rotated: put the new one into the store",
        "could not verify key value for API key canary",
    ),
    _refused(
        "URL says that the key is not active: `zenml service-account api-key … update … --active "
        "true`",
        "API key canary is not active",
    ),
    _refused(
        "URL says that the service account is not active: `zenml service-account update … --active "
        "true`",
        "service account canary associated with API key canary is not active",
    ),
    _refused("URL refuses the credential (HTTP STATUS): is it of this server?", "canary"),
    Answered(
        "login",
        "failed",
        "URL refuses the credential (HTTP STATUS): is it of this server?",
        (INFO, answer(403, b"<html>canary", content_type="text/html")),
    ),
    *(
        Answered(
            "login",
            "failed",
            "URL/api/v1/login answers STATUS with TYPE, unlike a ZenML server: is a proxy in the "
            "way?",
            (INFO, reply),
        )
        for reply in (
            answer(200, b'{"access_token": ["canary"'),
            answer(200, b'"canary"'),
            answer(200, b'{"access_token": "canary\\nX-Evil: 1"}'),
            answer(400),
        )
    ),
    Answered(
        "token",
        "failed",
        "URL says that the key was rotated after this login: log in again",
        (INFO, TOKEN, answer(401, b'{"detail": "generation that is no longer valid"}')),
    ),
    Answered(
        "token",
        "failed",
        "URL/api/v1/current-user answers STATUS with TYPE, unlike a ZenML server: is a proxy in "
        "the way?",
        (INFO, TOKEN, answer(200, b"[]")),
        shown=False,
    ),
    _account(
        "URL knows this credential as the person 'ann', not as a service account: use the API key "
        "of a service account",
        PERSON,
    ),
    _account(
        "URL knows this key as service account 'flows', not as 'other': correct the reference or "
        "service_account",
        FLOWS,
        service_account="other",
    ),
    _account(
        "service account 'flows' may not see stacks: give it a role for that",
        FLOWS,
        answer(403),
        stack="one",
    ),
    _account(
        "URL/api/v1/stacks answers STATUS with TYPE, unlike a ZenML server: is a proxy in the way?",
        FLOWS,
        answer(200, b'{"items": 3}'),
        shown=False,
        stack="one",
    ),
    _account(
        "URL has no stack 'one' that 'flows' can see: `zenml stack list`",
        FLOWS,
        answer(200, b'{"items": []}'),
        stack="one",
    ),
    Answered(
        "key of ZenML Pro",
        "failed",
        "the key is one of a ZenML Pro organisation (ZENPROKEY_), but the server is not one of "
        "ZenML Pro: use a key of a service account of this server (ZENKEY_)",
        (INFO,),
        "ZENPROKEY_canary",
    ),
    Answered(
        "key of ZenML Pro",
        "unknown",
        "keys of a ZenML Pro organisation are exchanged at ZenML Pro's own API, which mlauth does "
        "not ask: ZenML's client will find out",
        (answer(200, b'{"version": "0.98.0", "pro_api_url": "https://pro.example.com"}'),),
        "ZENPROKEY_canary",
    ),
    _key(
        "has white space in it or around it: store it again without (printf, not echo)", f" {KEY}"
    ),
    _key("is in quotes: store it again without them", f'"{KEY}"'),
    _key("starts with a byte order mark: store it again as plain UTF-8", f"\ufeff{KEY}"),
    _key("is a placeholder: put the real key there", "<your-api-key>"),
    _key(
        "is itself a reference or a URL: put the key there, or name the place it points to",
        "azurekv://acme/key",
    ),
    _key(
        "is not a ZenML API key: keys start with ZENKEY_ (a login token?); name the place of a key",
        "eyJhbGciOi.canary",
    ),
    _key(
        "is not a ZenML API key: keys start with ZENKEY_; name the place of a key",
        "canary-key",
        shown=False,
    ),
    _key("starts like a ZenML API key but is cut short or damaged: store it whole", KEY[:-9]),
]


@dataclass(frozen=True)
class Variables(Row):
    """Variables of the environment, without a profile."""

    variables: Mapping[str, str] = field(default_factory=dict)


def _variables(line: str, **variables: str) -> Variables:
    return Variables("variables", "failed", line, variables)


URL = "https://zenml.example.com"
VARIABLES = [
    _variables(
        "no variable of ZenML is set here (ZENML_STORE_URL, ZENML_STORE_API_KEY), so ZenML would "
        "run on a local store: set them, or name a profile"
    ),
    _variables(
        "ZENML_URL is not read by ZenML, which would run on a local store: the name is "
        "ZENML_STORE_URL",
        ZENML_URL=URL,
    ),
    _variables(
        "ZENML_STORE_URL is not set: ZenML would run on a local store here", ZENML_STORE_API_KEY=KEY
    ),
    _variables("neither ZENML_STORE_API_KEY nor ZENML_STORE_API_TOKEN is set", ZENML_STORE_URL=URL),
    _variables(
        "ZENML_STORE_TYPE is not 'rest', so ZenML does not use ZENML_STORE_URL: remove it",
        ZENML_STORE_URL=URL,
        ZENML_STORE_API_KEY=KEY,
        ZENML_STORE_TYPE="sql",
    ),
    _variables(
        "ZENML_STORE_USERNAME and ZENML_STORE_PASSWORD are set in this environment, and ZenML's "
        "client would log in with a password: remove them where the worker or the container gets "
        "its variables",
        ZENML_STORE_URL=URL,
        ZENML_STORE_API_KEY=KEY,
        ZENML_STORE_USERNAME="me",
        ZENML_STORE_PASSWORD="canary",
    ),
]
ROWS = [*ANSWERS, *VARIABLES]


def _only(report: mlauth.CheckReport) -> tuple[str, str]:
    (line,) = (each.detail for each in report.results if each.status is report.status)
    return report.status.value, line


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row.what)
@pytest.mark.usefixtures("clean_environment")
def test_an_answer_is_one_line_that_says_what_it_means(row: Answered) -> None:
    memory.put("key", row.key)
    with faulty(*row.replies or (answer(200),)) as server:
        fields = {"store_url": server.url, "api_key": "memory://key", **row.fields}
        report = mlauth.check(ZenMLCredentials.of("test", fields))
        assert bool(server.requests) is bool(row.replies)
        sent = any(KEY[:40].encode() in request for request in server.requests)
        assert sent is (len(row.replies) > 1)  # not to what is no ZenML server
    status, line = _only(report)
    line = line.replace(server.url, "URL").replace("memory://key", "REFERENCE")
    line = re.sub(r"answers \d+ with [a-z/]+", "answers STATUS with TYPE", line)
    line = re.sub(r"HTTP \d+", "HTTP STATUS", line)
    assert (status, line) == (row.ends, row.line)
    assert "canary" not in repr(report)


@pytest.mark.parametrize("row", VARIABLES, ids=lambda row: " ".join(row.variables) or "none")
@pytest.mark.usefixtures("clean_environment")
def test_variables_with_which_zenml_cannot_work_are_one_line(
    row: Variables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in row.variables.items():
        monkeypatch.setenv(name, value)
    report = mlauth.check()
    assert _only(report) == (row.ends, row.line)
    assert "canary" not in repr(report)

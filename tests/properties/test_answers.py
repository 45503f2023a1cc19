"""Whatever a service answers, the outcome is a value or one line of ours, in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import mlauth
from mlauth import SecretReference, ZenMLCredentials, masking
from mlauth.azure import tokens as azure_tokens
from mlauth.deadline import Deadline
from mlauth.errors import StoreError
from mlauth.net.faults import wait_of
from mlauth.report import Status
from mlauth.resolving import read_all
from mlauth.stores import memory
from tests.support.azure import Azure
from tests.support.key_vault import Vault
from tests.support.web import Answer, Call, serve
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.process

KEY, TOKEN = api_key(), "c4n4ry-t0ken"  # a service sends back what it was sent
SECONDS = 0.5  # that one question may take, retries of what may pass included

asking = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

text = st.text(st.characters(exclude_categories=[]), max_size=12)
word = text | st.builds("{}{}".format, text, st.sampled_from([TOKEN, KEY]))
scalar = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, 1e400, -1, 2**31]) | word
)
value = st.recursive(
    scalar | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    max_leaves=5,
)
nested = st.integers(1, 20_000).map(lambda depth: b"[" * depth + b"]" * depth)
raw = st.binary(max_size=40) | nested | st.just(b"<html>" + TOKEN.encode()) | st.just(b"9" * 5000)


def fields(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make an object whose fields are right, wrong or missing."""
    return st.fixed_dictionaries(
        {}, optional={name: right | value for name, right in known.items()}
    )


# Transient statuses are left out: they are retried until the deadline, and other tests show that.
status = st.sampled_from([200] * 6 + [201, 204, 301, 307, 400, 401, 403, 404, 409, 418, 501])
headers = st.fixed_dictionaries(
    {},
    optional={
        "Location": st.sampled_from(["/", "http://[", f"https://u:{TOKEN}@h/", "//", "\xff", ""]),
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "nonsense", "\xff"]),
        "WWW-Authenticate": st.sampled_from(
            ["", "Bearer", f"Bearer {TOKEN}", 'Bearer authorization="x", resource="y"', "\xff"]
        ),
        "Retry-After": st.sampled_from(["", "x", "-1", "9" * 400, "Mon, 1 Jan 99999 0:0:0 -0000"]),
    },
)


def answers(body: st.SearchStrategy[Any]) -> st.SearchStrategy[Answer]:
    return st.builds(Answer, status, body | value | raw, headers)


@dataclass
class Settable:
    """A server with right answers, except for those that a test has set.

    Attributes:
        right: its answers, by path.
        wrong: answers that replace them.
    """

    right: Mapping[str, Any]
    wrong: dict[str, Answer] = field(default_factory=dict)
    url: str = ""

    def __call__(self, call: Call) -> Answer:
        if call.path in self.wrong:
            return self.wrong[call.path]
        return Answer(200, self.right[call.path])


INFO, LOGIN, USER = "/api/v1/info", "/api/v1/login", "/api/v1/current-user"
STACKS, PROJECTS = "/api/v1/stacks", "/api/v1/projects"
item = {"name": "one", "id": "11111111-2222-3333-4444-555555555555"}
RIGHT = {
    INFO: {"version": "0.98.0"},
    LOGIN: {"access_token": TOKEN, "expires_in": 3600},
    USER: {"name": "flows", "body": {"is_service_account": True}},
    STACKS: {"items": [item]},
    PROJECTS: {"items": [item]},
}
WRONG = {
    INFO: fields(version=word, pro_api_url=word),
    LOGIN: fields(access_token=word, expires_in=st.integers() | st.floats()),
    USER: fields(name=word, body=fields(is_service_account=st.booleans())),
    STACKS: fields(items=st.lists(fields(name=st.just("one"), id=word), max_size=2)),
    PROJECTS: fields(items=st.lists(fields(name=st.just("one"), id=word), max_size=2)),
}


@pytest.fixture(scope="module")
def zenml() -> Iterator[Settable]:
    """What takes ZenML's place, as no real server can be made to say this."""
    service = Settable(RIGHT)
    with serve(service) as port:
        service.url = f"http://127.0.0.1:{port}"
        yield service


@contextmanager
def in_time() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < SECONDS + 5  # of a machine that has other things to do


def harmless(said: str) -> None:
    assert said.isprintable()
    assert TOKEN not in said
    assert KEY[:40] not in said


@pytest.mark.parametrize("path", RIGHT)
@pytest.mark.usefixtures("clean_environment")
def test_zenmls_answers(zenml: Settable, path: str) -> None:
    memory.put("key", KEY)
    masking.register([TOKEN])  # as after a login that went well
    credentials = ZenMLCredentials.of(
        "test",
        {
            "store_url": zenml.url,
            "api_key": "memory://key",
            "stack": "one",
            "project": "one",
            "credential": "api_token",
        },
    )

    zenml.wrong = {}
    assert mlauth.check(credentials).status is Status.PASSED  # what follows is due to the answer

    @asking
    @given(answers(WRONG[path]))
    @example(Answer(200, RIGHT[path]))
    @example(Answer(401, b"[" * 900 + b"]" * 900))
    def ask(answer: Answer) -> None:
        zenml.wrong = {path: answer}
        with in_time():
            report = mlauth.check(credentials, timeout=SECONDS)
        harmless(report.summary())
        harmless("".join(report.warnings))
        json.dumps(report.to_dict())
        try:
            with mlauth.activate(credentials, timeout=SECONDS):
                pass
        except mlauth.MLAuthError as error:
            harmless(str(error))

    ask()


@asking
@given(st.text(max_size=40) | st.sampled_from(["Mon, 1 Jan 99999999999 00:00:00 GMT"]))
@example("Wed, 21 Oct 2015 07:28:00 -0000")
def test_whatever_a_service_asks_to_wait(header: str) -> None:
    seconds = wait_of(header)
    assert seconds is None or seconds >= 0


key_id = st.builds("https://acme.vault.azure.net/secrets/key/{}".format, word)
times = st.integers() | st.sampled_from([0, 1, 2**40, -(2**40)])
bundle = fields(
    value=word,
    id=key_id,
    attributes=fields(enabled=st.booleans(), exp=times, nbf=times, created=times, updated=times),
    contentType=word,
    tags=st.dictionaries(word, word, max_size=2),
)
refusal = fields(
    error=fields(code=word, message=word, innererror=fields(code=word, innererror=value))
)


def read(vault: Vault) -> None:
    """Read a secret; that is a text, or one line of an error."""
    where = SecretReference.parse(f"azurekv://{vault.name}/key")
    with in_time():
        try:
            secret = read_all([where], Deadline(SECONDS))[where]
        except StoreError as error:
            harmless(str(error))
        else:
            secret.value.get_secret_value().encode()
            harmless(secret.version or "")


@pytest.mark.parametrize("challenged", [False, True])
def test_key_vaults_answers(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, challenged: bool
) -> None:
    """The first answer, and the one to a request with a token."""
    for name, setting in azure.environment().items():
        monkeypatch.setenv(name, setting)
    masking.register([TOKEN, KEY])
    vault = azure.vault()
    vault.put("key", "right")
    if challenged:
        read(vault)  # the SDK remembers the challenge

    @asking
    @given(answers(bundle | refusal))
    @example(Answer(200, {"value": "\ud800", "id": "https://a/secrets/key/1"}))
    def ask(answer: Answer) -> None:
        asked = vault if challenged else azure.vault()
        asked.troubles.clear()
        asked.troubles.say(answer, 20)
        read(asked)

    ask()


@asking
@given(answers(bundle))
def test_what_is_answered_about_a_deleted_secret(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    for name, setting in azure.environment().items():
        monkeypatch.setenv(name, setting)
    masking.register([TOKEN, KEY])
    vault = azure.vault()
    vault.put("key", "right")
    read(vault)
    vault.troubles.fail(404)
    vault.troubles.say(answer, 20)
    read(vault)


token = fields(
    access_token=word,
    expires_on=st.integers() | st.integers().map(str) | word,
    expires_in=st.integers() | word,
    resource=word,
    token_type=word,
    client_id=word,
    error=word,
    error_description=word,
)


@pytest.mark.parametrize("kind", ["environment", "azure_ml", "imds", "service_principal"])
def test_answers_about_tokens(azure: Azure, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    identity = azure.identity("get")
    for name, setting in getattr(azure, kind)(identity).items():
        monkeypatch.setenv(name, setting)
    masking.register([TOKEN, KEY])
    vault = azure.vault()
    vault.put("key", "right")
    read(vault)

    @asking
    @given(answers(token))
    def ask(answer: Answer) -> None:
        azure_tokens.tokens.cache_clear()
        identity.troubles.clear()
        identity.troubles.say(answer, 20)
        read(vault)

    ask()


@pytest.mark.parametrize(
    "host",
    [
        "a..localhost",
        f"{'a' * 64}.localhost",
        f"{'é' * 64}.localhost",
        "\ud800.localhost",
        "a\0.localhost",
        "[::1%25nowhere]",
        "[::1]:0",
        "127.0.0.1:0",
        "127.0.0.1:65535",
        "xn--a.localhost",
        "\u2488.localhost",
        "a_b~!$&'()*+,;=.localhost",
        "127.0.0.1:1/%zz/\ud800",
        "127.0.0.1:1/\\..\\",
    ],
)
def test_a_url_that_leads_nowhere_is_one_line(host: str) -> None:
    memory.put("key", KEY)
    fields = {"store_url": f"http://{host}", "api_key": "memory://key"}
    with in_time():
        try:
            report = mlauth.check(ZenMLCredentials.of("test", fields), timeout=SECONDS)
        except mlauth.MLAuthError as error:
            harmless(str(error))
        else:
            assert report.status is not Status.PASSED
            harmless(report.summary())

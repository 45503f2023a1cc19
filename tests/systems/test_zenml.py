from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest
from pydantic import SecretStr

from mlauth import ZenMLCredentials
from mlauth.errors import InvalidCredentials
from mlauth.testing.systems import ServiceContract
from mlauth.testing.web import Answer, Call
from tests.support.zenml_keys import api_key

TOKEN = "a.login.token"
ID = "11111111-2222-3333-4444-555555555555"

GOOD = {"store_url": "https://zenml.example.com", "api_key": "file:///run/secrets/zenml/api-key"}


def make(**fields: object) -> ZenMLCredentials:
    return ZenMLCredentials.of("zenml_login", {**GOOD, **fields})


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidCredentials) as caught:
        make(**fields)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)
    return str(caught.value)


class TestZenMLCredentials(ServiceContract):
    """A stand-in answers here, because no real server has these faults."""

    system = "zenml"
    secrets: ClassVar = {"api_key": api_key()}
    account = "flows"

    def settings(self) -> dict[str, Any]:
        return {"store_url": self.url}

    def answer(self, call: Call) -> Answer:
        if call.path in {"/api/v1/stacks", "/api/v1/projects"}:
            return Answer(200, {"items": [{"name": "one", "id": ID}]})
        if call.path == "/api/v1/info":
            return Answer(200, {"version": "0.98.0"})
        if call.path == "/api/v1/login":
            given = dict(parse_qsl(call.body.decode())).get("password")
            taken = given == self.secrets["api_key"]
            return Answer(200, {"access_token": TOKEN}) if taken else Answer(401)
        if call.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401)
        return Answer(200, {"name": "flows", "body": {"is_service_account": True}})


class TestZenMLCredentialsThatNeedAProof(TestZenMLCredentials):
    def settings(self) -> dict[str, Any]:
        more = {"credential": "api_token", "stack": "one", "project": "one"}
        return {**super().settings(), **more, "service_account": "flows"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("zenml.example.com", "must start with https://"),
        ("HTTPS://zenml.example.com", "must start with https:// (in lower case)"),
        ("sqlite:///canary.db", "must start with https://"),
        ("https://canary:canary@zenml.example.com", "has a user or password in it"),
        ("https://zenml.example.com/?token=canary", "must be only the server's address"),
        ("https://zenml.example.com#x", "must be only the server's address"),
        ("https://", "must be only the server's address"),
        ("https://zenml.example.com:port", "is not a URL"),
        ("https://zenml.example.com/api/v1", "without /api/v1"),
        ("https://zenml.example.com ", "has white space"),
        ("http://zenml.evil.example\\.localhost", "has a host that programs read differently"),
        ("http://zenml.evil.example%2e.localhost", "has a host that programs read differently"),
        ("https://zenml.evil.example\\@127.0.0.1", "has a user or password in it"),
        ("https://127.0.0.1\\.evil.example", "has a host that programs read differently"),
        ("https://127.0.0.1/\\zenml", "has a host that programs read differently"),
        ("https://\uff5aenml.example.com", "has a host that programs read differently"),
        ("https://zenml。example.com", "has a host that programs read differently"),
        ("https://zenml_prod.example.com", "has a host that programs read differently"),
        ("https://[fe80::1%25eth0]", "has a host that programs read differently"),
        ("https://zenml.example.com:", "has a host that programs read differently"),
        ("https://zenml.example.com:٤٤٣", "is not a URL"),
        ("https://zenml.example.com:99999", "is not a URL"),
        ("http://127.1", "http would send the key over the network in clear"),
        ("http://0x7f.1", "http would send the key over the network in clear"),
        ("http://localhost.", "http would send the key over the network in clear"),
        ("{{ prefect.variables.url }}", "is a template that nothing replaced"),
        ("", "must start with https://"),
        ("http://zenml.example.com", "http would send the key over the network in clear"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, said: str) -> None:
    message = refusal(store_url=url)
    assert message.startswith("zenml_login: store_url: ")
    assert said in message


def test_http_is_for_this_machine_or_for_who_asks_for_it_by_name() -> None:
    assert make(store_url="http://127.0.0.1:8237/").store_url == "http://127.0.0.1:8237"
    assert make(store_url="http://zenml.example.com", allow_insecure=True)
    assert make(store_url="https://zenml.example.com/zenml/").store_url.endswith("/zenml")
    assert make(store_url="https://[2001:db8::1]:8443").store_url == "https://[2001:db8::1]:8443"
    assert make(store_url="https://XN--MGBH0FB.example").store_url == "https://XN--MGBH0FB.example"


def test_other_fields_are_looked_at_too() -> None:
    assert "service_account: is empty" in refusal(service_account=" ")
    assert "stack: is a template that nothing replaced" in refusal(stack="{{ x.stack }}")
    assert "credential: Input should be 'api_key' or 'api_token'" in refusal(credential="canary")
    assert "api_key: a literal" in refusal(api_key=None)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("\ufeff" + api_key(), "byte order mark"),
        (api_key() + "\n", "white space"),
        (" " + api_key(), "white space"),
        (f'"{api_key()}"', "is in quotes"),
        ("file:///run/secrets/key", "is itself a reference"),
        ("<your-api-key>", "is a placeholder"),
        ("changeme", "is a placeholder"),
        ("your-api-key", "is a placeholder"),
        ("XXXXXXXX", "is a placeholder"),
        ("${ZENML_API_KEY}", "is a placeholder"),
        ("***", "is a placeholder"),
        ("eyJhbGciOi.canary.x", "keys start with ZENKEY_ (a login token?)"),
        ("hf_canary", "is not a ZenML API key"),
        ("", "is not a ZenML API key"),
        (api_key()[:-9], "cut short or damaged"),
        ("ZENKEY_", "cut short or damaged"),
        ("ZENKEY_" + "e30=", "cut short or damaged"),
        ("ZENKEY_WzFd", "cut short or damaged"),
    ],
)
def test_a_key_of_the_wrong_shape_says_what_is_wrong(key: str, said: str) -> None:
    problem = make().malformed({"api_key": SecretStr(key)})
    assert problem is not None
    assert problem.startswith("the value of file:///run/secrets/zenml/api-key ")
    assert said in problem
    assert "canary" not in problem


def test_keys_of_the_right_shape_are_taken() -> None:
    for key in (api_key(), "ZENPROKEY_anything"):
        assert make().malformed({"api_key": SecretStr(key)}) is None


@pytest.mark.parametrize(("wrong", "right"), ZenMLCredentials.near_misses.items())
def test_a_near_miss_of_a_variable_is_warned_about(wrong: str, right: str) -> None:
    (warning,) = make().configured({wrong: "canary"})
    assert warning == f"{wrong} is ignored by ZenML (it reads {right}): remove it"


@pytest.mark.parametrize("names", [["ZENML_STORE_USERNAME"], ["ZENML_STORE_PASSWORD"]])
def test_a_left_over_password_is_one_clear_error(names: list[str]) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        make().configured(dict.fromkeys(names, ""))
    assert str(caught.value).startswith(f"{names[0]} is set in this environment")
    assert "remove them where the worker or the container gets its variables" in str(caught.value)


def test_a_ca_bundle_that_is_not_there_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidCredentials, match=r"nowhere.pem does not exist: correct ca_bundle"):
        make(ca_bundle=str(tmp_path / "nowhere.pem")).configured({})


@pytest.mark.parametrize("off", ["false", "0", "no", "OFF"])
def test_tls_that_is_switched_off_for_the_flow_is_warned_about(off: str) -> None:
    (warning,) = make().configured({"ZENML_STORE_VERIFY_SSL": off})
    assert "mlauth verifies TLS all the same" in warning
    assert make().configured({"ZENML_STORE_VERIFY_SSL": "true"}) == []


def test_without_asking_the_server_names_cannot_become_ids() -> None:
    values = {"api_key": SecretStr(api_key())}
    exports = make(service_account="prefect-prod").exports(values, None)
    assert exports.settings == {"ZENML_STORE_URL": "https://zenml.example.com"}
    assert list(exports.secrets) == ["ZENML_STORE_API_KEY"]
    assert exports.emptied == ("ZENML_STORE_API_TOKEN",)
    for fields in ({"stack": "s"}, {"project": "p"}, {"credential": "api_token"}):
        with pytest.raises(InvalidCredentials, match="cannot be used without asking the server"):
            make(**fields).exports(values, None)


def test_a_store_of_another_type_is_no_longer_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENML_STORE_TYPE", "sql")
    exports = make().exports({"api_key": SecretStr(api_key())}, None)
    assert exports.settings["ZENML_STORE_TYPE"] == "rest"

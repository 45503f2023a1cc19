from __future__ import annotations

import pickle

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from mlauth import SecretReference
from mlauth.errors import InvalidReference

CANARY = "ZENKEY_eyJpZCI6ImNhbmFyeSJ9"


@pytest.mark.parametrize(
    ("text", "parts", "key"),
    [
        ("env://HF_TOKEN", ["HF_TOKEN"], None),
        ("file:///run/secrets/api-key", ["", "run", "secrets", "api-key"], None),
        ("file:///run/secrets/tokens.json#zenml", ["", "run", "secrets", "tokens.json"], "zenml"),
        ("file:///a%20b", ["", "a b"], None),
        ("file:///a%23b#c%20d", ["", "a#b"], "c d"),
        ("memory://some/name", ["some", "name"], None),
        ("memory://acme/DOMAIN%2Fuser", ["acme", "DOMAIN/user"], None),
        ("memory://a%3Fb/%252F#%23", ["a?b", "%2F"], "#"),
    ],
)
def test_a_reference_is_parsed_and_formatted_back(
    text: str, parts: list[str], key: str | None
) -> None:
    reference = SecretReference.parse(text)
    assert (reference.place.parts, reference.key) == (tuple(parts), key)
    assert str(reference) == text
    assert SecretReference.parse(str(reference)) == reference
    assert hash(SecretReference.parse(text)) == hash(reference)
    assert pickle.loads(pickle.dumps(reference)) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vaultt://a/b", "no store is called 'vaultt'; mlauth knows "),
        ("file://relative/path", "the path is not absolute"),
        ("file:///run/secrets/", "does not name a file"),
        ("file:/run/secrets/key", "file references start with 'file://'"),
        ("file:///x#", "has an empty part after '#'"),
        ("file:///x?", "has an empty part after '?'"),
        ("file:///x?version=", "has an option without a value"),
        ("file:///x?=3", "has an option without a name"),
        ("file:///x?verison=3", "has the unknown option 'verison'"),
        ("file:///x?a=1&a=2", "has the option 'a' twice"),
        ("file:///%ff", "not UTF-8"),
        ("env://", "is not the name of a variable"),
        ("env://A-B", "is not the name of a variable"),
        ("env:HF_TOKEN", "env references start with 'env://'"),
        ("memory://", "the name, or a part of it, is empty"),
        ("memory://a//b", "the name, or a part of it, is empty"),
        ("file:///run%2Fsecrets/key", "no file or directory has a slash (%2F) in its name"),
        ("", "an empty text"),
        ("  ", "an empty text"),
        ("{{ prefect.blocks.secret.key }}", "a template that nothing replaced"),
        ("$ZENML_API_KEY", "a template that nothing replaced"),
    ],
)
def test_a_malformed_reference_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        SecretReference.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "literal",
    [
        CANARY,
        "hf_canaryCanaryCanaryCanary",
        "s3cr3t-canary",
        "https://user:canary@host/path",
        f"env://{CANARY}",
        f"file:///run/{CANARY}",
        "Bearer canary://",
        "a canary with spaces",
    ],
)
def test_a_literal_is_refused_and_never_echoed(literal: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        SecretReference.parse(literal)
    assert "canary" not in str(caught.value).lower()
    assert "eyJ" not in str(caught.value)


def test_the_refusal_of_a_literal_says_to_rotate_it() -> None:
    with pytest.raises(InvalidReference, match="probably been stored in clear: rotate it"):
        SecretReference.parse(CANARY)


class Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    secret: SecretReference


@pytest.mark.parametrize("value", [CANARY, 3, None, [CANARY], {"a": CANARY}])
def test_a_model_refuses_a_literal_without_showing_it(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Model(secret=value)  # type: ignore[arg-type]
    assert "canary" not in str(caught.value)
    assert "eyJ" not in str(caught.value)


def test_a_model_takes_and_gives_references_as_text() -> None:
    model = Model.model_validate({"secret": "env://A"})
    assert model.secret == SecretReference.parse("env://A")
    assert Model(secret=model.secret) == model
    assert model.model_dump_json() == '{"secret":"env://A"}'
    assert Model.model_json_schema()["properties"]["secret"]["type"] == "string"

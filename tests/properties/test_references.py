"""Whatever text is given, the outcome is a reference, or an error of ours that repeats nothing."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from mlauth import SecretReference, stores
from mlauth.errors import InvalidReference
from mlauth.stores import Place

CANARY = "c4n4ry-Hunter2"

text = st.text(st.characters(exclude_categories=[]), max_size=40)  # lone surrogates as well
key = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)

# What each store can name; a new store joins here.
name = string.ascii_letters + string.digits
version = st.text("0123456789abcdef", min_size=32, max_size=32)
PARTS = {
    "azurekv": st.tuples(
        st.builds(
            "v{}{}".format,
            st.text(name, min_size=4, max_size=20),
            st.sampled_from(["", ".vault.azure.net", ".vault.azure.cn", ".example.com:8443"]),
        ),
        st.text(name + "-", min_size=1, max_size=127),
    ),
    "env": st.tuples(st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)),
    "file": st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/")), max_size=4
    ).map(lambda names: ("", *names, "key")),
    "memory": st.lists(key, min_size=1, max_size=4).map(tuple),
}
OPTIONS = {"azurekv": st.fixed_dictionaries({}, optional={"version": version})}


def test_every_store_has_its_own_inputs_here() -> None:
    assert set(PARTS) == set(stores.schemes())


@pytest.mark.parametrize("scheme", stores.schemes())
@given(data=st.data())
def test_format_and_parse_are_inverse(scheme: str, data: st.DataObject) -> None:
    place = Place(data.draw(PARTS[scheme]), data.draw(OPTIONS.get(scheme, st.just({}))))
    reference = SecretReference(scheme, place, data.draw(st.none() | key))
    try:
        parsed = SecretReference.parse(str(reference))
    except InvalidReference as error:  # it looks like a key of a known kind
        assert "rotate it" in str(error)
    else:
        assert parsed == reference
        assert str(parsed) == str(reference)
        assert hash(parsed) == hash(reference)
        assert SecretReference.parse(str(parsed.whole())) == parsed.whole()


def parsed_or_refused(written: str) -> str:
    try:
        reference = SecretReference.parse(written)
    except InvalidReference as error:
        assert str(error).isprintable()
        return str(error)
    assert SecretReference.parse(str(reference)) == reference
    return ""


near = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", *stores.schemes(), "vaultt"]),
    st.sampled_from([":", ":/", "://", ":///"]),
    st.text("ab/.:@?#&=% \n\x1b\0é\udc80", max_size=20) | text,
    st.sampled_from(["", "?", "#", "?version=1", "?version=1&version=2", "#k", "?#", "%ff", "%"]),
)


@given(text | near)
def test_whatever_the_text_the_answer_is_a_reference_or_one_line(written: str) -> None:
    parsed_or_refused(written)


# Where a person puts the secret itself, or a URL with it.
PLACES = [
    "{}",
    "{}=",
    "Bearer {}",
    "env:{}",
    "env://{}",
    "file:{}",
    "file://{}",
    "file://user:{}@host/path",
    "file:///path?version={}",
    "azurekv://{}",
    "azurekv://acme-prod/{}!",
    "azurekv://user:{}@acme.vault.azure.net/key",
    "azurekv://acme-prod/key?version={}",
    "azurekv://acme-prod/key?version=1&version={}",
    "https://user:{}@host/path",
    "{{{{ {} }}}}",
    "${}",
]


@pytest.mark.parametrize("place", PLACES)
@given(before=text, after=text)
def test_a_secret_in_the_place_of_a_name_is_not_echoed(place: str, before: str, after: str) -> None:
    for literal in (
        CANARY,
        before + CANARY,
        CANARY + after,
        quote(CANARY + after, errors="replace"),
    ):
        said = parsed_or_refused(place.format(literal))
        assert CANARY not in said


class Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    secret: SecretReference


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.just(CANARY) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=5,
)


@given(anything)
def test_a_model_takes_a_reference_or_says_in_one_line_what_is_wrong(value: object) -> None:
    try:
        model = Model(secret=value)  # type: ignore[arg-type]
    except ValidationError as error:
        assert CANARY not in str(error)
    else:
        assert Model.model_validate_json(model.model_dump_json()) == model

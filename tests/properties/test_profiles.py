"""Whatever is in `mlauth.toml`, the outcome is a profile, or one line that repeats no value."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlauth.errors import InvalidProfile
from mlauth.profiles import Profile, load_profile

CANARY = "c4n4ry-Hunter2"

pytestmark = pytest.mark.usefixtures("file")
in_one_file = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mlauth.toml"


def loaded(file: Path, content: bytes, name: str = "prod") -> Profile | None:
    file.write_bytes(content)
    try:
        return load_profile(name, str(file))
    except InvalidProfile as error:
        assert str(error).startswith(str(file))
        assert str(error).isprintable()
        assert CANARY not in str(error)
        return None


@in_one_file
@given(st.binary() | st.text("[]profiles.dzenm =\"'\n{}#,\\u0éx-9:T").map(str.encode))
def test_whatever_the_bytes_the_answer_is_a_profile_or_one_line(file: Path, content: bytes) -> None:
    loaded(file, content)


@pytest.mark.parametrize(
    "content",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 100_000,
        "a." * 5_000 + "a = 1",
        "a = 9" + "9" * 10_000,
        "a = 1e999999",
        "a = 0000-00-00",
        "profiles = 3",
        '"a\\nb" = 1',
        "_cli_parse_args = true",
        "_env_file = '.env'",
        "_secrets_dir = 3",
        "__pydantic_self__ = 1",
        "self = 1",
        "[profiles.prod]\nmodel_config = 1",
        "[profiles.prod]\n__class__ = 1",
        '[profiles.prod.env]\n"A\\nB" = "env://C"',
        '[profiles."a\\nb".env]\nA = "env://C"',
    ],
    ids=lambda content: content[:20],
)
def test_input_that_breaks_parsers_is_refused_in_one_line(file: Path, content: str) -> None:
    assert loaded(file, content.encode()) is None


def toml(value: Any) -> str:
    """Write a value as TOML; of our types JSON's spelling is TOML's, but for these."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else "nan"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
literal = st.builds("{}{}".format, text, st.just(CANARY))
value = st.recursive(
    literal | text | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)
reference = st.sampled_from(["env://A", "file:///a/b", "memory://a", "azurekv://acme/key"])
url = st.sampled_from(
    [
        "https://zenml.example.com",
        f"https://user:{CANARY}@zenml.example.com",
        f"https://zenml.example.com?key={CANARY}",
        f"https://zenml.example.com/{CANARY}#",
        f"http://{CANARY}.example.com",
        "https://[::1",
        "https://a:99999",
        "https://a:b",
        "https://\u2100.example.com",
    ]
) | text.map("https://{}".format)
zenml = st.fixed_dictionaries(
    {},
    optional={
        "store_url": url | value,
        "api_key": reference | value,
        "service_account": text | value,
        "stack": text | value,
        "credential": st.sampled_from(["api_key", "api_token", "password"]) | value,
        "ca_bundle": text | value,
        "allow_insecure": st.booleans() | value,
    },
)
names = st.text(string.ascii_uppercase + "_0 \n", max_size=8)
near = st.fixed_dictionaries(
    {},
    optional={
        "zenml": zenml | value,
        "env": st.dictionaries(names, reference | value, max_size=3) | value,
        "expired": st.sampled_from(["refuse", "warn", CANARY]) | value,
        "zenlm": value,
    },
)


def written(content: Mapping[str, Any]) -> bytes:
    return "\n".join(f"{json.dumps(k)} = {toml(v)}" for k, v in content.items()).encode()


def sections(profile: Profile) -> dict[str, Any]:
    """The profile, as a person writes it."""
    content = profile.model_dump(exclude_none=True, mode="json")
    if "env" in content["systems"]:
        content["systems"]["env"] = content["systems"]["env"]["env"]
    return {**content["systems"], **content["parts"], "expired": content["expired"]}


ZENML = {"store_url": "https://zenml.example.com", "api_key": "env://A"}


@in_one_file
@given(st.dictionaries(st.sampled_from(["prod", "dev"]), near | value, max_size=2))
@example({"prod": {"zenml": ZENML}})
@example({"prod": {"zenml": ZENML, "env": {"B": "env://C"}, "expired": "warn"}})
def test_a_profile_that_is_nearly_right_is_taken_or_says_what_is_wrong(
    file: Path, profiles: dict[str, Any]
) -> None:
    profile = loaded(file, written({"profiles": profiles}))
    if profile is not None:  # then it is one that can be written and read again
        again = loaded(file, written({"profiles": {"prod": sections(profile)}}))
        assert again == profile


@in_one_file
@given(st.dictionaries(text, value, max_size=3))
def test_whatever_the_tables_the_answer_is_a_profile_or_one_line(
    file: Path, content: dict[str, Any]
) -> None:
    assert loaded(file, written(content)) is None


@in_one_file
@given(name=st.text(st.characters(exclude_categories=[])))
def test_whatever_the_name_that_is_asked_for(file: Path, name: str) -> None:
    assert loaded(file, b"[profiles.prod.env]", name) is None

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest
from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic_core import PydanticSerializationError, to_jsonable_python

import mlauth
from mlauth.errors import (
    InvalidReference,
    ResolutionError,
    SecretNotFound,
    SecretUnusable,
    StoreUnavailable,
)
from mlauth.stores import Place, memory

CANARY = "canary-51"


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    memory.put("plain", CANARY)
    memory.put("json", f'{{"a": "{CANARY}", "n": 3, "empty": "", "nested": {{"x": "{CANARY}"}}}}')
    yield
    memory.clear()


def test_one_reference_gives_a_secret_that_shows_nothing() -> None:
    value = mlauth.resolve("memory://plain")
    assert value.get_secret_value() == CANARY
    assert CANARY not in f"{value} {value!r}"


def test_a_secret_stays_itself_in_copies_and_is_no_task_result_on_disk() -> None:
    value = mlauth.resolve("memory://plain")
    for dumps in (pickle.dumps, cloudpickle.dumps):  # Prefect stores results with the latter
        with pytest.raises(TypeError, match="pass the secret's reference on instead"):
            dumps({"result": value})
    assert copy.deepcopy([value]) == [copy.copy(value)] == [value]
    same = SecretStr(CANARY)
    assert (value == same, same == value, hash(value) == hash(same)) == (True, True, True)
    assert value != SecretStr("another")
    assert value != CANARY


class Holding(BaseModel):
    token: SecretStr


@pytest.mark.parametrize("hold", [lambda it: it, lambda it: [it], lambda it: Holding(token=it)])
def test_json_refuses_a_secret_which_it_would_write_like_any_other(hold: Any) -> None:
    """Prefect makes the cache key of a task from its inputs as JSON."""
    value = hold(mlauth.resolve("memory://plain"))
    with pytest.raises(PydanticSerializationError, match="pass the secret's reference") as caught:
        to_jsonable_python(value)
    with pytest.raises(PydanticSerializationError, match="pass the secret's reference"):
        TypeAdapter(type(value)).dump_json(value)
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(value)
    assert CANARY not in repr(TypeAdapter(type(value)).dump_python(value))
    assert copy.deepcopy(value) == value


def test_many_references_come_back_under_the_names_they_were_asked_for() -> None:
    values = mlauth.resolve({"one": "memory://plain", "two": "memory://json#a"})
    assert {name: value.get_secret_value() for name, value in values.items()} == {
        "one": CANARY,
        "two": CANARY,
    }
    assert mlauth.resolve({}) == {}


def test_a_secret_that_several_references_name_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[str] = []
    real = memory.Store.read

    def read(self: memory.Store, place: Place, *, timeout: float):  # type: ignore[no-untyped-def]
        reads.append(str(place))
        return real(self, place, timeout=timeout)

    monkeypatch.setattr(memory.Store, "read", read)
    mlauth.resolve({"a": "memory://json#a", "b": "memory://json", "c": "memory://json#a"})
    assert reads == ["json"]


def test_all_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(ResolutionError) as caught:
        mlauth.resolve({"a": "memory://x", "b": "memory://plain", "c": "memory://y"})
    assert [type(error) for error in caught.value.errors] == [SecretNotFound, SecretNotFound]
    message = str(caught.value)
    assert message.startswith("2 secrets could not be read: memory://x")
    assert "memory://y" in message
    assert "\n" not in message


def test_one_that_is_wrong_is_raised_as_what_it_is() -> None:
    with pytest.raises(SecretNotFound):
        mlauth.resolve({"a": "memory://x", "b": "memory://plain"})
    with pytest.raises(InvalidReference):
        mlauth.resolve("plain")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("memory://plain#a", "is not a JSON object, so it has no key 'a'"),
        ("memory://json#b", "has no key 'b' (it has 4 others)"),
        ("memory://json#n", "the value of 'n' is not a JSON string"),
        ("memory://json#nested", "the value of 'nested' is not a JSON string"),
        ("memory://json#empty", "the value of 'empty' is empty"),
    ],
)
def test_a_key_that_cannot_be_picked_is_an_error_never_nothing(reference: str, said: str) -> None:
    with pytest.raises(SecretUnusable) as caught:
        mlauth.resolve(reference)
    assert said in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_secret_nested_too_deep_to_read_is_no_crash() -> None:
    memory.put("deep", "[" * 100_000)
    with pytest.raises(SecretUnusable):
        mlauth.resolve("memory://deep#a")


def test_a_store_that_hangs_is_given_up_and_the_others_are_not_to_blame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = threading.Event()
    real = memory.Store.read

    def read(self: memory.Store, place: Place, *, timeout: float):  # type: ignore[no-untyped-def]
        if place.parts == ("hangs",):
            hang.wait(30)
        return real(self, place, timeout=timeout)

    monkeypatch.setattr(memory.Store, "read", read)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"memory://hangs .* no answer within 0.5 s"):
        mlauth.resolve({"a": "memory://hangs", "b": "memory://plain"}, timeout=0.5)
    assert time.monotonic() - start < 10
    hang.set()


def test_references_are_read_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)
    real = memory.Store.read

    def read(self: memory.Store, place: Place, *, timeout: float):  # type: ignore[no-untyped-def]
        together.wait(20)  # raises an error unless three threads are here at once
        return real(self, place, timeout=timeout)

    monkeypatch.setattr(memory.Store, "read", read)
    for name in "abc":
        memory.put(name, CANARY)
    assert len(mlauth.resolve({name: f"memory://{name}" for name in "abc"})) == 3


def test_an_error_carries_no_frames_with_values_in_their_locals() -> None:
    with pytest.raises(SecretUnusable) as caught:
        mlauth.resolve("memory://json#n")
    assert caught.value.__cause__ is None
    frames = caught.traceback
    assert not any(
        CANARY in repr(entry.locals) for entry in frames if "resolving" in str(entry.path)
    )

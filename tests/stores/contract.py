"""What every store does. A store joins by a subclass that says how a secret gets into it."""

from __future__ import annotations

import threading

import pytest
from pydantic import SecretStr

from mlauth import SecretReference, stores
from mlauth.deadline import Deadline
from mlauth.errors import (
    RotationFailed,
    SecretNotFound,
    SecretUnusable,
    StoreError,
    StoreUnavailable,
)
from mlauth.stores import SecretStore, WritableStore

CANARY = "canary-3f9a"


VALUES = [
    CANARY,
    f"{CANARY} with spaces ",
    f"two\n{CANARY}\nlines",
    f'{{"json": "{CANARY}"}}',
    f"ünï¢ødé {CANARY} 漢字 🗝",
    f"{CANARY}\"'\\$`%&#?=",
    CANARY * 2000,
]


class StoreContract:
    scheme: str

    def put(self, value: str) -> str:
        """Store a value and return the reference to it."""
        raise NotImplementedError

    def missing(self) -> str:
        """Return a well-formed reference to what is not there."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> SecretStore:
        return stores.new_store(self.scheme)

    @pytest.mark.parametrize("value", VALUES)
    def test_a_value_comes_back_as_it_was_stored(self, store: SecretStore, value: str) -> None:
        reference = SecretReference.parse(self.put(value))
        assert store.read(reference, timeout=20).value.get_secret_value() == value

    def test_what_is_not_there_has_a_type_of_its_own(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.missing())
        with pytest.raises(SecretNotFound) as caught:
            store.read(reference, timeout=20)
        assert str(reference) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_an_empty_value_is_an_error_and_not_a_secret(self, store: SecretStore) -> None:
        with pytest.raises(StoreError) as caught:
            store.read(SecretReference.parse(self.put("")), timeout=20)
        assert "empty" in str(caught.value)

    def test_nothing_shows_the_value(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        secret = store.read(reference, timeout=20)
        shown = f"{secret!r} {secret} {store!r} {vars(store)} {store.describe(reference)!r}"
        assert CANARY not in shown

    def test_a_reference_is_explained_without_reading_it(self, store: SecretStore) -> None:
        for reference in (self.put(CANARY), self.missing()):
            access = store.describe(SecretReference.parse(reference))
            assert access.place
            assert access.identity

    def test_the_form_shown_in_messages_is_a_reference(self) -> None:
        assert SecretReference.parse(stores.form(self.scheme)).scheme == self.scheme


class WritableStoreContract(StoreContract):
    """What every store does that can be written to."""

    @pytest.fixture
    def writable(self, store: SecretStore) -> WritableStore:
        assert isinstance(store, WritableStore)
        return store

    @pytest.mark.parametrize("value", [*VALUES, f"{CANARY}\n", f"{CANARY}\r\n", f"{CANARY}\n\n"])
    def test_what_is_written_is_what_is_read_next(
        self, writable: WritableStore, value: str
    ) -> None:
        reference = SecretReference.parse(self.put("what was there before"))
        version = writable.write(reference, SecretStr(value), timeout=20)
        secret = stores.new_store(self.scheme).read(reference, timeout=20)
        assert secret.value.get_secret_value() == value
        assert secret.version == version

    def test_what_was_not_there_is_made(self, writable: WritableStore) -> None:
        reference = SecretReference.parse(self.missing())
        writable.write(reference, SecretStr(CANARY), timeout=20)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    @pytest.mark.parametrize("value", ["", "a" * (1024 * 1024 + 1), "half of a \ud83d"])
    def test_what_could_not_be_read_is_not_written(
        self, writable: WritableStore, value: str
    ) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        with pytest.raises(SecretUnusable, match="cannot be written: "):
            writable.write(reference, SecretStr(value), timeout=20)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    def test_one_value_of_a_secret_cannot_be_written(self, writable: WritableStore) -> None:
        reference = SecretReference.parse(self.put(f'{{"json": "{CANARY}"}}') + "#json")
        with pytest.raises(SecretUnusable, match=r"cannot be written: name .* key") as caught:
            writable.write(reference, SecretStr(CANARY), timeout=20)
        assert CANARY not in str(caught.value)

    def test_proving_that_it_can_be_written_changes_no_value(self, writable: WritableStore) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        before = writable.read(reference, timeout=20)
        writable.prove_writable(reference, timeout=20)
        after = writable.read(reference, timeout=20)
        assert (after.value, after.version) == (before.value, before.version)

    def test_one_value_of_a_secret_cannot_be_proven_writable(self, writable: WritableStore) -> None:
        reference = SecretReference.parse(self.put(f'{{"json": "{CANARY}"}}') + "#json")
        with pytest.raises(SecretUnusable, match=r"cannot be written: name .* key"):
            writable.prove_writable(reference, timeout=20)

    def test_who_writes_may_look_once_more_right_before_it(self, writable: WritableStore) -> None:
        reference, said = SecretReference.parse(self.put(CANARY)), RotationFailed("not now")

        def look() -> None:
            assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY
            raise said

        with pytest.raises(RotationFailed) as caught:
            writable.write(reference, SecretStr("another"), timeout=20, before=look)
        assert caught.value is said
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    def test_no_write_begins_when_the_time_is_up(self, writable: WritableStore) -> None:
        reference, time = SecretReference.parse(self.put(CANARY)), Deadline(0.3)

        def wait() -> None:
            while time.remaining():
                threading.Event().wait(0.05)

        with pytest.raises(
            StoreUnavailable, match=r"was not (written|asked), because no time was left"
        ):
            writable.write(reference, SecretStr("another"), timeout=0.2, before=wait)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

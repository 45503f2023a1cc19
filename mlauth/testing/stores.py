"""The contract suite for stores: for those of mlauth, and for those of other packages.

It needs pytest, which mlauth does not install. To run it for a store, write a class that says how a
secret gets into the store:

    from mlauth.testing.stores import WritableStoreContract

    class TestAcme(WritableStoreContract):
        scheme = "acme"
        sdk = ("acme_client",)

        @pytest.fixture(autouse=True)
        def _server(self, server):   # the service of the store, a new one for each test
            self.server = server

        def put(self, value):
            self.server.secrets["key"] = value
            return "acme://team/key"

        def missing(self):
            return "acme://team/missing"

The suite finds the store by its scheme, so its distribution must be installed (editable works). In
a `conftest.py`, `pytest.register_assert_rewrite("mlauth.testing.stores")` makes failures say more.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from abc import ABC, abstractmethod

import pytest
from pydantic import SecretStr

import mlauth
from mlauth import SecretReference, stores
from mlauth.deadline import Deadline
from mlauth.errors import (
    InvalidReference,
    RotationFailed,
    SecretDenied,
    SecretNotFound,
    SecretUnusable,
    StoreError,
    StoreUnavailable,
)
from mlauth.storing import SecretStore

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
# Parts of a place that a person may write by mistake or on purpose.
ODD_PARTS = [
    ("",),
    ("", ""),
    ("a", ""),
    ("", "a"),
    ("a", "b", "c", "d", "e"),
    (CANARY, f"{CANARY}/{CANARY}"),
    (f"{CANARY}\n", f"\0{CANARY}"),
    ("..", ".."),
    (f"user:{CANARY}@host", "a"),
    ("é🗝" + CANARY, " "),
]


def _is_a_line(said: str) -> bool:
    return bool(said) and said.isprintable()


class StoreContract(ABC):
    """The tests for every store.

    Attributes:
        scheme: the scheme of the store.
        sdk: the modules that are imported at the first read, and not before.
    """

    scheme: str
    sdk: tuple[str, ...] = ()

    @abstractmethod
    def put(self, value: str) -> str:
        """Put a value into the store, replace an earlier one, and return its reference.

        In one test, the reference must always be the same.
        """

    @abstractmethod
    def missing(self) -> str:
        """Return a well-formed reference to a secret that does not exist."""

    @pytest.fixture
    def store(self) -> SecretStore:
        """The store, as mlauth uses it."""
        return SecretStore(self.scheme)

    @pytest.mark.parametrize("value", VALUES)
    def test_a_value_comes_back_as_it_was_stored(self, store: SecretStore, value: str) -> None:
        reference = SecretReference.parse(self.put(value))
        assert store.read(reference, timeout=20).value.get_secret_value() == value
        assert mlauth.resolve(reference, timeout=20).get_secret_value() == value

    def test_one_key_of_a_secret_that_holds_several(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.put(f'{{"a": "another", "b": "{CANARY}"}}') + "#b")
        assert store.read(reference, timeout=20).value.get_secret_value() == CANARY

    def test_what_is_not_there_has_a_type_of_its_own(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.missing())
        with pytest.raises(SecretNotFound) as caught:
            store.read(reference, timeout=20)
        assert _is_a_line(str(caught.value))
        assert str(caught.value).startswith(f"{reference} cannot be read: ")
        assert str(caught.value).count(str(reference)) == 1  # mlauth says it for all stores

    def test_an_empty_value_is_an_error_and_not_a_secret(self, store: SecretStore) -> None:
        with pytest.raises(StoreError, match="empty"):
            store.read(SecretReference.parse(self.put("")), timeout=20)

    def test_nothing_shows_the_value(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        secret, made = store.read(reference, timeout=20), stores.new_store(self.scheme)
        assert made.read(reference.place, timeout=20).value == secret.value
        shown = f"{secret!r} {secret} {made!r} {vars(made)} {made.describe(reference.place)!r}"
        assert CANARY not in shown

    def test_a_reference_is_explained_without_reading_it(self, store: SecretStore) -> None:
        for reference in (self.put(CANARY), self.missing()):
            access = store.describe(SecretReference.parse(reference))
            assert access.place
            assert access.identity
            assert all(map(_is_a_line, access.notes))

    def test_the_form_shown_in_messages_is_a_reference(self) -> None:
        grammar = stores.grammar(self.scheme)
        assert grammar is not None
        reference = SecretReference.parse(grammar.form)
        assert reference.scheme == self.scheme
        assert str(reference) == grammar.form

    def test_a_reference_is_the_same_when_it_is_written_and_parsed_again(self) -> None:
        for text in (self.put(CANARY), self.missing()):
            reference = SecretReference.parse(text)
            assert SecretReference.parse(str(reference)) == reference

    @pytest.mark.parametrize("parts", ODD_PARTS)
    def test_what_is_no_place_is_refused_in_a_line_that_does_not_repeat_it(
        self, parts: tuple[str, ...]
    ) -> None:
        grammar = stores.grammar(self.scheme)
        assert grammar is not None
        problem = grammar.problem(parts)
        assert problem is None or (_is_a_line(problem) and CANARY not in problem)

    @pytest.mark.parametrize("value", ["", "3", CANARY, "latest", "é", "../.."])
    def test_an_option_is_taken_or_refused_in_a_line_that_does_not_repeat_it(
        self, value: str
    ) -> None:
        grammar = stores.grammar(self.scheme)
        assert grammar is not None
        for problem in (check(value) for check in grammar.options.values()):
            assert problem is None or (_is_a_line(problem) and CANARY not in problem)

    def test_an_option_that_it_does_not_know_is_refused(self) -> None:
        with pytest.raises(InvalidReference, match="unknown option 'no-such-option'"):
            SecretReference.parse(self.missing() + "?no-such-option=1")

    def test_parsing_and_constructing_import_no_sdk(self) -> None:
        code = (
            "import sys; from mlauth import SecretReference\n"
            "from mlauth.storing import SecretStore\n"
            "SecretStore(SecretReference.parse(sys.argv[1]).scheme)\n"
            "print([name for name in sys.argv[2:] if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.missing(), *self.sdk],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "[]", done.stderr


class RemoteStoreContract(StoreContract):
    """The tests for every store that asks a service."""

    @abstractmethod
    def denied(self) -> str:
        """Return a reference to a secret that this process may not read."""

    @abstractmethod
    def unavailable(self) -> str:
        """Return a reference to a secret whose store does not answer, or answers with a 5xx."""

    def test_what_may_not_be_read_has_a_type_of_its_own(self, store: SecretStore) -> None:
        reference = SecretReference.parse(self.denied())
        with pytest.raises(SecretDenied) as caught:
            store.read(reference, timeout=20)
        assert _is_a_line(str(caught.value))

    def test_a_store_that_does_not_answer_says_nothing_of_the_secret(
        self, store: SecretStore
    ) -> None:
        reference = SecretReference.parse(self.unavailable())
        with pytest.raises(StoreUnavailable) as caught:
            store.read(reference, timeout=1)
        assert _is_a_line(str(caught.value))

    def test_the_hosts_that_get_a_credential_are_known_before(self, store: SecretStore) -> None:
        assert isinstance(stores.new_store(self.scheme), stores.RemoteStore)
        hosts = store.hosts(SecretReference.parse(self.put(CANARY)))
        assert hosts
        assert not any("://" in host or "/" in host for host in hosts)


class WritableStoreContract(StoreContract):
    """The tests for every store that can be written to."""

    @pytest.fixture
    def writable(self, store: SecretStore) -> SecretStore:
        """The store, with the right to write. A store with rights overrides this to grant it."""
        assert store.writable
        return store

    @pytest.mark.parametrize("value", [*VALUES, f"{CANARY}\n", f"{CANARY}\r\n", f"{CANARY}\n\n"])
    def test_what_is_written_is_what_is_read_next(self, writable: SecretStore, value: str) -> None:
        reference = SecretReference.parse(self.put("what was there before"))
        version = writable.write(reference, SecretStr(value), timeout=20)
        secret = SecretStore(self.scheme).read(reference, timeout=20)
        assert secret.value.get_secret_value() == value
        assert secret.version == version

    def test_what_was_not_there_is_made(self, writable: SecretStore) -> None:
        reference = SecretReference.parse(self.missing())
        writable.write(reference, SecretStr(CANARY), timeout=20)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    @pytest.mark.parametrize("value", ["", "half of a \ud83d"])
    def test_what_could_not_be_read_is_not_written(self, writable: SecretStore, value: str) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        with pytest.raises(SecretUnusable, match="cannot be written: "):
            writable.write(reference, SecretStr(value), timeout=20)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    def test_the_most_is_written_and_a_byte_more_is_not(self, writable: SecretStore) -> None:
        grammar = stores.grammar(self.scheme)
        assert grammar is not None
        most = "a" * grammar.most_bytes
        reference = SecretReference.parse(self.put(CANARY))
        writable.write(reference, SecretStr(most), timeout=20)
        with pytest.raises(SecretUnusable, match="cannot be written: the store takes 1 byte to "):
            writable.write(reference, SecretStr(f"{most}a"), timeout=20)
        assert writable.read(reference, timeout=20).value.get_secret_value() == most

    def test_one_key_is_written_and_the_others_stay(self, writable: SecretStore) -> None:
        whole = SecretReference.parse(self.put('{"a": "1", "b": 2}'))
        reference = SecretReference.parse(f"{whole}#a")
        writable.prove_writable(reference, timeout=20)
        writable.write(reference, SecretStr(CANARY), timeout=20)
        content = writable.read(whole, timeout=20).value.get_secret_value()
        assert content == f'{{"a": "{CANARY}", "b": 2}}'

    def test_proving_that_it_can_be_written_changes_no_value(self, writable: SecretStore) -> None:
        reference = SecretReference.parse(self.put(CANARY))
        before = writable.read(reference, timeout=20)
        writable.prove_writable(reference, timeout=20)
        after = writable.read(reference, timeout=20)
        assert (after.value, after.version) == (before.value, before.version)

    def test_who_writes_may_look_once_more_right_before_it(self, writable: SecretStore) -> None:
        reference, said = SecretReference.parse(self.put(CANARY)), RotationFailed("not now")

        def look() -> None:
            assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY
            raise said

        with pytest.raises(RotationFailed) as caught:
            writable.write(reference, SecretStr("another"), timeout=20, before=look)
        assert caught.value is said
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

    def test_no_write_begins_when_the_time_is_up(self, writable: SecretStore) -> None:
        reference, time = SecretReference.parse(self.put(CANARY)), Deadline(0.3)

        def wait() -> None:
            while time.remaining():
                threading.Event().wait(0.05)

        with pytest.raises(StoreUnavailable, match="no time was left"):
            writable.write(reference, SecretStr("another"), timeout=0.2, before=wait)
        assert writable.read(reference, timeout=20).value.get_secret_value() == CANARY

"""A store as the rest of mlauth uses it: it takes references, and its errors name them.

This module has everything that is the same for all stores: the sentence around an error, empty
values, UTF-8, sizes and `#key`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from mlauth import stores
from mlauth.deadline import Deadline, run_here
from mlauth.errors import SecretNotFound, SecretUnusable, StoreError
from mlauth.never_pickled import NeverPickled
from mlauth.references import SecretReference
from mlauth.stores import MOST_BYTES, Access, RemoteStore, StoredSecret, WritableStore


class SecretStore(NeverPickled):
    """The store of a scheme. It takes only references of its scheme."""

    def __init__(self, scheme: str) -> None:
        """Do no I/O.

        Args:
            scheme: a known one.
        """
        grammar = stores.grammar(scheme)
        assert grammar is not None
        self._most_bytes = grammar.most_bytes
        self._name = f"the store {scheme!r}"
        self._store = run_here(lambda: stores.new_store(scheme), self._name)

    @property
    def writable(self) -> bool:
        """Whether secrets can be written to the store."""
        return isinstance(self._store, WritableStore)

    def read(self, reference: SecretReference, *, timeout: float) -> StoredSecret:
        """Read a secret, or its field `#key`.

        Args:
            reference: where it is.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: it could not be read, or cannot be used; one line.
        """
        with _about(reference.whole(), "read"):
            secret = self._store.read(reference.place, timeout=max(timeout, 0.001))
        with _about(reference.whole(), "used"):
            size = _size(secret.value)
            if size is None:
                raise SecretUnusable("it is not UTF-8 text; store it as text")
            if not size:
                raise SecretUnusable("it is empty; put the secret there")
            if size > MOST_BYTES:
                raise SecretUnusable(
                    f"it is larger than {_shown(MOST_BYTES)}; is it the right one?"
                )
        return pick(secret, reference)

    def write(
        self,
        reference: SecretReference,
        value: SecretStr,
        *,
        timeout: float,
        before: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Write a secret, or one `#key` of a secret that holds several.

        To write a key, the whole secret is read, changed, read again and written, if the second
        read found no change. No store can compare and write in one step: if somebody else writes
        the same secret between the second read and the write, their value is lost.

        Args:
            reference: where it is, without a version.
            value: the new value.
            timeout: seconds that may pass, retries included; no write begins after them.
            before: called right before each attempt to write. Its errors are raised; a StoreError
                gets the usual sentence around it.

        Returns:
            The store's name for the new version, if it has versions.

        Raises:
            StoreError: the secret is unchanged; after `StoreUnavailable` it may have been written.
        """
        store, deadline = self._for_writing(reference), Deadline(max(timeout, 0.001))
        with _about(reference, "written"):
            # This comes first, because a value that is no text cannot be put into JSON either.
            self._refuse(value)
        whole, look = value, before
        if reference.key is not None:
            found = self._content(reference, deadline)
            whole = _changed(found, reference.key, value)

            def look() -> None:
                before()
                if self._content(reference, deadline) not in (found, whole):
                    raise SecretUnusable("somebody else writes to it at the same time: try again")

        with _about(reference, "written"):
            self._refuse(whole)
            return store.write(
                reference.place, whole, timeout=max(deadline.remaining(), 0.001), before=look
            )

    def prove_writable(self, reference: SecretReference, *, timeout: float) -> None:
        """Prove that `write` would work, as far as possible without changing a value.

        Args:
            reference: see `write`.
            timeout: seconds that may pass, retries included.

        Raises:
            StoreError: see `write`.
        """
        store, deadline = self._for_writing(reference), Deadline(max(timeout, 0.001))
        if reference.key is not None:
            self._content(reference, deadline)
        with _about(reference, "written"):
            store.prove_writable(reference.place, timeout=max(deadline.remaining(), 0.001))

    def describe(self, reference: SecretReference) -> Access:
        """Say where a reference points and as whom it would be read, without reading it."""
        return run_here(lambda: self._store.describe(reference.place), self._name)

    def hosts(self, reference: SecretReference) -> tuple[str, ...]:
        """Return the hosts that get a credential when a reference is read or written."""
        store = self._store
        if not isinstance(store, RemoteStore):
            return ()
        return run_here(lambda: store.hosts(reference.place), self._name)

    def _for_writing(self, reference: SecretReference) -> WritableStore:
        with _about(reference, "written"):
            if not isinstance(self._store, WritableStore):
                raise SecretUnusable(f"mlauth only reads from {reference.scheme}")
            if "version" in reference.place.options:
                raise SecretUnusable("it names one version for good; name it without version")
        return self._store

    def _refuse(self, value: SecretStr) -> None:
        size = _size(value)
        if size is None:
            raise SecretUnusable("the value is not UTF-8 text: encode it, for instance as base64")
        if not 0 < size <= self._most_bytes:
            raise SecretUnusable(
                f"the store takes 1 byte to {_shown(self._most_bytes)}, not {size:,} bytes"
            )

    def _content(self, reference: SecretReference, deadline: Deadline) -> SecretStr:
        """Return the JSON object that a key is written into; an empty one if there is no secret."""
        try:
            found = self.read(reference.whole(), timeout=deadline.remaining()).value
        except SecretNotFound:
            return SecretStr("{}")
        if _object(found) is None:
            raise SecretUnusable(
                f"{reference} cannot be written: the secret is not a JSON object, so it has no "
                "keys; remove '#' and the text after it to write the whole secret"
            )
        return found


def hosts_of(reference: SecretReference) -> tuple[str, ...]:
    """Return the hosts that get a credential when a reference is read or written."""
    return SecretStore(reference.scheme).hosts(reference)


def pick(secret: StoredSecret, reference: SecretReference) -> StoredSecret:
    """Return the field `#key` of a JSON secret; a missing field is an error, never None.

    Args:
        secret: the whole secret.
        reference: names the field, if one is wanted.

    Raises:
        SecretUnusable: the secret has no such field, or the field is no text.
    """
    if reference.key is None:
        return secret
    value = _field(secret.value, reference.key)
    if isinstance(value, str):
        raise SecretUnusable(f"{reference} cannot be used: {value}")
    return replace(secret, value=value)


def _field(secret: SecretStr, key: str) -> SecretStr | str:
    """Return a field of a JSON secret, or what is wrong: a traceback of this could show values."""
    content = _object(secret)
    if content is None:
        return (
            f"the secret is not a JSON object, so it has no key {key!r}; remove '#{key}' to use "
            "the whole secret"
        )
    if key not in content:
        return f"the secret has no key {key!r} (it has {len(content)} others)"
    value = content[key]
    # Numbers and booleans have several spellings, and only one of them is the secret.
    if not isinstance(value, str) or not value:
        what = "empty" if value == "" else "not a JSON string"
        return f"the value of {key!r} is {what}; store it as one"
    field = SecretStr(value)
    return "it is not UTF-8 text" if _size(field) is None else field


def _changed(secret: SecretStr, key: str, value: SecretStr) -> SecretStr:
    content = {**(_object(secret) or {}), key: value.get_secret_value()}
    return SecretStr(json.dumps(content, ensure_ascii=False))


def _object(secret: SecretStr) -> dict[str, Any] | None:
    try:
        content = json.loads(secret.get_secret_value())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _size(value: SecretStr) -> int | None:
    """Return the size of a value in bytes, or None if it is no text (it has lone surrogates)."""
    try:
        return len(value.get_secret_value().encode())
    except UnicodeEncodeError:  # this error holds the value, so it goes no further
        return None


def _shown(size: int) -> str:
    return f"{size // 1024**2} MiB" if size >= 1024**2 else f"{size // 1024} KiB"


@contextmanager
def _about(reference: SecretReference, done: str) -> Iterator[None]:
    """Put into every error what could not be done, and with which reference."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"{reference} cannot be {done}: {error}") from None

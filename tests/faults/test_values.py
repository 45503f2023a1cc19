"""Faults of a secret on this machine, and of a value from any store."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlauth
from mlauth import Profile
from mlauth.errors import MLAuthError
from tests.faults.tables import Row


@dataclass(frozen=True)
class WrongValue(Row):
    """A secret that cannot be used.

    Attributes:
        value: the content of the file, or a function that makes something else in its place.
        reference: the reference.
    """

    value: bytes | Callable[[Path], object] = lambda path: None
    reference: str = "file://FILE"


UNUSABLE = "SecretUnusable"
ROWS = [
    WrongValue(
        "`env`",
        "SecretNotFound",
        "env://NAME cannot be read: the variable is not set in this process; set it where the "
        "worker or the container starts, not with `export` in a step",
        reference="env://NAME",
    ),
    WrongValue(
        "`env`",
        "SecretNotFound",
        "env://EMPTY cannot be read: the variable is empty in this process; set it where the "
        "worker or the container starts, not with `export` in a step",
        reference="env://EMPTY",
        shown=False,
    ),
    WrongValue(
        "`file`",
        "SecretNotFound",
        "REFERENCE cannot be read: there is no such file; is the secret mounted?",
    ),
    WrongValue(
        "`file`",
        UNUSABLE,
        "REFERENCE cannot be read: it is a directory; name the file in it",
        Path.mkdir,
    ),
    WrongValue(
        "`file`",
        UNUSABLE,
        "REFERENCE cannot be read: it is not a regular file; name the file",
        os.mkfifo,
    ),
    WrongValue(
        "`file`",
        UNUSABLE,
        "REFERENCE cannot be read: Too many levels of symbolic links; name the file itself",
        lambda path: path.symlink_to(path),
    ),
    WrongValue(
        "value", UNUSABLE, "REFERENCE cannot be used: it is empty; put the secret there", b"\n"
    ),
    WrongValue(
        "value",
        UNUSABLE,
        "REFERENCE cannot be used: it is not UTF-8 text; store it as text",
        b"canary\xff",
    ),
    WrongValue(
        "value",
        UNUSABLE,
        "REFERENCE cannot be used: it is larger than 1 MiB; is it the right one?",
        b"canary" * 200_000,
    ),
    WrongValue(
        "`#key`",
        UNUSABLE,
        "REFERENCE#a cannot be used: the secret is not a JSON object, so it has no key 'a'; "
        "remove '#a' to use the whole secret",
        b"canary",
        "file://FILE#a",
    ),
    WrongValue(
        "`#key`",
        UNUSABLE,
        "REFERENCE#a cannot be used: the secret has no key 'a' (it has 1 others)",
        b'{"b": "canary"}',
        "file://FILE#a",
    ),
    WrongValue(
        "`#key`",
        UNUSABLE,
        "REFERENCE#a cannot be used: the value of 'a' is not a JSON string; store it as one",
        b'{"a": ["canary"]}',
        "file://FILE#a",
    ),
    WrongValue(
        "variable to set",
        "InvalidCredentials",
        "the value of REFERENCE has a NUL character, which no environment variable can hold: "
        "pass it as a file",
        b"canary\0canary",
    ),
    WrongValue(
        "variable to set",
        "InvalidCredentials",
        "the value of REFERENCE is too long for an environment variable (132,011 bytes with its "
        "name, at most 131,071 are possible): pass it as a file",
        b"canary" * 22_000,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_value_that_cannot_be_used_is_one_line(
    row: WrongValue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NAME", raising=False)
    monkeypatch.setenv("EMPTY", "")
    file = tmp_path / "secret"
    if isinstance(row.value, bytes):
        file.write_bytes(row.value)
    else:
        row.value(file)
    reference = row.reference.replace("FILE", str(file))
    profile = Profile.model_validate({"env": {"ACME_TOKEN": reference}})
    with pytest.raises(MLAuthError) as caught, mlauth.activate(profile):
        pass
    said = str(caught.value).replace(f"file://{file}", "REFERENCE")
    assert (type(caught.value).__name__, said) == (row.ends, row.line)
    assert "canary" not in said
    report = mlauth.check(profile)
    assert (report.status.value, report.results[-1].detail) == ("failed", str(caught.value))


def test_several_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    references = {name: f"file://{tmp_path}/{name}" for name in "ab"}
    with pytest.raises(mlauth.MLAuthError) as caught:
        mlauth.resolve(references)
    why = "cannot be read: there is no such file; is the secret mounted?"
    first, second = (f"{each} {why}" for each in references.values())
    assert str(caught.value) == f"2 secrets could not be read: {first}; {second}"

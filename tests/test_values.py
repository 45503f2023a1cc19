"""Odd secrets in every store and in `export_secrets` stay as they are, or are refused.

docs/security.md has the same table, under `Values that cannot be environment variables`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlauth import stores
from mlauth.errors import StoreError
from mlauth.resolving import resolve
from mlauth.stores import memory
from tests.support.azure import Azure

C = b"canary"
MOST = 131_071 - len("CANARY=")  # of the value's bytes
NOT_TEXT = "not UTF-8"
TOO_LONG = "is too long for an environment variable"


@dataclass(frozen=True)
class Odd:
    """A secret, and the messages when it is read and when it is exported (None: no message)."""

    value: bytes
    read: str | None = None
    export: str | None = None
    not_in: tuple[str, ...] = ()  # stores that cannot hold it


JSON_STORES = ("azurekv", "memory")  # these hold text, the others bytes
ODD = {
    "0 bytes": Odd(b"", read="empty"),
    "the most": Odd(C + b"a" * (MOST - len(C))),
    "one byte more": Odd(C + b"a" * (MOST - len(C) + 1), export=TOO_LONG),
    "the most in characters, not in bytes": Odd(C + "é".encode() * 70_000, export=TOO_LONG),
    "128 KiB": Odd(C + b"a" * (128 * 1024 - len(C)), export=TOO_LONG),
    # A vault's secret has at most 25 KB, and at most 1 MiB of its answers is read.
    "1 MiB": Odd(C + b"a" * (1024 * 1024 - len(C)), export=TOO_LONG, not_in=("azurekv",)),
    "1 MiB of lines": Odd(
        (C + b"-" * 57 + b"\n") * 16_383 + b".", export=TOO_LONG, not_in=("azurekv",)
    ),
    "NUL": Odd(C + b"\0" + C, export="has a NUL character", not_in=("env",)),
    "newlines": Odd(b"\n" + C + b"\r\n\n" + C),
    "byte order mark": Odd(b"\xef\xbb\xbf" + C),
    "not UTF-8": Odd(C + b"\xff", read=NOT_TEXT, not_in=JSON_STORES),
    "UTF-16": Odd("\ufeffcanary".encode("utf-16-le"), read=NOT_TEXT, not_in=("env", *JSON_STORES)),
    "half a character": Odd(C + b"\xed\xa0\x80", read=NOT_TEXT),
    "only a NUL": Odd(b"\0", export="has a NUL character", not_in=("env",)),
    "only a space": Odd(b" "),
}
CASES = [
    (scheme, name)
    for name, odd in ODD.items()
    for scheme in stores.schemes()
    if scheme not in odd.not_in
]


@pytest.fixture
def put(
    azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, bytes], str]:
    """Store a secret; return the reference to it."""
    for name, setting in azure.environment().items():
        monkeypatch.setenv(name, setting)
    vault = azure.vault()

    def into(scheme: str, value: bytes) -> str:
        text = value.decode("utf-8", "surrogatepass") if scheme in JSON_STORES else ""
        number = len(list(tmp_path.iterdir()))
        (tmp_path / f"secret-{number}").write_bytes(value)
        if scheme == "azurekv":
            vault.put(f"secret-{number}", text)
            return f"azurekv://{vault.name}/secret-{number}"
        if scheme == "memory":
            memory.put("secret", text)
            return "memory://secret"
        if scheme == "env":
            monkeypatch.setenv("SECRET_OF_TEST", os.fsdecode(value))
            return "env://SECRET_OF_TEST"
        return f"file://{tmp_path}/secret-{number}"

    return into


def harmless(said: str) -> None:
    assert said.isprintable()
    assert "canary" not in said


@pytest.mark.parametrize(("scheme", "name"), CASES)
def test_a_store_keeps_an_odd_secret_or_refuses_it(
    put: Callable[[str, bytes], str], scheme: str, name: str
) -> None:
    odd = ODD[name]
    reference = put(scheme, odd.value)
    if odd.read is None:
        assert resolve(reference).get_secret_value() == odd.value.decode()
        return
    with pytest.raises(StoreError) as caught:
        resolve(reference)
    assert odd.read in str(caught.value)
    harmless(str(caught.value))


def test_a_field_of_json_with_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json").write_text('{"key": "canary\\ud800"}')
    with pytest.raises(StoreError, match=NOT_TEXT) as caught:
        resolve(f"file://{tmp_path}/json#key")
    harmless(str(caught.value))


EXPORT = """
import base64, json, os, subprocess, sys
from mlauth.errors import MLAuthError
from mlauth.stores import memory
from prefect_mlauth.steps import export_secrets

said = []
for case in json.load(open(sys.argv[1])):
    value = base64.b64decode(case["value"])
    if case["scheme"] == "memory":
        memory.put("secret", value.decode("utf-8", "surrogatepass"))
    if case["scheme"] == "env":
        os.environb[b"SECRET_OF_TEST"] = value
    before = os.environb.get(b"CANARY")
    try:
        export_secrets({"CANARY": case["reference"]})
    except MLAuthError as error:
        assert os.environb.get(b"CANARY") == before
        said.append(str(error))
    else:
        child = {b"PATH": os.environb[b"PATH"], b"CANARY": os.environb[b"CANARY"]}
        got = subprocess.run(["printenv", "CANARY"], env=child, capture_output=True, check=True)
        said.append("" if got.stdout == value + b"\\n" else "another value")
json.dump(said, sys.stdout)
"""


@pytest.mark.process
def test_export_secrets_sets_an_odd_secret_for_the_next_program_or_refuses_it(
    put: Callable[[str, bytes], str], clean_environment: Path, tmp_path: Path
) -> None:
    """All of them through the step, in one process, with a program that it starts."""
    cases: list[dict[str, Any]] = [
        {
            "scheme": scheme,
            "reference": put(scheme, ODD[name].value),
            "value": base64.b64encode(ODD[name].value).decode(),
        }
        for scheme, name in CASES
    ]
    (tmp_path / "cases").write_text(json.dumps(cases))
    environment = {name: text for name, text in os.environ.items() if name != "SECRET_OF_TEST"}
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path / "cases")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for (scheme, name), said in zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected = ODD[name].read or ODD[name].export
        if expected is None:
            assert said == "", (scheme, name)
        else:
            assert expected in said, (scheme, name)
            harmless(said)
    assert "canary" not in done.stderr

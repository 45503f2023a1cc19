"""Prefect never gives the stored result of one account's task to another account's task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prefect_mlauth.conftest import digest
from tests.support.servers import PrefectServer

CANARIES = {"a": "canary-of-account-a", "b": "canary-of-account-b"}

FLOW = """
import dataclasses, hashlib, json, sys
from typing import Any
import pydantic
from prefect import flow, task
import mlauth


class Model(pydantic.BaseModel):
    token: pydantic.SecretStr


@dataclasses.dataclass
class Data:
    token: Any


ways = {
    "alone": (lambda it: it, lambda it: it),
    "list": (lambda it: [it], lambda it: it[0]),
    "dict": (lambda it: {"token": it}, lambda it: it["token"]),
    "model": (lambda it: Model(token=it), lambda it: it.token),
    "dataclass": (Data, lambda it: it.token),
}


@task(persist_result=True)
def with_a_secret(way, given):
    return digest(ways[way][1](given))


@task(persist_result=True)
def with_a_reference(reference):
    return digest(mlauth.resolve(reference))


@flow
def both(first, second):
    found = {way: [with_a_secret(way, made(mlauth.resolve(each))) for each in (first, second)]
             for way, (made, _) in ways.items()}
    references = [mlauth.SecretReference.parse(each) for each in (first, second)]
    found["reference"] = [with_a_reference(each) for each in references]
    found["text"] = [with_a_reference(each) for each in (first, second)]
    return found


@flow
def as_a_parameter(secret):
    return digest(secret)


def digest(secret):
    return hashlib.sha256(secret.get_secret_value().encode()).hexdigest()[:16]


print(json.dumps(both(*sys.argv[1:])))
print(as_a_parameter(mlauth.resolve(sys.argv[1])))
"""


@pytest.mark.timeout(300)
def test_a_task_is_given_no_result_of_another_accounts_secret(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    for name, value in CANARIES.items():
        (tmp_path / name).write_text(value)
    (tmp_path / "script.py").write_text(FLOW)
    done = subprocess.run(
        [sys.executable, "script.py", *(f"file://{tmp_path}/{name}" for name in CANARIES)],
        capture_output=True,
        text=True,
        env=prefect_server.environment(tmp_path / "run"),
        cwd=tmp_path,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    own = [digest(value) for value in CANARIES.values()]
    found, parameter = done.stdout.splitlines()[-2:]
    ways = ("alone", "list", "dict", "model", "dataclass", "reference", "text")
    assert json.loads(found) == dict.fromkeys(ways, own)
    assert parameter == own[0]
    # Prefect says why it keeps no result, and shows no value.
    assert "Error encountered when computing cache key" in done.stderr
    assert "ResolvedSecret holds secret values" in done.stderr
    assert not any(value in done.stdout + done.stderr for value in CANARIES.values())

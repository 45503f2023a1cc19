"""docs/versions.md matches the declarations, and each of its cells is a test."""

from __future__ import annotations

import os
import sys

import pytest

from tests.versions import test_matrix
from tests.versions.environments import HERE, find_python
from tests.versions.matrix import CAPABILITIES, ENVIRONMENTS, PAGE, ROOT, page


def test_the_page_is_of_these_versions() -> None:
    if os.environ.get("MLAUTH_WRITE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "make docs"


def test_each_capability_is_tested() -> None:
    tests = [test for name, test in vars(test_matrix).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in getattr(test, "pytestmark", [])]
    tested = [mark.args[0] for mark in marks if mark.name == "capability"]
    assert sorted(tested) == sorted(CAPABILITIES)


def test_what_is_declared_is_pinned() -> None:
    for environment in ENVIRONMENTS:
        for package in ("prefect", "zenml"):
            there = package in environment.extras
            assert bool(environment.version(package)) == there, (environment.name, package)


def test_the_newest_pair_is_the_one_of_the_other_tests() -> None:
    pair, lock = ENVIRONMENTS[1], (ROOT / "requirements" / "lock.txt").read_text().split()
    assert f"prefect=={pair.version('prefect')}" in lock
    assert f"zenml[server]=={pair.version('zenml')}" in lock


@pytest.mark.process
def test_a_python_that_is_not_on_this_machine_is_not_found() -> None:
    assert find_python("3.99") is None
    assert find_python(HERE) == sys.executable

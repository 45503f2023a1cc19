"""The contract suite for systems finds each defect of a system."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systems.broken import FAILS

BROKEN = Path(__file__).with_name("broken.py")


@pytest.mark.load
def test_a_system_with_something_wrong_fails_a_test_about_it() -> None:
    pairs = [f"({each.__name__} and {test})" for each, test in FAILS.items() if test]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-k", " or ".join(["Right", *pairs])]
    done = subprocess.run(
        [*command, str(BROKEN)], cwd=BROKEN.parents[2], capture_output=True, text=True, timeout=100
    )
    found = re.findall(r"^(?:FAILED|ERROR) \S+::(test_\w+)\[(\w+)", done.stdout, re.MULTILINE)
    failed = {(name, test) for test, name in found}
    assert not [test for name, test in failed if name == "Right"]
    wanted = {(each.__name__, test) for each, test in FAILS.items() if test}
    assert wanted <= failed, done.stdout[-3000:]

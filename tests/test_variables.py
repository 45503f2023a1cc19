from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from mlauth.variables import name_problem, value_problem


@pytest.mark.parametrize("name", ["HF_TOKEN", "_x", "PYTORCH_TOKEN", "PATHS", "LDAP_PASSWORD"])
def test_ordinary_names_are_allowed(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    "PATH LD_PRELOAD LD_LIBRARY_PATH PYTHONPATH PYTHONSTARTUP PREFECT_API_URL DYLD_INSERT_LIBRARIES"
    " path pythonpath BASH_ENV MLAUTH_PROFILE".split(),
)
def test_names_that_change_how_programs_start_are_refused(name: str) -> None:
    assert "how programs start" in (name_problem(name) or "")


@pytest.mark.parametrize("name", ["ZENML_STORE_API_KEY", "ZENML_CONFIG_PATH"])
def test_names_of_zenml_are_refused_because_its_client_would_write_them_to_disk(name: str) -> None:
    assert "use zenml_login" in (name_problem(name) or "")


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A\n", "Ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    assert "is not the name of a variable" in (name_problem(name) or "")


@pytest.mark.parametrize("value", ["", "a", "two\nlines", "ü€", "\ufeffbom", "a" * 100_000])
def test_ordinary_values_are_allowed(value: str) -> None:
    assert value_problem("NAME", SecretStr(value)) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [("a\0b", "NUL"), ("canary\udcff", "not UTF-8"), ("canary" * 30_000, "180,005 bytes")],
)
def test_what_no_variable_can_hold_is_refused_not_cut(value: str, why: str) -> None:
    problem = value_problem("NAME", SecretStr(value))
    assert problem is not None
    assert why in problem
    assert "canary" not in problem


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_the_one_that_the_kernel_has(more: int) -> None:
    value = "a" * (131_071 - len("NAME=") + more)
    environment = {**os.environ, "NAME": value}
    if value_problem("NAME", SecretStr(value)) is None:
        assert subprocess.run(["true"], env=environment).returncode == 0
    else:
        with pytest.raises(OSError, match="Argument list too long"):
            subprocess.run(["true"], env=environment)
    assert (value_problem("NAME", SecretStr(value)) is None) is (more == 0)

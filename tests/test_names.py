"""The core names no system, no store and no cloud, because it must treat all of them alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlauth import stores, systems

PACKAGE = Path(systems.__file__).parents[1]
PREFECT = PACKAGE.with_name("prefect_mlauth")
# `mlauth/__init__.py` exports names of systems; `known` has data for refusing.
EXCEPTED = {"__init__.py", "known.py"}
ROOMS = ("systems", "stores", "azure")
CORE = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in {*ROOMS, *EXCEPTED}
)
# `[env]` has a user's own variables, and every process has these stores.
OF_THE_CORE = {"env", "file", "memory"}
NAMES = {
    *{*systems.names(), *stores.schemes()} - OF_THE_CORE,
    # clouds, and what is to come
    *("amazon", "aws", "azure", "entra", "gcp", "google", "hf", "huggingface", "hugging face"),
    *("databricks", "k8s", "key vault", "keyvault", "kubernetes", "microsoft", "mlflow", "msal"),
}


def names_in(text: str) -> set[str]:
    """Return the names that words of a text begin with: `A_B` and `CamelCase` are several words."""
    words = text.replace("_", " ")
    words += "\n" + re.sub("(?<=[a-z])(?=[A-Z])", " ", words)
    return {name for name in NAMES if re.search(f"(?<![a-z]){name}", words.lower())}


@pytest.mark.parametrize("file", CORE)
def test_the_core_names_none(file: str) -> None:
    assert not names_in((PACKAGE / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*PREFECT.rglob("*.py")], ids=lambda path: path.name)
def test_steps_and_blocks_name_no_system(path: Path) -> None:
    """The registry gives them. One store has a block of its own."""
    found = names_in(path.read_text(encoding="utf-8"))
    assert found <= NAMES - {*systems.names()}


@pytest.mark.parametrize(
    "text",
    ["ZENML_STORE_URL", "class ZenMLCredentials:", "zenml's", "TheAzureCloud", "azurekv://a/b"],
)
def test_a_name_is_found_however_it_is_written(text: str) -> None:
    assert names_in(text)

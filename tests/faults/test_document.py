"""docs/failures.md is made from the tables; `make docs` writes it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.faults import (
    test_azurekv,
    test_network,
    test_profiles,
    test_values,
    test_ways,
    test_zenml,
)
from tests.faults.tables import Table
from tests.zenml_mlauth import test_faults as test_component

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "failures.md"
TABLES = [
    Table(
        "The network",
        "Every system says these lines; the store `azurekv` says similar ones.",
        [*test_network.ROWS, test_ways.TOO_LATE],
    ),
    Table(
        "Profiles",
        "`mlauth check` ends with exit code 2. Steps and blocks say the same about their fields.",
        [*test_profiles.ROWS, test_ways.SETTING],
        "mlauth.toml: SETTING: ",
    ),
    Table(
        "Values, and the stores `env` and `file`",
        "Several faults share one line: *2 secrets could not be read: …; …*.",
        test_values.ROWS,
        "REFERENCE ",
    ),
    Table(
        "ZenML",
        "The stack component ends as an activation does, before the first step.",
        [*test_zenml.ROWS, *test_component.ROWS],
        "URL ",
    ),
    Table(
        "The store `azurekv`, and identities of Azure",
        "WHO is the identity; `mlauth explain` shows which it is, and why.",
        test_azurekv.ROWS,
        "WHO: ",
    ),
]
HEAD = """\
# What can fail, and the line that says so

Search this page for some words of your line. The tests let each of these happen, and make the page.
Words in capitals, such as HOST and SETTING, stand for your own. Lines may begin with more, such as
the stage or the reference.

*failed* means that somebody must change something: `mlauth check` ends with exit code 1, and an
activation (a pull step, a block, `mlauth.activate`) raises an error. *unknown* means that the
credential may be fine: the exit code is 3, and an activation goes on with the line as a warning.
Where a class stands in place of these, an activation raises it; only `StoreUnavailable` is unknown.
"""
# Words of advice. A line without any of them does not say what to do.
ADVICE = re.compile(
    r"\?|`zenml |\b(add|ask|assign|check|correct|enable|give|install|it has|it takes|leave|"
    r"log in|look|make|must be|must start|name|pass|pin|put|reach it|recover|remove|renew|rotate|"
    r"see|set|store|the name is|try|use|will find out)\b"
)


def test_the_document_shows_the_tables() -> None:
    text = HEAD + "".join(table.markdown() for table in TABLES)
    if os.environ.get("MLAUTH_WRITE_DOCS"):
        DOCUMENT.write_text(text, encoding="utf-8")
    shown = DOCUMENT.read_text(encoding="utf-8")
    assert text.splitlines() == shown.splitlines(), "run `make docs`, and read what it changed"


def test_every_line_says_what_to_do() -> None:
    lines = [row.line for table in TABLES for row in table.rows]
    assert [line for line in lines if "\n" in line or not ADVICE.search(line)] == []

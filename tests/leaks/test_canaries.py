"""The search for canaries finds each spelling."""

from __future__ import annotations

import base64
import html
import json
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.support.canaries import canary, leaks, token, zenml_key
from tests.support.search import search

VALUES = [canary("secret"), zenml_key("key"), token("token")]


@pytest.mark.parametrize("value", VALUES, ids=["secret", "key", "token"])
def test_a_canary_is_found_in_every_spelling(value: str, tmp_path: Path) -> None:
    spelled = [
        value,
        base64.b64encode(value.encode()).decode(),
        base64.urlsafe_b64encode(value.encode()).decode(),
        *(base64.b64encode(b"x" * n + value.encode()).decode() for n in (1, 2, 3, 4)),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        json.dumps({"key": value}),
        json.dumps({"key": value}, ensure_ascii=False),
        repr({"key": value}),
        ascii(value),
        repr(value.encode()),
        value.encode().hex(),
        value.encode().hex().upper(),
        html.escape(value),
    ]
    for number, text in enumerate(spelled):
        (tmp_path / str(number)).write_text(f"before {text} after")
        assert leaks(f"before {text} after", value), text
        assert leaks(f"before {text} after".encode(), value), text
    assert leaks("before and after", value) == []
    (tmp_path / "nothing").write_text("before and after")
    assert len(search([value], tmp_path).found) == len(spelled)
    assert leaks("", "abc") == leaks("before and after", "abc") == []  # short ones are not anywhere


def test_the_search_reads_databases_row_by_row(tmp_path: Path) -> None:
    value = canary("row")
    with sqlite3.connect(tmp_path / "data.db") as database:
        database.execute("CREATE TABLE events (id INTEGER, payload TEXT)")
        # So long that it is split over pages.
        database.execute("INSERT INTO events VALUES (1, ?)", ["a" * 3990 + value + "b" * 9000])
    database.close()
    result = search([value], tmp_path)
    assert f"{tmp_path}/data.db: events" in result.found
    assert (result.files, result.databases, result.rows) == (1, 1, 1)


def test_no_test_searches_with_the_products_own_spellings() -> None:
    """What the product forgets would be forgotten there too."""
    root = Path(__file__).parents[2]
    own = re.compile(r"\bspellings\(|import spelling[s]")
    for folder in (root / "tests", root / "mlauth" / "testing"):
        assert [path for path in folder.rglob("*.py") if own.search(path.read_text())] == []

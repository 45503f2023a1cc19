"""Looks for secrets in every file and in every table of SQLite databases."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.canaries import words

_SQLITE = b"SQLite format 3\0"


@dataclass
class Search:
    """The result of a search.

    Attributes:
        files: how many files.
        databases: how many of them are SQLite databases, whose tables were read row by row.
        rows: how many rows these have.
        found: the places of secrets: paths, and for databases `path: table`.
    """

    files: int = 0
    databases: int = 0
    rows: int = 0
    found: list[str] = field(default_factory=list)


def search(secrets: Iterable[str], folder: Path) -> Search:
    """Look for secrets in every file below a folder.

    Args:
        secrets: the values, which are looked for in every spelling (`canaries.words`).
        folder: links in it are not followed.
    """
    result = Search()
    needles = {word.encode() for secret in secrets for word in words(secret)}

    def holds(data: bytes) -> bool:
        return any(needle in data for needle in needles)

    for path in _files(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # a server removed it meanwhile
        result.files += 1
        if holds(data):
            result.found.append(str(path))
        if data.startswith(_SQLITE):
            result.databases += 1
            # A database splits a long value over pages, so only its rows hold it whole.
            for table, row in _rows(path):
                result.rows += 1
                place = f"{path}: {table}"
                if holds(row) and place not in result.found:
                    result.found.append(place)
    return result


def _files(folder: Path) -> Iterator[Path]:
    # `rglob` would raise an error if a server removes a directory meanwhile.
    for directory, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _rows(path: Path) -> Iterator[tuple[str, bytes]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as database:
        database.text_factory = bytes  # values that are not UTF-8 are searched, too
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for table in (name.decode() for (name,) in tables):
            for row in database.execute(f'SELECT * FROM "{table}"'):
                yield table, b"\n".join(_bytes(value) for value in row)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")

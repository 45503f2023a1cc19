"""Python imports this when a Prefect server of the tests starts: a short wait for SQLite's lock.

Two transactions of Prefect's can wait for each other, until the wait that it sets is over: 60 s, in
which nobody writes. Prefect's clients try again what was given up.
"""

import sqlite3
from typing import Any

SECONDS = 5


class Cursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql.startswith("PRAGMA busy_timeout"):
            sql = f"PRAGMA busy_timeout = {SECONDS * 1000}"
        return super().execute(sql, *parameters)


class Connection(sqlite3.Connection):
    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)


_connect = sqlite3.connect
sqlite3.connect = lambda *place, **options: _connect(  # type: ignore[assignment]
    *place, **{"factory": Connection, **options}
)

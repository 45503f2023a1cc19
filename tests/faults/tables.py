"""Tables of all failures: the tests beside this file make each row happen.

docs/failures.md shows the same tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import commonprefix


@dataclass(frozen=True)
class Row:
    """One thing that goes wrong, and the line that says so.

    Attributes:
        what: the fault in a reader's words. Rows with the same words and end are shown as one.
        ends: `failed`, `unknown`, or the class of the error.
        line: the whole line, with placeholders such as HOST.
        shown: whether the document has it. A row that is almost the same as another is not shown.
    """

    what: str
    ends: str
    line: str
    shown: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class Table:
    """The rows of one system, of one store, or of all.

    Attributes:
        heading: its heading in the document.
        says: an introduction for all rows.
        rows: the rows.
        begin: the common beginning of many lines, which is not shown.
    """

    heading: str
    says: str
    rows: Sequence[Row]
    begin: str = ""

    def markdown(self) -> str:
        """Return the section of the document."""
        cells: dict[tuple[str, str], dict[str, None]] = {}
        for row in self.rows:
            if row.shown:
                lines = cells.setdefault((row.what, row.ends), {})
                lines[row.line.removeprefix(self.begin)] = None  # each once
        text = f"\n## {self.heading}\n\n{self.says}\n\n| fault | ends as | line |\n|---|---|---|\n"
        for (what, ends), lines in cells.items():
            text += f"| {what} | {ends} | {_cell(list(lines))} |\n"
        return text


def _cell(lines: list[str]) -> str:
    """Show lines in one cell; a beginning that all have in common is shown once."""
    start = commonprefix(lines).rpartition(" ")[0]  # noqa: RUF071 - of texts, not of paths
    if len(lines) > 1 and len(start) > 15:
        lines = [f"{start} …", *(f"… {line[len(start) + 1 :]}" for line in lines)]
    return "<br>".join(lines)

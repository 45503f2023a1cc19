"""The search of the suites for secrets where they must not be.

This module has its own list of spellings: with the list of `mlauth.masking`, a test would miss each
spelling that masking misses.
"""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus


def words(value: str) -> set[str]:
    """Return the spellings of a value: plain, base64, hex, URL-encoded, escaped in every way."""
    data = value.encode()
    found = {value, html.escape(value), data.hex(), data.hex().upper()}
    found |= {quote(value), quote(value, safe=""), quote_plus(value)}
    found |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    # Tracebacks show local variables like this.
    found |= {repr(value)[1:-1], ascii(value)[1:-1], repr(data)[2:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(data).decode())
        for shift in range(3):  # in the middle of a longer text, such as `user:value`
            inner = encode(b"\0" * shift + data + b"\0" * 3).decode()[4:-8]
            found |= {inner} if len(inner) >= 8 else set()
    return found


def leaks(text: str | bytes, *values: str) -> list[str]:
    """Return the text before each spelling of each value that was found."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [
        f"{said[max(0, said.index(word) - 80) : said.index(word)]}…"
        for value in values
        for word in words(value)
        if word in said
    ]

"""How the suites look for secrets where they must not be.

The spellings are written down here anew. With the list that masking has, a test would forget each
spelling that masking forgets.
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
    # As tracebacks show local variables.
    found |= {repr(value)[1:-1], ascii(value)[1:-1], repr(data)[2:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(data).decode())
        for shift in range(3):  # in the middle of a longer text, such as `user:value`
            inner = encode(b"\0" * shift + data + b"\0" * 3).decode()[4:-8]
            found |= {inner} if len(inner) >= 8 else set()
    return found


def leaks(text: str | bytes, *values: str) -> list[str]:
    """Return what stands before each spelling of each value."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [
        f"{said[max(0, said.index(word) - 80) : said.index(word)]}…"
        for value in values
        for word in words(value)
        if word in said
    ]

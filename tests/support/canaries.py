"""Values that must turn up nowhere, and the search for them, apart from what mlauth itself masks.

The spellings are those of the charter of these tests, written down anew: with the product's own, a
spelling that it forgets would be forgotten here too.
"""

from __future__ import annotations

import base64
import json
import uuid
from urllib.parse import quote, quote_plus

from tests.support.zenml_keys import api_key


def canary(name: str) -> str:
    """Make a value that is different in every spelling."""
    return f'{name}-"/+ü\\&~{uuid.uuid4().hex}'


def zenml_key(name: str) -> str:
    """Make a value with the shape of ZenML's keys."""
    return api_key(canary(name))


def token(name: str) -> str:
    """Make a value that may stand in a header."""
    return f"{name}.{uuid.uuid4().hex}+/~{uuid.uuid4().hex}"


def words(value: str) -> set[str]:
    """Return the spellings of a value: plain, base64, URL-encoded, escaped by JSON and `repr`."""
    data = value.encode()
    found = {value, quote(value), quote(value, safe=""), quote_plus(value)}
    found |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    found |= {
        repr(value)[1:-1],
        ascii(value)[1:-1],
        repr(data)[2:-1],
    }  # as tracebacks show local variables
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(data).decode())
        for shift in range(3):  # in the middle of a longer text, such as `user:value`
            found.add(encode(b"\0" * shift + data + b"\0" * 3).decode()[4:-8])
    return found


def leaks(text: str | bytes, *values: str) -> list[str]:
    """Return what was found around each spelling of each value."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [
        said[max(0, said.index(word) - 80) : said.index(word) + 20]
        for value in values
        for word in words(value)
        if word in said
    ]

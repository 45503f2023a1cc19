"""The search itself finds what it is to find."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from tests.support.canaries import canary, leaks, token, zenml_key

VALUES = [canary("secret"), zenml_key("key"), token("token")]


@pytest.mark.parametrize("value", VALUES, ids=["secret", "key", "token"])
def test_a_canary_is_found_in_every_spelling(value: str) -> None:
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
    ]
    for text in spelled:
        assert leaks(f"before {text} after", value), text
        assert leaks(f"before {text} after".encode(), value), text
    assert leaks("before and after", value) == []

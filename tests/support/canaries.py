"""Values that must turn up nowhere, and the search for them (`leaks`)."""

from __future__ import annotations

import uuid

from mlauth.testing.leaks import leaks, words
from tests.support.zenml_keys import api_key

__all__ = ["canary", "leaks", "token", "words", "zenml_key"]


def canary(name: str) -> str:
    """Make a value that is different in every spelling."""
    return f'{name}-"/+ü\\&~{uuid.uuid4().hex}'


def zenml_key(name: str) -> str:
    """Make a value with the shape of ZenML's keys."""
    return api_key(canary(name))


def token(name: str) -> str:
    """Make a value that may stand in a header."""
    return f"{name}.{uuid.uuid4().hex}+/~{uuid.uuid4().hex}"

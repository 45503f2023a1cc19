from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlauth.stores import memory
from mlauth.testing.stores import StoreContract


class TestMemory(StoreContract):
    scheme = "memory"

    @pytest.fixture(autouse=True)
    def _cleared(self) -> Iterator[None]:
        yield
        memory.clear()

    def put(self, value: str) -> str:
        memory.put("some/name", value)
        return "memory://some/name"

    def missing(self) -> str:
        return "memory://nothing/here"

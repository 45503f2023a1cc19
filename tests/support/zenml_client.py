"""ZenML's own client in the process of the tests."""

from __future__ import annotations

from collections.abc import Callable

from mlauth.systems.zenml.isolation import Isolation


def forget_client() -> Callable[[], None]:
    """Make ZenML's client read its variables again; return a function that restores its state."""
    scope = Isolation("https://zenml.example.com")
    put_back = scope.keep()
    scope.swap()
    return put_back

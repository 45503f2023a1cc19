"""A ZenML client in this process, with the connection of a test, and stacks with the component."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.utils import source_utils

import mlauth
from mlauth import ZenMLCredentials
from tests.support.accounts import Account
from tests.support.servers import ServerError, ZenMLServer
from tests.support.zenml_client import forget_client
from tests.zenml_mlauth import pipelines
from zenml_mlauth import connection


@pytest.fixture(autouse=True)
def nothing_from_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clean_environment: Path
) -> Iterator[None]:
    """Forget passed checks and warnings of earlier tests; steps write into a file of the test."""
    monkeypatch.setattr(connection, "_passed", {})
    monkeypatch.setattr(connection, "_warned", {})
    monkeypatch.setenv(pipelines.TRACE, str(tmp_path / "trace.txt"))
    before = source_utils._CUSTOM_SOURCE_ROOT
    source_utils.set_custom_source_root(str(pipelines.ROOT))
    put_back = forget_client()
    yield
    put_back()
    source_utils.set_custom_source_root(before)


@pytest.fixture(scope="session")
def registered(zenml_server: ZenMLServer, component_flavor: None) -> None:
    """The flavors: the component's, and those of the tests."""
    before = source_utils._CUSTOM_SOURCE_ROOT
    source_utils.set_custom_source_root(str(pipelines.ROOT))  # the main module may have no file
    for flavor in (pipelines.RecordingAlerterFlavor(), pipelines.SubprocessOperatorFlavor()):
        with suppress(ServerError):  # another process of the session did it
            zenml_server.request("POST", "/flavors", flavor.to_model().model_dump(mode="json"))
    source_utils.set_custom_source_root(before)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set variables, and make a ZenML client that reads them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        put_back = forget_client()
        try:
            yield
        finally:
            put_back()


@contextmanager
def connected(account: Account, url: str | None = None, **fields: Any) -> Iterator[None]:
    """Connect this process as a service account, as `zenml_login` does in a flow."""
    credentials = {"store_url": url or account.url, "api_key": account.reference, **fields}
    with mlauth.activate(ZenMLCredentials.of("test", credentials)):
        yield


@pytest.fixture
def me(account: Account, registered: None) -> Iterator[Account]:
    """The service account of ZenML's client in the test."""
    with connected(account):
        yield account


def make_stack(
    *, first: str | None = None, last: str | None = None, operator: bool = False, **config: Any
) -> str:
    """Register a stack and make it the active one.

    Args:
        first: the flavor of an alerter before the component.
        last: the flavor of an alerter behind it.
        operator: whether the stack has the step operator of another process.
        config: the component's.

    Returns:
        The component's name.
    """
    client = Client()
    unique = uuid.uuid4().hex[:8]

    def component(flavor: str, kind: StackComponentType, **configuration: Any) -> str:
        name = f"{flavor}-{unique}"
        client.create_stack_component(name, flavor, kind, configuration)
        return name

    alerters = [
        component(flavor, StackComponentType.ALERTER, **(config if flavor == "mlauth" else {}))
        for flavor in (first, "mlauth", last)
        if flavor
    ]
    components: dict[StackComponentType, Any] = {
        StackComponentType.ORCHESTRATOR: "default",
        StackComponentType.ARTIFACT_STORE: "default",
        StackComponentType.ALERTER: alerters,
    }
    if operator:
        components[StackComponentType.STEP_OPERATOR] = component(
            "subprocess", StackComponentType.STEP_OPERATOR
        )
    client.create_stack(f"stack-{unique}", components)
    client.activate_stack(f"stack-{unique}")
    return f"mlauth-{unique}"

"""No frame of ours has a plain value in a local variable when an error leaves it.

An error could come at any line. So the tests look at each line of ours that runs, and at the local
variables that a traceback would show there.

Two parts are left out. Threads that read stores and ask services (`mlauth.deadline`) drop the
frames of their errors, and another test shows that. `mlauth.masking` must hold values to look for
them, and calls nobody else's code meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import SecretStr

import mlauth
from mlauth import (
    EnvironmentSecrets,
    SecretReference,
    ZenMLCredentials,
    masking,
)
from mlauth.cli import main
from mlauth.deadline import THREAD
from mlauth.errors import ActivationError, MLAuthError
from mlauth.stores import memory
from mlauth.storing import SecretStore
from tests.leaks.making import Here
from tests.leaks.watching import watching
from tests.support.azure import Azure
from tests.support.canaries import canary, leaks, words, zenml_key
from tests.support.zenml_client import forget_client

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_a_second_thread_that_is_refused_shows_no_value(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {name: canary(name) for name in ("first", "second", "before")}
    monkeypatch.setenv("TOKEN", values["before"])
    for name, value in values.items():
        memory.put(name, value)

    def activate(name: str) -> None:
        with mlauth.activate(EnvironmentSecrets.of("test", {"env": {"TOKEN": f"memory://{name}"}})):
            if name == "first":
                second = threading.Thread(target=watch.outcome, args=(lambda: activate("second"),))
                second.start()
                second.join()

    with watching(capfd) as watch:
        activate("first")
        (error,) = watch.raised
        assert isinstance(error, ActivationError)
        assert leaks(watch.text(), *values.values()) == []


def test_a_temporary_folder_that_is_missing_shows_no_value(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = zenml_key("key")
    memory.put("key", key)
    credentials = ZenMLCredentials.of(
        "test", {"store_url": "https://zenml.example.com", "api_key": "memory://key"}
    )

    def activate() -> None:
        with mlauth.activate(credentials, verify=False):
            pass

    with watching(capfd) as watch:
        with pytest.MonkeyPatch.context() as patch:  # pytest needs one to report a failure
            patch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
            watch.outcome(activate)
        assert len(watch.raised) == 1
        assert leaks(watch.text(), key) == []
        assert "ZENML_STORE_API_KEY" not in os.environ


class Look:
    """Looks at every line of ours that runs."""

    def __init__(self, values: Iterable[str]) -> None:
        self.words = [word for value in values for word in words(value)]
        self.modules: set[str] = set()
        self.found: set[str] = set()

    def __call__(self, frame: FrameType, event: str, arg: object) -> Look | None:
        module = str(frame.f_globals.get("__name__"))
        if (
            module.partition(".")[0] not in {"mlauth", "prefect_mlauth", "zenml_mlauth"}
            or module == masking.__name__
            or module.startswith("mlauth.testing")  # stands in for a service
            or threading.current_thread().name == THREAD
        ):
            return None
        self.modules.add(module)
        for name, value in list(frame.f_locals.items()):
            said = ""
            with suppress(Exception):  # `self` before its attributes are set
                said = repr(value)
            if any(word in said for word in self.words):
                self.found.add(f"{module}.{frame.f_code.co_name}: {name}, line {frame.f_lineno}")
        return self


@contextmanager
def looking(values: Iterable[str]) -> Iterator[Look]:
    look = Look(values)
    before = sys.gettrace()
    threading.settrace(look)
    sys.settrace(look)
    try:
        yield look
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]


@pytest.fixture
def here(
    tmp_path: Path, azure: Azure, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> Iterator[Here]:
    put_back = forget_client()
    with ExitStack() as stack:
        yield Here(tmp_path, azure, monkeypatch, stack)
    put_back()


def ways(here: Here, url: str) -> dict[str, Callable[[], Any]]:
    """Use every way in which a value goes through this process."""
    from prefect_mlauth import AzureKeyVaultSecret, MLAuthProfile, steps
    from prefect_mlauth import ZenMLCredentials as Block

    here.as_application()
    vault = here.azure.vault()
    vault.put("name", here.other)
    secret = AzureKeyVaultSecret(vault=vault.name, name="name")
    zenml, env, config = here.zenml(url), here.profile["env"], here.config(url)
    memory.put("key", here.key)

    def within(activating: Any) -> None:
        with activating:
            mlauth.check()

    def command(*arguments: str) -> None:
        main(arguments, standalone_mode=False)

    return {
        "resolve": lambda: mlauth.resolve(
            {"a": here.reference("key"), "b": "memory://key", "c": secret._reference()}
        ),
        "resolve, no field": lambda: mlauth.resolve(f"{here.reference('key')}#field"),
        "activate": lambda: within(mlauth.activate("p", config=config)),
        "check": lambda: mlauth.check("p", config=config),
        "zenml_login": lambda: steps.zenml_login(zenml["store_url"], zenml["api_key"]),
        "export_secrets": lambda: steps.export_secrets(env),
        "activate_profile": lambda: steps.activate_profile("p", config=config),
        "ZenMLCredentials": lambda: within(Block(**zenml).login()),
        "MLAuthProfile": lambda: within(MLAuthProfile(content={"env": env}).activate()),
        "AzureKeyVaultSecret": secret.read_secret,
        "rotate": lambda: mlauth.rotate_zenml("p", config=config, timeout=5),
        "mlauth check": lambda: command("check", "--profile", "p", "--config", config),
        "mlauth explain": lambda: command("explain", here.reference("key")),
    }


@pytest.mark.process
@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason="Python 3.13.0 crashes under this tracer"
)
def test_no_line_of_ours_has_a_value_in_a_local_variable(here: Here) -> None:
    with here.server() as server:
        found = set()
        for name, way in ways(here, server.url).items():
            with looking(here.values) as look, suppress(MLAuthError, SystemExit):
                way()
            assert look.modules, name
            found |= look.found
    assert sorted(found) == []


def test_the_look_finds_a_value() -> None:
    """This shows that the test above can fail."""

    def ours() -> int:
        value = "canary-in-a-local"
        return len(value)

    source = {"__name__": "mlauth.pretended"}
    pretended = type(ours)(ours.__code__, source | {"len": len})
    with looking(["canary-in-a-local"]) as look:
        pretended()
    assert len(look.found) == 1


@pytest.mark.parametrize("where", ["file:///no-such-folder/key", "azurekv://acme-prod/key"])
def test_a_write_that_fails_shows_no_value(
    capfd: pytest.CaptureFixture[str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, reference = canary("written"), SecretReference.parse(where)
    store = SecretStore(reference.scheme)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9")  # of nobody

    secret = SecretStr(value)

    def write() -> None:
        store.write(reference, secret, timeout=2)

    with watching(capfd) as watch:
        watch.outcome(write)
        assert len(watch.raised) == 1
        assert leaks(watch.text(), value) == []

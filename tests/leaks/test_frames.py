"""No frame of ours has a plain value in its locals when an error leaves it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import mlauth
from mlauth import EnvironmentSecrets, ZenMLCredentials
from mlauth.errors import ActivationError
from mlauth.stores import memory
from tests.leaks.canaries import canary, leaks, zenml_key
from tests.leaks.watching import watching

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

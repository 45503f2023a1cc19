"""References are read as the worker, whatever identity an activation gives the flow, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

import mlauth
from mlauth.azure.tokens import tokens
from mlauth.environment import Activating
from mlauth.errors import IdentityUnavailable
from mlauth.record import OWN, RECORD
from mlauth.report import CheckReport
from mlauth.systems import Exports
from tests.support.azure import Azure, become
from tests.support.identity import Identity

CANARY = "canary-of-the-vault"


class Place:
    """A vault that the worker and the flow may read; its log says who asked."""

    def __init__(self, azure: Azure, folder: Path) -> None:
        self.azure, self.folder = azure, folder
        self.worker, self.flow = azure.identity("get"), azure.identity("get")
        vault = azure.vault()
        vault.put("key", CANARY)
        self.reference = f"azurekv://{vault.name}/key"

    def variables(self, kind: str, identity: Identity) -> dict[str, str]:
        if kind == "workload_identity":
            (self.folder / identity.client_id).mkdir()
            return self.azure.workload_identity(self.folder / identity.client_id, identity)
        if kind == "user-assigned":
            other = self.azure.identity("get")
            environment = self.azure.environment(other, assigned=[identity])
            return {**environment, "AZURE_CLIENT_ID": identity.client_id}
        made: dict[str, str] = getattr(self.azure, kind)(identity)
        return made

    def read(self) -> None:
        tokens.cache_clear()
        assert mlauth.resolve(self.reference).get_secret_value() == CANARY

    def read_elsewhere(self) -> None:
        """Read in a process that ran no step, like an engine whose steps ran elsewhere."""
        code = "import sys, mlauth; assert mlauth.resolve(sys.argv[1]).get_secret_value()"
        subprocess.run([sys.executable, "-c", code, self.reference], check=True)

    def asked(self) -> tuple[int, int]:
        return len(self.worker.requests), len(self.flow.requests)


@pytest.fixture
def place(azure: Azure, tmp_path: Path) -> Iterator[Place]:
    yield Place(azure, tmp_path)
    tokens.cache_clear()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], None]:
    return partial(become, monkeypatch)


@contextmanager
def active(exports: Exports) -> Iterator[None]:
    activating = Activating([exports], CheckReport("test"))
    try:
        activating.activate(lambda _: None, owner=os.getpid())
        yield
    finally:
        activating.undo()


def as_secrets(variables: Mapping[str, str]) -> Exports:
    return Exports(secrets={name: SecretStr(text) for name, text in variables.items()})


def as_settings(variables: Mapping[str, str]) -> Exports:
    return Exports(settings=dict(variables))


WORKERS = ["environment", "user-assigned", "imds", "service_principal", "workload_identity"]


@pytest.mark.process
@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize("exported", [as_secrets, as_settings])
def test_whatever_the_order_of_steps_the_worker_is_who_asks(
    place: Place,
    worker: Callable[[Mapping[str, str]], None],
    kind: str,
    exported: Callable[[Mapping[str, str]], Exports],
) -> None:
    worker(place.variables(kind, place.worker))
    before = dict(os.environ)
    with active(exported(place.azure.service_principal(place.flow))):  # first what it was given
        place.read()
        with active(exported(place.azure.service_principal(place.azure.identity()))):  # once more
            place.read()
            place.read_elsewhere()
        place.read()
    assert place.asked() == (4, 0)
    place.read()  # first read
    with active(exported(place.azure.service_principal(place.flow))):
        place.read()
    assert place.asked() == (6, 0)
    assert dict(os.environ) == before


@pytest.mark.process
def test_an_emptied_variable_keeps_the_workers_own_value_too(
    place: Place, worker: Callable[[Mapping[str, str]], None]
) -> None:
    worker(place.variables("service_principal", place.worker))
    with active(Exports(emptied=("AZURE_CLIENT_SECRET", "AZURE_CLIENT_ID"))):
        assert os.environ["AZURE_CLIENT_SECRET"] == ""
        place.read()
        place.read_elsewhere()
    assert place.asked() == (2, 0)


@pytest.mark.process
def test_overlapping_activations_that_end_in_any_order_keep_the_workers_own_values(
    place: Place, worker: Callable[[Mapping[str, str]], None]
) -> None:
    worker(place.variables("user-assigned", place.worker))
    before = dict(os.environ)
    theirs = as_secrets(place.azure.service_principal(place.flow))
    first, second = (Activating([theirs], CheckReport("test")) for _ in range(2))
    first.activate(lambda _: None, owner=os.getpid())
    second.activate(lambda _: None, owner=os.getpid())
    first.undo()
    place.read()
    place.read_elsewhere()
    second.undo()
    assert place.asked() == (2, 0)
    assert dict(os.environ) == before


def test_only_variables_of_an_identity_are_kept_and_secret_ones_are_masked(
    place: Place, worker: Callable[[Mapping[str, str]], None]
) -> None:
    secret = "canary-of-the-worker"
    worker({"AZURE_CLIENT_SECRET": secret, "SOME_TOKEN": "canary-of-somebody"})
    with active(as_secrets({"AZURE_CLIENT_SECRET": "canary-2", "SOME_TOKEN": "canary-3"})):
        kept = {name for name in os.environ if name.startswith(OWN)}
        assert kept == {f"{OWN}AZURE_CLIENT_SECRET"}
        assert secret not in os.environ[RECORD]
        assert mlauth.masking.mask(f"a {secret}") == "a ***"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("environment", "IDENTITY_ENDPOINT"),
        ("imds", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        ("imds", "AZURE_FEDERATED_TOKEN_FILE"),
        ("imds", "MSI_ENDPOINT"),
        ("service_principal", "AZURE_REGIONAL_AUTHORITY_NAME"),
        ("workload_identity", "MSAL_FORCE_REGION"),
    ],
)
def test_changed_variables_that_libraries_read_themselves_are_refused(
    place: Place, worker: Callable[[Mapping[str, str]], None], kind: str, name: str
) -> None:
    worker(place.variables(kind, place.worker))
    with active(as_settings({name: "http://127.0.0.1:1"})):
        tokens.cache_clear()
        with pytest.raises(IdentityUnavailable, match=f"the flow was given another {name}"):
            mlauth.resolve(place.reference)
    assert place.asked() == (0, 0)
    place.read()

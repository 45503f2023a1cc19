"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from mlauth import masking
from mlauth.systems.zenml import isolation
from tests.support.accounts import Account, new_account
from tests.support.azure import Azure
from tests.support.azure import azure as start_azure
from tests.support.environment import child_environment
from tests.support.servers import PrefectServer, ProcessWorker, ZenMLServer

if TYPE_CHECKING:
    from selenium import webdriver

QUICK_HASHES = Path(__file__).parent / "support" / "quick_hashes"

# What else the machine does fails no test; pytest-timeout ends one that hangs.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell's background job ignores Ctrl-C, and hands that on: tests that send one need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def untraced() -> Iterator[None]:
    """Start processes without coverage: servers run none of our code, and would run slower."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def zenml_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZenMLServer]:
    """A ZenML server; tests share it, so each makes accounts of its own."""
    # A load is to meet a server that has to work for its logins.
    quick = {} if request.config.option.markexpr == "load" else {"PYTHONPATH": str(QUICK_HASHES)}
    with ExitStack() as stack:
        with untraced():
            server = ZenMLServer(tmp_path_factory.mktemp("zenml"), env=quick)
            stack.enter_context(server)
        yield server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server without its UI; tests share it, so each names its deployments."""
    with ExitStack() as stack:
        with untraced():
            folder = tmp_path_factory.mktemp("prefect")
            server = stack.enter_context(PrefectServer(folder, ui=False))
        yield server


@pytest.fixture(scope="session")
def process_worker(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer
) -> Iterator[ProcessWorker]:
    """A process worker of the pool `tests`; a test of what a run leaves in it starts its own."""
    with ExitStack() as stack:
        with untraced():  # it imports Prefect and ZenML for every run; other workers are traced
            folder = tmp_path_factory.mktemp("worker")
            worker = stack.enter_context(ProcessWorker(folder, prefect_server, pool="tests"))
        yield worker


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """Key Vault and the identity endpoints; tests share it, so each makes vaults of its own."""
    with start_azure(tmp_path_factory.mktemp("azure")) as started:
        yield started


def unguard_output() -> None:
    """Let this process write as it is, so that what a test finds there is not masked meanwhile."""
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        for each in (stream, getattr(stream, "buffer", None)):
            while isinstance(write := getattr(each, "write", None), masking._MaskedWrite):
                each.write = write._inner


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test resolved masks nothing here: some of their secrets are common words."""
    unguard_output()
    monkeypatch.setattr(masking, "_values", set())
    monkeypatch.setattr(masking, "_spellings", [])
    monkeypatch.setattr(masking, "_lines", {})


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without ZenML's and mlauth's variables, and a home of the test's own."""
    for name in list(os.environ):
        if name.startswith(("ZENML_", "MLAUTH_", "PREFECT_")) or name == isolation.NO_DISK:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    temporary = tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ZENML_ANALYTICS_OPT_IN", "false")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR anew
    return home


@pytest.fixture
def account(zenml_server: ZenMLServer, tmp_path: Path) -> Account:
    """A service account of the test's own."""
    return new_account(zenml_server, tmp_path)


@pytest.fixture(scope="session")
def component_flavor(zenml_server: ZenMLServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flavor of our stack component, registered by the command that its user types."""
    folder = tmp_path_factory.mktemp("flavor")
    environment = child_environment(
        folder,
        {
            "ZENML_STORE_URL": zenml_server.url,
            "ZENML_STORE_API_TOKEN": zenml_server.admin_token().get_secret_value(),
            isolation.NO_DISK: "true",
        },
    )
    command = "zenml alerter flavor register zenml_mlauth.ServiceAccountCheckFlavor".split()
    command[0] = str(Path(sys.executable).with_name("zenml"))
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def browser_arguments() -> list[str]:
    """More arguments for the browser; a test that needs some has its own fixture of this name."""
    return []


@pytest.fixture
def browser(
    tmp_path_factory: pytest.TempPathFactory, browser_arguments: list[str]
) -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, headless: `make test-browser`."""
    from selenium import webdriver

    # A short path: Chromium makes sockets there, whose names have 107 characters at most.
    folder = tmp_path_factory.mktemp("b")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-3d-apis",
        "force-prefers-reduced-motion",
        "disable-dev-shm-usage",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1400,1000",
        f"user-data-dir={folder / 'profile'}",
        *browser_arguments,
    ):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(
        "/usr/bin/chromedriver", env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    )
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()

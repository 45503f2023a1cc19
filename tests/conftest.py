"""Real servers for the tests, each started once a session and only when a test asks for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from pydantic import SecretStr

from mlauth import masking
from tests.support.accounts import Account, new_account
from tests.support.azure import Azure
from tests.support.azure import azure as start_azure
from tests.support.environment import foreign
from tests.support.reverse_proxy import proxy
from tests.support.servers import PrefectServer, ProcessWorker, ZenMLServer
from tests.support.session import Desk, Servers, ask_desk
from tests.support.signals import watch_signals

if TYPE_CHECKING:
    from selenium import webdriver

Ask = Callable[..., Any]
ASK = pytest.StashKey[Ask]()
SERVERS = pytest.StashKey[Servers]()
DESK = pytest.StashKey[Desk]()

# Hypothesis would fail slow examples. A busy machine may be slow, and pytest-timeout ends a test
# that hangs.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A background job of a shell ignores Ctrl-C, and child processes inherit that. Tests that send
# Ctrl-C need the default handler.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Start servers in this process, or ask the controller of pytest-xdist for them."""
    given = getattr(config, "workerinput", None)
    if given is None:
        config.stash[SERVERS] = servers = Servers(load=config.option.markexpr == "load")
        config.stash[ASK] = servers.ask
    else:
        config.stash[ASK] = partial(ask_desk, *given["desk"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that pytest-xdist starts the address of the controller."""
    stash = node.config.stash
    if DESK not in stash:
        watch_signals()  # its thread cannot
        stash[DESK] = Desk(stash[SERVERS])
    node.workerinput["desk"] = (stash[DESK].address, stash[DESK].key)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers."""
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a real server: `make unit` leaves them out."""
    for item in items:
        if "ask" in getattr(item, "fixturenames", ()):
            item.add_marker("server")


@pytest.fixture(scope="session")
def ask(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """`Servers.ask`, with a folder that is the same in all processes of the session."""
    folder = tmp_path_factory.getbasetemp()
    if SERVERS not in pytestconfig.stash:
        folder = folder.parent
    return partial(pytestconfig.stash[ASK], folder / "servers")


@pytest.fixture(scope="session")
def zenml_server(ask: Ask) -> ZenMLServer:
    """A ZenML server; tests share it, so each makes accounts of its own."""
    folder, port, password = ask("zenml")
    server = ZenMLServer(folder, port=port)
    server.admin_password = SecretStr(password)
    return server


@pytest.fixture(scope="session")
def prefect_server(ask: Ask) -> PrefectServer:
    """A Prefect server without its UI; tests share it, so each names its deployments."""
    folder, port = ask("prefect")
    return PrefectServer(folder, port=port)


@pytest.fixture(scope="session")
def process_worker(ask: Ask, prefect_server: PrefectServer, worker_id: str) -> ProcessWorker:
    """A process worker. A test of what a run leaves in a worker starts its own.

    Each process that runs tests has one, so that its log and folder show one run after another.
    """
    folder = ask("worker", worker_id)
    return ProcessWorker(folder, prefect_server, pool=folder.name)


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """Key Vault and the identity endpoints; tests share it, so each makes vaults of its own."""
    with start_azure(tmp_path_factory.mktemp("azure")) as started:
        yield started


def unguard_output() -> None:
    """Stop masking the output of this process, so that a test sees it unmasked."""
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        for each in (stream, getattr(stream, "buffer", None)):
            while isinstance(write := getattr(each, "write", None), masking._MaskedWrite):
                each.write = write._inner


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests: some are common words, and would be masked here."""
    unguard_output()
    monkeypatch.setattr(masking, "_values", set())
    monkeypatch.setattr(masking, "_spellings", [])
    monkeypatch.setattr(masking, "_lines", {})


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without the variables of systems, and a home of the test's own."""
    for name in filter(foreign, list(os.environ)):
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


@pytest.fixture(scope="session")
def documents_key(ask: Ask, zenml_server: ZenMLServer) -> str:
    """A key of the account that the documents name, `prefect-prod`."""
    return str(ask("account", "prefect-prod"))


@pytest.fixture
def account(zenml_server: ZenMLServer, tmp_path: Path) -> Account:
    """A service account of the test's own."""
    return new_account(zenml_server, tmp_path)


@pytest.fixture
def counted(account: Account) -> Iterator[Account]:
    """The account of the test, with a count of its logins."""
    with proxy(account.server.url) as account.between:
        yield account


@pytest.fixture(scope="session")
def component_flavor(ask: Ask, zenml_server: ZenMLServer) -> None:
    """The flavor of our stack component, registered by the command that its user types."""
    ask("flavor")


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

"""A run trusts one file of certificates, in checks and in every client."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trustme

import mlauth
from mlauth import Profile, Stage, Status, ZenMLCredentials
from mlauth.stores import memory
from mlauth.systems import Credentials
from mlauth.trust import certificates
from tests.support.faults import FaultyServer, Reply, answer, faulty
from tests.support.hub import TOKEN, HubCredentials
from tests.support.zenml_keys import api_key

pytestmark = pytest.mark.usefixtures("clean_environment")


class Company:
    """A CA of a company's own, in a file beside a private key, and a service behind it."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        authority = trustme.CA()
        self.pem = authority.cert_pem.bytes()
        self.file = folder / f"{name}.pem"
        private = trustme.CA().issue_cert("other.test").private_key_pem.bytes()
        self.file.write_bytes(b"# caf\xc3\xa9\n" + self.pem + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._stack, self._context = stack, context

    def serves(self, *replies: Any) -> FaultyServer:
        return self._stack.enter_context(faulty(*replies, tls=self._context))


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    memory.put("zenml", api_key())
    memory.put("hub", TOKEN)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Company]:
    with ExitStack() as stack:
        yield Company(tmp_path, "first", stack)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Company]:
    with ExitStack() as stack:
        yield Company(tmp_path, "second", stack)


def zenml(url: str = "https://zenml.corp.test", **fields: Any) -> ZenMLCredentials:
    return ZenMLCredentials.of("test", {"store_url": url, "api_key": "memory://zenml", **fields})


def hub(url: str, **fields: Any) -> HubCredentials:
    return HubCredentials.of("test", {"url": url, "token": "memory://hub", **fields})


def profile(*found: Credentials) -> Profile:
    class Several(Profile):
        def credentials(self) -> list[Credentials]:
            return list(found)

    return Several()


def trusted() -> str:
    return Path(os.environ["REQUESTS_CA_BUNDLE"]).read_text()


def test_a_run_without_a_bundle_trusts_what_it_did(tmp_path: Path) -> None:
    with mlauth.activate(zenml(), verify=False):
        assert "REQUESTS_CA_BUNDLE" not in os.environ
        assert "SSL_CERT_FILE" not in os.environ


@pytest.mark.parametrize("as_text", [False, True])
def test_a_bundle_is_one_file_in_the_runs_folder_with_certificates_only(
    as_text: bool, first: Company, tmp_path: Path
) -> None:
    ca = first.pem.decode() if as_text else str(first.file)
    with mlauth.activate(zenml(ca_bundle=ca), verify=False) as activation:
        file = Path(os.environ["REQUESTS_CA_BUNDLE"])
        assert os.environ["SSL_CERT_FILE"] == str(file)
        assert {"REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"} < set(activation.variables)
        assert "ZENML_STORE_VERIFY_SSL" not in activation.variables
        assert activation.warnings == ()
        assert file.parent == Path(os.environ["ZENML_CONFIG_PATH"]).parent
        content = file.read_text()
        assert first.pem.decode().strip() in content
        assert content.count("BEGIN CERTIFICATE") > 50  # and certifi's
        assert "PRIVATE" not in content
    assert not file.exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_the_cas_of_the_environment_stay_trusted(
    first: Company, second: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [trustme.CA().cert_pem.bytes().decode() for _ in range(3)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "0a1b2c3d.0").write_text(others[0])
    (tmp_path / "curl.pem").write_text(others[1])
    (tmp_path / "ssl.pem").write_text(others[2])
    wanted = {
        ("REQUESTS_CA_BUNDLE", str(second.file)): second.pem.decode(),
        ("REQUESTS_CA_BUNDLE", str(folder)): others[0],
        ("CURL_CA_BUNDLE", str(tmp_path / "curl.pem")): others[1],
        ("SSL_CERT_FILE", str(tmp_path / "ssl.pem")): others[2],
    }
    for (name, place), pem in wanted.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, place)
            with mlauth.activate(zenml(ca_bundle=str(first.file)), verify=False) as activation:
                assert [each in trusted() for each in (pem.strip(), first.pem.decode().strip())]
                assert trusted().count("BEGIN") == 2
                assert activation.warnings == ()
            assert os.environ[name] == place


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize(
    ("place", "said"),
    [("/not/there.pem", "does not exist"), ("FOLDER/empty", "cannot be read as PEM certificates")],
)
def test_a_bundle_of_the_environment_that_cannot_be_read_is_one_line(
    name: str, place: str, said: str, first: Company, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(mlauth.MLAuthError, match=rf"{said}: correct {name}$") as caught:
        certificates({"hub": str(first.file)}, {name: place.replace("FOLDER", str(tmp_path))})
    assert str(caught.value).isprintable()


def ok(body: object) -> Reply:
    return answer(200, json.dumps(body).encode())


ZENML = {  # a right answer to every request
    "version": "0.98.0",
    "deployment_type": "other",
    "database_type": "sqlite",
    "secrets_store_type": "sql",
    "auth_scheme": "OAUTH2_PASSWORD_BEARER",
    "access_token": "canary.token",
    "name": "flows",
    "body": {"is_service_account": True},
}
HUB = [ok("7.1"), ok({"name": "hub-prod"})]


def test_the_cas_of_two_sections_are_trusted_by_both_checks_and_all_clients(
    first: Company, second: Company
) -> None:
    server, other = first.serves(ok(ZENML)), second.serves(*HUB)
    two = profile(
        zenml(server.url, ca_bundle=str(first.file)),
        hub(other.url, ca_bundle=second.pem.decode()),
    )
    with mlauth.activate(two) as activation:
        assert activation.accounts == {"zenml": "flows", "hub": "hub-prod"}
        for each in (server, other):
            assert requests.get(each.url, timeout=5).ok
            assert httpx.get(each.url).is_success


def test_a_bundle_that_cannot_be_used_is_named_with_its_section(
    first: Company, tmp_path: Path
) -> None:
    (tmp_path / "damaged.pem").write_bytes(first.pem.replace(b"MII", b"MIA"))
    for name, why in (("none", "does not exist"), ("damaged", "cannot be read as PEM certific")):
        place = tmp_path / f"{name}.pem"
        two = profile(
            zenml(ca_bundle=str(first.file)), hub("https://hub.corp.test", ca_bundle=str(place))
        )
        report = mlauth.check(two, timeout=5)
        for each in report.systems:
            assert each.status is Status.FAILED
            assert f"the CA bundle {place} {why}" in each.summary()
            assert each.summary().endswith(": correct ca_bundle of [hub]")


def test_the_cas_of_one_section_count_for_the_other(first: Company) -> None:
    other = first.serves(*HUB)
    two = profile(zenml(first.serves(ok(ZENML)).url, ca_bundle=str(first.file)), hub(other.url))
    report = mlauth.check(two)
    assert report.status is Status.PASSED, report.summary()
    alone = mlauth.check(hub(other.url))
    assert alone.results[-1].stage is Stage.REACHABLE
    assert "is from a CA that is not trusted here" in alone.summary()


class TestZenMLsClient:
    """It takes what the run trusts, and not what `ZENML_STORE_VERIFY_SSL` names."""

    CODE = """
from zenml.config.global_config import GlobalConfiguration
from zenml.zen_stores.rest_zen_store import RestZenStore
configuration = GlobalConfiguration().store_configuration
print(RestZenStore(config=configuration, skip_default_registrations=True).server_info.version)
"""

    @pytest.mark.process
    @pytest.mark.parametrize(
        "given",
        [
            "off and field",
            *(pytest.param(each, marks=pytest.mark.load) for each in ("field", "path", "text")),
        ],
    )
    def test_it_trusts_the_same_cas_as_the_check(
        self,
        given: str,
        first: Company,
        monkeypatch: pytest.MonkeyPatch,
        clean_environment: Path,
    ) -> None:
        said = {"path": str(first.file), "text": first.pem.decode(), "off and field": "false"}
        if given in said:
            monkeypatch.setenv("ZENML_STORE_VERIFY_SSL", said[given])
        fields = {"ca_bundle": str(first.file)} if "field" in given else {}
        server = first.serves(ok(ZENML))
        with mlauth.activate(zenml(server.url, **fields)) as activation:
            assert activation.account == "flows"
            assert activation.warnings == ()
            assert os.environ.get("ZENML_STORE_VERIFY_SSL", "true") == "true"
            asked = len(server.requests)
            done = subprocess.run(
                [sys.executable, "-c", self.CODE], capture_output=True, text=True, timeout=100
            )
            assert done.stdout.split()[-1:] == ["0.98.0"], done.stderr
            assert len(server.requests) > asked
        assert os.environ.get("ZENML_STORE_VERIFY_SSL") == said.get(given)
        # No file that other runs would trust.
        assert not [*clean_environment.rglob("*.pem")]

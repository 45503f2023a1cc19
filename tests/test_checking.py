"""The stages of a check, on a real ZenML server."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest
import requests
import trustme
from pydantic import SecretStr

import mlauth
from mlauth import CheckReport, Profile, Stage, Status, ZenMLCredentials
from mlauth.stores import memory
from tests.support.accounts import Account
from tests.support.faults import FaultyServer, answer, faulty
from tests.support.servers import ZenMLServer
from tests.support.zenml_keys import api_key

ZENML_VERSION = metadata.version("zenml")

pytestmark = pytest.mark.usefixtures("clean_environment")


def credentials(account: Account, **fields: object) -> ZenMLCredentials:
    start = {"store_url": account.url, "api_key": account.reference}
    return ZenMLCredentials.of("test", {**start, **fields})


def failed(report: CheckReport, stage: Stage, status: Status = Status.FAILED) -> str:
    """Return the one line of the stage that did not pass; it must be the last."""
    last = report.results[-1]
    assert (last.stage, last.status) == (stage, status), report.summary()
    assert report.status is status
    assert all(result.status is Status.PASSED for result in report.results[:-1])
    assert "\n" not in report.summary()
    assert last.detail in report.summary()
    assert "canary" not in repr(report)
    return last.detail


@pytest.mark.usefixtures("counted")
def test_a_right_account_passes_every_stage_with_one_login(account: Account) -> None:
    before = account.logins()
    report = mlauth.check(
        credentials(account, service_account=account.name, stack="default", project="default")
    )
    assert account.logins() == before + 1
    assert report.status is Status.PASSED
    assert [result.stage for result in report.results] == list(Stage)
    assert report.accounts["zenml"] == account.name
    assert report.systems[0].facts["server_version"]
    assert report.summary() == f"zenml credentials: passed as {account.name!r}"
    assert account.key not in repr(report) + json.dumps(report.to_dict())
    assert json.loads(json.dumps(report.to_dict()))["status"] == "passed"


def test_a_key_that_the_server_does_not_know(account: Account) -> None:
    account.file.write_text(api_key())
    detail = failed(mlauth.check(credentials(account)), Stage.AUTHENTICATED)
    assert "does not know the key: it was deleted, or belongs to another server" in detail


def test_a_rotated_key(account: Account) -> None:
    account.server.rotate_api_key(account.id, account.key_id)
    detail = failed(mlauth.check(credentials(account)), Stage.AUTHENTICATED)
    assert "was rotated: put the new one into the store" in detail


def test_an_inactive_key(account: Account) -> None:
    account.server.set_api_key_active(account.id, account.key_id, False)
    detail = failed(mlauth.check(credentials(account)), Stage.AUTHENTICATED)
    assert "the key is not active: `zenml service-account api-key" in detail


def test_an_inactive_account(account: Account) -> None:
    account.server.set_service_account_active(account.id, False)
    detail = failed(mlauth.check(credentials(account)), Stage.AUTHENTICATED)
    assert "the service account is not active: `zenml service-account update" in detail


def test_a_wrong_account_names_both(account: Account) -> None:
    report = mlauth.check(credentials(account, service_account="somebody-else"))
    detail = failed(report, Stage.AUTHORIZED)
    assert f"as service account {account.name!r}, not as 'somebody-else'" in detail
    assert report.accounts["zenml"] == account.name


def test_secrets_that_are_parts_of_names_change_no_comparison(account: Account) -> None:
    parts = {"ACCOUNT": account.name[:7], "STACK": "defau", "VERSION": ZENML_VERSION[:4]}
    for name, part in parts.items():
        memory.put(name.lower(), part)
    profile = Profile.model_validate(
        {
            "zenml": {
                "store_url": account.url,
                "api_key": account.reference,
                "service_account": account.name,
                "stack": "default",
                "project": "default",
            },
            "env": {name: f"memory://{name.lower()}" for name in parts},
        }
    )
    report = mlauth.check(profile)
    assert report.status is Status.PASSED, report.summary()
    assert report.warnings == []
    # The name in the profile is no secret. A name from the server alone may echo the key.
    assert report.accounts["zenml"] == account.name
    masked = account.name.replace(parts["ACCOUNT"], "***")
    assert mlauth.check(credentials(account)).accounts["zenml"] == masked
    detail = failed(mlauth.check(credentials(account, service_account="other")), Stage.AUTHORIZED)
    assert f"as service account {masked!r}, not as 'other'" in detail


@pytest.mark.parametrize("kind", ["stack", "project"])
def test_a_stack_or_project_that_is_not_there(account: Account, kind: str) -> None:
    detail = failed(mlauth.check(credentials(account, **{kind: "nowhere"})), Stage.AUTHORIZED)
    assert f"has no {kind} 'nowhere' that {account.name!r} can see: `zenml {kind} list`" in detail


@pytest.mark.usefixtures("counted")
def test_a_value_of_the_wrong_shape_is_never_sent(account: Account) -> None:
    before = account.logins()
    account.file.write_text(f'"{account.key}"')
    detail = failed(mlauth.check(credentials(account)), Stage.WELL_FORMED)
    assert detail == f"the value of {account.reference} is in quotes: store it again without them"
    assert account.logins() == before


def test_a_secret_that_is_not_there(account: Account) -> None:
    account.file.unlink()
    assert "is the secret mounted?" in failed(mlauth.check(credentials(account)), Stage.RESOLVED)


INFO = answer(200, b'{"version": "0.98.0"}')
LOGGED_IN = answer(200, b'{"access_token": "canary.token", "expires_in": null}')


USER = b'{"name": "flows", "body": {"is_service_account": true}}'


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        (
            "prefect-pr\u043ed",
            "prefect-prod",
            "account 'prefect-pr\\u043ed', not as 'prefect-prod'",
        ),
        ("pr\u00e9fect", "pre\u0301fect", "account 'pr\\xe9fect', not as 'pre\\u0301fect'"),
        ("\x1b[2Jme\n", "me", "account '\\x1b[2Jme\\n', not as 'me'"),
        ("a" * 500_000, "me", "/api/v1/current-user answers 200"),
        ("a" * 500_000, None, "/api/v1/current-user answers 200"),
    ],
)
def test_a_name_that_looks_like_another_or_is_too_long_is_one_readable_line(
    tmp_path: Path, name: str, expected: str | None, said: str
) -> None:
    (tmp_path / "key").write_text(api_key())
    user = {"name": name, "body": {"is_service_account": True}}
    with faulty(INFO, LOGGED_IN, answer(200, json.dumps(user).encode())) as server:
        report = mlauth.check(
            ZenMLCredentials.of(
                "test",
                {
                    "store_url": server.url,
                    "api_key": f"file://{tmp_path}/key",
                    "service_account": expected,
                },
            )
        )
    assert said in report.summary()
    assert report.summary().isprintable()
    assert len(repr(report)) < 5000


def test_a_token_that_expires_is_said_with_its_end(account: Account) -> None:
    login = answer(200, b'{"access_token": "token-canary", "expires_in": 3600}')
    with faulty(INFO, login, answer(200, USER)) as server:
        report = mlauth.check(credentials(account, store_url=server.url))
    assert report.status is Status.PASSED
    (warning,) = report.warnings
    assert warning.startswith("the login's token expires at 20")
    assert report.systems[0].facts["expires_at"].endswith("+00:00")


def test_versions_that_differ_are_a_warning(account: Account) -> None:
    with faulty(answer(200, b'{"version": "0.55.0"}'), LOGGED_IN, answer(200, USER)) as server:
        report = mlauth.check(credentials(account, store_url=server.url))
    assert report.status is Status.PASSED
    assert report.warnings[0].startswith("the server is ZenML 0.55.0 and the client ")


@pytest.mark.load
def test_a_server_with_a_certificate_of_the_companys_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    with ZenMLServer(folder / "zenml", tls=(folder / "cert.pem", folder / "key.pem")) as server:
        account = server.create_service_account("tls")
        _, key = server.create_api_key(account, "test")
        memory.put("tls", key.get_secret_value())
        start = {"store_url": server.url, "api_key": "memory://tls"}
        without = mlauth.check(ZenMLCredentials.of("test", start))
        assert "give the CA as ca_bundle" in failed(without, Stage.REACHABLE)
        trusting = ZenMLCredentials.of("test", {**start, "ca_bundle": str(folder / "ca.pem")})
        assert mlauth.check(trusting).status is Status.PASSED
        with mlauth.activate(trusting) as activation:
            assert "REQUESTS_CA_BUNDLE" in activation.variables
            from zenml.client import Client

            assert Client().active_user.name == "tls"
            # Another account, on a server with another CA, in another process of this user.
            other = trustme.CA()
            other.cert_pem.write_to_path(str(folder / "other.pem"))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            other.issue_cert("127.0.0.1").configure_cert(context)
            info = requests.get(f"{server.url}/api/v1/info", verify=str(folder / "ca.pem")).content
            with faulty(answer(200, info), tls=context) as second:
                done = subprocess.run(
                    [sys.executable, "-c", OTHER_CLIENT, second.url, str(folder / "other.pem")],
                    env=dict(os.environ),
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, done.stderr
                assert second.requests
            store = Client().zen_store
            store.reinitialize_session()  # type: ignore[attr-defined]
            assert store.get_user().name == "tls"


OTHER_CLIENT = """
import sys
import mlauth
from mlauth.stores import memory
from tests.support.zenml_keys import api_key

memory.put("other", api_key())
fields = {"store_url": sys.argv[1], "api_key": "memory://other", "ca_bundle": sys.argv[2]}
with mlauth.activate(mlauth.ZenMLCredentials.of("test", fields), verify=False):
    from zenml.config.global_config import GlobalConfiguration
    from zenml.zen_stores.rest_zen_store import RestZenStore

    configuration = GlobalConfiguration().store_configuration
    print(RestZenStore(config=configuration, skip_default_registrations=True).server_info.version)
"""


def test_a_ca_bundle_is_one_file_or_text(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENML_STORE_VERIFY_SSL", str(tmp_path))
    with mlauth.activate(credentials(account)) as activation:  # with http, no CA is read
        assert "REQUESTS_CA_BUNDLE" not in activation.variables
    detail = failed(mlauth.check(credentials(account, ca_bundle=str(tmp_path))), Stage.CONFIGURED)
    assert detail == (
        f"the CA bundle {tmp_path} is a directory, which ZenML's client does not take: correct "
        "ca_bundle"
    )


def test_a_profile_is_checked_as_a_whole(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "canary-value")
    profile = Profile.model_validate(
        {
            "zenml": {"store_url": account.url, "api_key": account.reference},
            "env": {"TOKEN": "env://CANARY_TOKEN", "MISSING": "env://MLAUTH_TEST_NOWHERE"},
        }
    )
    report = mlauth.check(profile)
    assert report.status is Status.FAILED
    by_system = {(result.system, result.stage): result.status for result in report.results}
    assert by_system["zenml", Stage.AUTHORIZED] is Status.PASSED
    assert by_system["env", Stage.RESOLVED] is Status.FAILED
    assert "canary-value" not in repr(report)


class TestTheEnvironment:
    """`mlauth check` without a profile."""

    @pytest.fixture(autouse=True)
    def _set(self, monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
        self.set, self.account = monkeypatch.setenv, account

    def given(self, **variables: str) -> CheckReport:
        for name, value in variables.items():
            self.set(name, value)
        return mlauth.check()

    def test_the_right_variables_pass(self) -> None:
        report = self.given(
            ZENML_STORE_URL=self.account.url + "/", ZENML_STORE_API_KEY=self.account.key
        )
        assert report.status is Status.PASSED, report.summary()
        assert report.accounts["zenml"] == self.account.name

    @pytest.mark.usefixtures("counted")
    def test_a_token_passes_without_a_login(self) -> None:
        answered = httpx.post(
            f"{self.account.url}/api/v1/login",
            data={"grant_type": "zenml-api-key", "password": self.account.key},
        )
        before = self.account.logins()
        report = self.given(
            ZENML_STORE_URL=self.account.url,
            ZENML_STORE_API_TOKEN=answered.json()["access_token"],
        )
        assert report.status is Status.PASSED
        assert self.account.logins() == before

    def test_a_persons_session_is_not_a_service_account(self) -> None:
        server, name = self.account.server, f"person-{uuid.uuid4().hex[:6]}"
        server.create_user(name, SecretStr("canary-password-1"))
        answered = httpx.post(
            f"{server.url}/api/v1/login",
            data={"grant_type": "password", "username": name, "password": "canary-password-1"},
        )
        report = self.given(
            ZENML_STORE_URL=server.url, ZENML_STORE_API_TOKEN=answered.json()["access_token"]
        )
        detail = failed(report, Stage.AUTHORIZED)
        assert f"as the person {name!r}, not as a service account" in detail

    def test_nothing_at_all_would_run_on_a_local_store(self) -> None:
        detail = failed(self.given(), Stage.CONFIGURED)
        assert detail.endswith(
            "no variable of ZenML is set here (ZENML_STORE_URL, ZENML_STORE_API_KEY), so ZenML "
            "would run on a local store: set them, or name a profile"
        )
        report = self.given(ZENML_STORE_API_KEY=self.account.key)
        assert failed(report, Stage.CONFIGURED) == (
            "ZENML_STORE_URL is not set: ZenML would run on a local store here"
        )

    def test_near_misses_are_named_with_the_right_names(self) -> None:
        detail = failed(self.given(ZENML_URL="https://canary"), Stage.CONFIGURED)
        assert detail.endswith("would run on a local store: the name is ZENML_STORE_URL")
        report = self.given(
            ZENML_STORE_URL=self.account.url,
            ZENML_STORE_API_KEY=self.account.key,
        )
        assert report.status is Status.PASSED
        (warning,) = report.warnings
        assert warning.startswith("ZENML_URL is ignored by ZenML")

    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({}, "neither ZENML_STORE_API_KEY nor ZENML_STORE_API_TOKEN is set"),
            (
                {"ZENML_STORE_URL": "http://10.0.0.1", "ZENML_STORE_API_KEY": "x"},
                "in clear: use https",
            ),
            (
                {"ZENML_STORE_URL": "canary", "ZENML_STORE_API_KEY": "x"},
                "ZENML_STORE_URL: must start with https://",
            ),
            ({"ZENML_STORE_API_KEY": "x", "ZENML_STORE_TYPE": "sql"}, "is not 'rest'"),
            ({"ZENML_STORE_USERNAME": "canary"}, "ZENML_STORE_USERNAME is set"),
            ({"ZENML_API_KEY": "canary"}, "the name is ZENML_STORE_API_KEY"),
        ],
    )
    @pytest.mark.usefixtures("counted")
    def test_variables_that_cannot_work_fail_before_anything_is_sent(
        self, variables: dict[str, str], said: str
    ) -> None:
        before = self.account.logins()
        report = self.given(**{"ZENML_STORE_URL": self.account.url, **variables})
        assert said in failed(report, Stage.CONFIGURED)
        assert self.account.logins() == before

    def test_a_damaged_key_fails(self) -> None:
        report = self.given(
            ZENML_STORE_URL=self.account.url, ZENML_STORE_API_KEY=self.account.key[:-20]
        )
        assert "cut short or damaged" in failed(report, Stage.WELL_FORMED)

    def test_both_a_key_and_a_token_and_no_tls_are_warned_about(self) -> None:
        report = self.given(
            ZENML_STORE_URL=self.account.url,
            ZENML_STORE_API_KEY=self.account.key,
            ZENML_STORE_API_TOKEN="canary",
            ZENML_STORE_VERIFY_SSL="false",
        )
        assert len(report.warnings) == 2

    @pytest.fixture
    def detour(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
        for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        with faulty(answer(200)) as detour:
            monkeypatch.setenv("HTTP_PROXY", detour.url)
            yield detour
            assert detour.requests == []

    def test_a_proxy_before_a_server_on_this_machine_fails(self, detour: FaultyServer) -> None:
        url = self.account.url
        right = {"ZENML_STORE_URL": url, "ZENML_STORE_API_KEY": self.account.key}
        detail = failed(self.given(**right), Stage.CONFIGURED)
        assert detail == (
            f"{url} is this machine, but ZenML's client would send its key to the proxy of "
            "HTTP_PROXY or ALL_PROXY: put 127.0.0.1 into NO_PROXY"
        )
        assert self.given(**right, NO_PROXY="127.0.0.1").status is Status.PASSED

    def test_an_activation_makes_zenmls_client_go_straight_to_this_machine(
        self, detour: FaultyServer
    ) -> None:
        from zenml.client import Client

        self.set("NO_PROXY", "other.test")
        with mlauth.activate(credentials(self.account)) as activation:
            assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "other.test,127.0.0.1"
            assert Client().active_user.name == self.account.name
            assert activation.warnings == ()
        assert os.environ["NO_PROXY"] == "other.test"
        assert "no_proxy" not in os.environ

    @pytest.mark.parametrize("entry", ["machine 127.0.0.1", "default"])
    def test_an_entry_of_netrc_that_the_client_would_send_fails(
        self, entry: str, clean_environment: Path
    ) -> None:
        right = {
            "ZENML_STORE_URL": self.account.url,
            "ZENML_STORE_API_KEY": self.account.key,
        }
        netrc = clean_environment / ".netrc"
        netrc.write_text("machine other.test login canary password canary\n")
        assert self.given(**right).status is Status.PASSED
        netrc.write_text(f"{entry} login canary password canary\n")
        detail = failed(self.given(**right), Stage.CONFIGURED)
        assert detail.startswith("~/.netrc has an entry for 127.0.0.1 or a default one, and ZenML")
        assert failed(mlauth.check(credentials(self.account)), Stage.CONFIGURED) == detail
        assert self.given(**right, NETRC="/dev/null").status is Status.PASSED

    @pytest.mark.parametrize("value", ["", " true", "/nowhere/ca.pem", "FOLDER", "-----BEGIN x"])
    def test_a_ca_bundle_that_zenmls_client_cannot_use_fails(
        self, value: str, tmp_path: Path
    ) -> None:
        from zenml.zen_stores.rest_zen_store import RestZenStoreConfiguration

        value = value.replace("FOLDER", str(tmp_path))
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        self.set(
            "REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem")
        )  # with "true", this would be trusted
        self.set("ZENML_LOCAL_STORES_PATH", str(tmp_path / "stores"))
        with faulty(answer(200), tls=context) as server:
            for verify, passes in (("true", True), (value, False)):
                theirs = RestZenStoreConfiguration(url=server.url, verify_ssl=verify).verify_ssl
                try:
                    assert requests.get(server.url, verify=theirs, timeout=5).ok
                except OSError:  # errors of requests are OSErrors, too
                    assert not passes
                else:
                    assert passes
            report = self.given(
                ZENML_STORE_URL=server.url,
                ZENML_STORE_API_KEY=self.account.key,
                ZENML_STORE_VERIFY_SSL=value,
            )
        assert failed(report, Stage.CONFIGURED).endswith(": correct ZENML_STORE_VERIFY_SSL")


def test_a_walk_that_hangs_between_stages_is_unknown(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance a look at the environment that blocks on a network file system."""
    import threading

    hang = threading.Event()
    monkeypatch.setattr(ZenMLCredentials, "configured", lambda *_: hang.wait(30) or [])
    report = mlauth.check(credentials(account), timeout=0.3)
    assert report.status is Status.UNKNOWN
    assert "no answer within 0.3 s" in report.summary()
    hang.set()

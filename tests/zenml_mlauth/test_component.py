"""Pipelines on stacks with the component, on a real ZenML server."""

from __future__ import annotations

import json
import os
import uuid
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from zenml.client import Client
from zenml.config import DockerSettings
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import StackComponentType
from zenml.exceptions import StackValidationError
from zenml.login.credentials_store import get_credentials_store
from zenml.models import OAuthTokenResponse
from zenml.utils.pipeline_docker_image_builder import PipelineDockerImageBuilder

import mlauth
import zenml_mlauth
from mlauth import EnvironmentSecrets, hosts
from mlauth.errors import CheckFailed, InvalidComponent
from mlauth.systems.zenml import isolation
from tests.support.accounts import LOGIN, Account
from tests.support.faults import answer, faulty
from tests.support.profiles import write_profile
from tests.support.reverse_proxy import Request, proxy
from tests.support.search import search
from tests.support.servers import ZenMLServer
from tests.support.zenml_client import forget_client
from tests.support.zenml_keys import api_key
from tests.zenml_mlauth.conftest import connected, environment, make_stack
from tests.zenml_mlauth.pipelines import (
    OTHER_TOKEN,
    fails,
    step_log,
    traced,
    two_processes,
    two_steps,
)
from tests.zenml_mlauth.printing import prints
from zenml_mlauth import ServiceAccountCheckFlavor, connection

USERS = "/api/v1/current-user"


def stopped() -> str:
    """Run the pipeline, which must stop before its first step; return why, which is one line."""
    with pytest.raises(StackValidationError) as caught:
        two_steps()
    assert traced() == []
    line = str(caught.value)
    assert "\n" not in line
    return line


def stored_logs() -> str:
    """Return what ZenML's log store holds, which is in the test's local artifact store."""
    entries = [
        json.loads(line)["message"]
        for path in Path(os.environ["HOME"]).rglob("logs/**/*.log")
        for line in path.read_text().splitlines()
    ]
    return "\n".join(entries)


def step_failed() -> pytest.RaisesExc[RuntimeError]:
    return pytest.raises(RuntimeError, match=r"failure in step\(s\)")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "mlauth" and record.levelname == "WARNING"
    ]


def metadata_of(run_id: uuid.UUID) -> dict[str, object]:
    """Return the component's metadata of a run, from the server."""
    run = Client().get_pipeline_run(run_id)
    found = run.run_metadata["service_account_check"]
    assert isinstance(found, dict)
    return found


def test_a_pipeline_of_the_right_account_runs_and_the_run_says_who_ran_it(me: Account) -> None:
    make_stack(service_account=me.name)
    before = datetime.now(timezone.utc).replace(microsecond=0)
    run = two_steps()
    assert run.status == "completed"
    assert traced() == ["first", "second"]
    written = metadata_of(run.id)
    assert written["account"] == me.name
    assert written["server"] == me.url
    assert written["server_version"] == metadata.version("zenml")
    assert written["status"] == "passed"
    seen_at = datetime.fromisoformat(str(written["seen_at"]))
    assert before <= seen_at <= datetime.now(timezone.utc)
    stages = {name: value for name, value in written.items() if name[0].isdigit()}
    assert sorted(stages) == [
        "1. zenml configured",
        "2. zenml reachable",
        "3. zenml compatible",
        "4. zenml authenticated",
        "5. zenml authorized",
    ]
    assert all(str(value).startswith("passed in ") for value in stages.values())


def test_a_pipeline_of_the_wrong_account_stops_before_its_first_step(me: Account) -> None:
    make_stack(service_account="prefect-prod")
    line = stopped()
    assert me.url in line
    assert f"as service account {me.name!r}, not as 'prefect-prod'" in line
    assert me.key not in line


def test_a_pipeline_in_a_persons_session_stops(zenml_server: ZenMLServer, registered: None) -> None:
    with environment(
        ZENML_STORE_URL=zenml_server.url,
        ZENML_STORE_API_TOKEN=zenml_server.admin_token().get_secret_value(),
    ):
        make_stack(service_account="prefect-prod")
        line = stopped()
        make_stack()  # no name is expected, but a service account is
        assert "as the person 'admin', not as a service account" in stopped()
    assert zenml_server.url in line
    assert "as the person 'admin', not as service account 'prefect-prod'" in line


def test_a_server_that_is_not_among_the_allowed_hosts_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = tmp_path / "allowed-hosts"
    allowed.write_text("zenml.example.com\n")
    monkeypatch.setattr(hosts, "FILE", str(allowed))
    with (
        proxy("http://127.0.0.1:9") as server,
        environment(
            ZENML_STORE_URL=server.url,
            ZENML_STORE_API_KEY=api_key("canary"),
            ZENML_CONFIG_PATH=str(tmp_path / "config"),
        ),
        pytest.raises(CheckFailed) as caught,
    ):
        zenml_mlauth.check()
    assert server.requests == []
    assert str(caught.value).startswith(
        f"zenml, configured: no credential goes to 127.0.0.1, which is not in {allowed}: "
    )


def test_a_url_that_programs_read_as_two_hosts_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib and httpx use the host after the `@`; requests, and so ZenML, uses the one before."""
    allowed = tmp_path / "allowed-hosts"
    allowed.write_text("localhost\n")
    monkeypatch.setattr(hosts, "FILE", str(allowed))
    info = answer(200, b'{"version": "0.98.0"}')
    with (
        faulty(info) as evil,
        faulty(info) as ours,
        environment(
            ZENML_STORE_URL=f"http://127.0.0.1:{evil.port}\\@localhost:{ours.port}",
            ZENML_STORE_API_KEY=api_key("canary"),
            ZENML_CONFIG_PATH=str(tmp_path / "config"),
        ),
        pytest.raises(CheckFailed) as caught,
    ):
        zenml_mlauth.check()
    assert evil.requests == ours.requests == []
    assert str(caught.value).startswith(
        "zenml, configured: the URL of ZenML's client has a user or password in it: "
    )


@pytest.mark.process
def test_a_pipeline_on_the_local_store_stops_and_a_near_miss_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(ZENML_CONFIG_PATH=str(tmp_path / "config")):
        Client().create_flavor("zenml_mlauth.ServiceAccountCheckFlavor", StackComponentType.ALERTER)
        make_stack(service_account="prefect-prod")
        line = stopped()
        assert "uses the local store of this machine, not a server as 'prefect-prod'" in line
        assert "set ZENML_STORE_URL and ZENML_STORE_API_KEY" in line
        monkeypatch.setenv("ZENML_URL", "https://zenml.example.com")
        line = stopped()
        assert "uses the local store of this machine, not a server as 'prefect-prod'" in line
        assert "ZENML_URL is not read by ZenML" in line
        assert "the name is ZENML_STORE_URL" in line


def test_a_pipeline_of_a_deactivated_account_stops(me: Account) -> None:
    make_stack(service_account=me.name)
    me.server.set_service_account_active(me.id, False)
    with pytest.raises(Exception, match="not active"):
        two_steps()  # the refused request may be ZenML's own first one
    assert traced() == []
    with pytest.raises(CheckFailed, match="says that the service account is not active"):
        zenml_mlauth.check(me.name)


@pytest.mark.load
def test_with_warn_a_failed_check_lets_the_pipeline_go_on(
    me: Account, caplog: pytest.LogCaptureFixture
) -> None:
    make_stack(service_account="prefect-prod", on_failure="warn")
    run = two_steps()
    assert run.status == "completed"
    assert metadata_of(run.id)["status"] == "failed"
    (warning,) = warnings(caplog)  # the warning comes once, although the check ran more often
    assert f"as service account {me.name!r}, not as 'prefect-prod'" in warning
    assert "the service account check failed; going on all the same" in warning


@pytest.mark.load
def test_a_server_that_answers_503_to_the_check_is_a_warning(
    account: Account, registered: None, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy(account.url) as between, connected(account, between.url):
        make_stack(service_account=account.name, timeout="1")
        between.fails = lambda request: request.agent == "mlauth"
        assert two_steps().status == "completed"
    assert traced() == ["first", "second"]
    (warning,) = warnings(caplog)
    assert "could not find out; going on all the same" in warning
    assert "HTTP 503" in warning


@pytest.mark.load
def test_a_run_costs_no_login_and_one_check_a_minute(
    account: Account, registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def checks(requests: list[Request]) -> list[tuple[str, str]]:
        return [(each.method, each.path) for each in requests if each.agent == "mlauth"]

    once = [("GET", "/api/v1/info"), ("GET", USERS)]
    with proxy(account.url) as between:
        with connected(account, between.url, credential="api_token"):
            make_stack(service_account=account.name)
            since = len(between.requests)
            two_steps()  # validated three times, and two steps
            assert checks(between.requests[since:]) == once
            two_steps()
            now[0] += 59.9
            two_steps()
            assert checks(between.requests[since:]) == once
            now[0] += 0.2
            two_steps()
            assert checks(between.requests[since:]) == once * 2
        logins = [each for each in between.requests if (each.method, each.path) == LOGIN]
    assert [each.agent for each in logins] == ["mlauth"]  # the one of the activation


@pytest.mark.usefixtures("counted")
def test_a_check_that_failed_is_asked_again(me: Account) -> None:
    with pytest.raises(CheckFailed):
        zenml_mlauth.check("prefect-prod")
    before = me.asked("GET", USERS)
    with pytest.raises(CheckFailed):
        zenml_mlauth.check("prefect-prod")
    assert me.asked("GET", USERS) == before + 1


def test_another_account_is_not_taken_for_the_one_that_passed(
    me: Account, zenml_server: ZenMLServer
) -> None:
    assert zenml_mlauth.check().accounts["zenml"] == me.name
    with (
        environment(
            ZENML_STORE_URL=zenml_server.url,
            ZENML_STORE_API_KEY="",
            ZENML_STORE_API_TOKEN=zenml_server.admin_token().get_secret_value(),
        ),
        pytest.raises(CheckFailed, match="the person 'admin'"),
    ):
        zenml_mlauth.check()


def test_a_token_that_the_client_can_replace_is_no_failure(me: Account) -> None:
    zenml_mlauth.check()
    store = GlobalConfiguration().zen_store
    stale = OAuthTokenResponse(access_token="eyJzdGFsZQ.e30.c3RhbGU", token_type="bearer")
    get_credentials_store().set_token(me.url, stale)
    store._api_token = None
    store.session.headers["Authorization"] = f"Bearer {stale.access_token}"
    assert zenml_mlauth.check(me.name).accounts["zenml"] == me.name


def test_an_entry_of_netrc_that_replaces_the_clients_token_is_said(
    account: Account, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NETRC", raising=False)
    with connected(account):
        netrc = clean_environment / ".netrc"
        netrc.write_text("machine 127.0.0.1 login canary password canary-password\n")
        with pytest.raises(Exception, match="credentials"):
            _ = Client().active_user  # the client sends these in place of its token
        forget_client()
        with pytest.raises(CheckFailed) as caught:
            zenml_mlauth.check(account.name)
        assert str(caught.value) == (
            "zenml, configured: ~/.netrc has an entry for 127.0.0.1 or a default one, and ZenML's "
            "client would send that in place of its token: remove the entry, or set "
            "NETRC=/dev/null"
        )
        monkeypatch.setenv("NETRC", "/dev/null")
        forget_client()
        assert zenml_mlauth.check(account.name).accounts["zenml"] == account.name


def test_a_proxy_before_a_server_on_this_machine_is_said(me: Account) -> None:
    with faulty(answer(200)) as detour:
        with (
            environment(HTTP_PROXY=detour.url, NO_PROXY="", no_proxy=""),
            pytest.raises(CheckFailed, match=r"would send its key to the proxy of HTTP_PROXY"),
        ):
            zenml_mlauth.check(me.name)
        assert detour.requests == []


@pytest.mark.parametrize("position", [pytest.param("first", marks=pytest.mark.load), "last"])
def test_the_failure_hooks_message_arrives_whichever_alerter_is_first(
    me: Account, position: str
) -> None:
    make_stack(service_account=me.name, **{position: "recording"})
    with step_failed():
        fails()
    (line,) = traced()
    assert line.startswith("post None ")
    assert "this step always fails" in line


def test_post_and_ask_go_to_the_next_alerter_with_parameters_and_result(me: Account) -> None:
    make_stack(last="recording")
    alerter = Client().active_stack.alerter
    assert alerter is not None
    assert alerter.flavor == "mlauth"
    assert alerter.post("done", params={"channel": 1}) is True  # type: ignore[arg-type]
    assert alerter.post("refused") is False
    assert alerter.ask("yes?", params={"channel": 2}) is True  # type: ignore[arg-type]
    assert alerter.ask("no?") is False
    assert traced() == [
        "post {'channel': 1} done",
        "post None refused",
        "ask {'channel': 2} yes?",
        "ask None no?",
    ]


def test_alone_it_says_that_nobody_listens(me: Account, caplog: pytest.LogCaptureFixture) -> None:
    name = make_stack()
    alerter = Client().active_stack.alerter
    assert alerter is not None
    assert alerter.post("done") is False
    assert alerter.ask("deploy?") is False  # nobody approved
    assert warnings(caplog) == [
        f"alerter {name!r}: nobody listens to this message: done",
        f"alerter {name!r}: nobody listens to this question: deploy?",
    ]


@pytest.mark.usefixtures("counted")
@pytest.mark.load
def test_a_step_in_another_process_is_checked_there(
    me: Account, zenml_server: ZenMLServer, tmp_path: Path
) -> None:
    make_stack(service_account=me.name, operator=True)
    before = me.asked("GET", "/api/v1/info")
    assert two_processes().status == "completed"
    (line,) = traced()
    assert line != f"pid {os.getpid()}"
    assert f"passed as {me.name!r}" in step_log().read_text()
    assert me.asked("GET", "/api/v1/info") > before
    result = search([me.key], zenml_server.folder)
    assert result.rows > 100
    assert result.found == []
    assert search([me.key], tmp_path).found == [str(me.file)]


@pytest.mark.parametrize("check_steps", [True, pytest.param(False, marks=pytest.mark.load)])
def test_a_step_that_would_run_as_somebody_else_in_its_process_stops_there(
    me: Account, zenml_server: ZenMLServer, monkeypatch: pytest.MonkeyPatch, check_steps: bool
) -> None:
    make_stack(service_account=me.name, operator=True, check_steps=str(check_steps))
    monkeypatch.setenv(OTHER_TOKEN, zenml_server.admin_token().get_secret_value())
    if check_steps:
        with step_failed():
            two_processes()
        assert traced() == []
        assert f"as the person 'admin', not as service account {me.name!r}" in stored_logs()
    else:
        assert two_processes().status == "completed"
        assert len(traced()) == 1


@pytest.mark.load
def test_skipping_stack_validation_leaves_the_check_in_the_steps(
    me: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENML_SKIP_STACK_VALIDATION", "true")
    make_stack(service_account="prefect-prod")
    with step_failed():
        two_steps()
    assert traced() == []
    line = f"knows this key as service account {me.name!r}, not as 'prefect-prod'"
    assert f"Failed to run step `first`: zenml, authorized: {me.url} {line}" in stored_logs()
    make_stack(service_account="prefect-prod", check_steps="false")
    assert two_steps().status == "completed"


@pytest.mark.timeout(300)
@pytest.mark.load
def test_what_a_step_prints_and_logs_is_masked(
    me: Account, tmp_path: Path, zenml_server: ZenMLServer
) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    store = tmp_path / "secret"
    store.write_text(canary)
    # In a process of its own: ZenML stores what is printed to the stream that it started with.
    make_stack(service_account=me.name, operator=True)
    secrets = EnvironmentSecrets.of("test", {"env": {"TEST_EXPORTED": f"file://{store}"}})
    with mlauth.activate(secrets):
        assert prints().status == "completed"
    for logs in (step_log().read_text(), stored_logs()):
        for line in (
            "at import ***",
            "logged at import ***",
            "printed ***",
            "to stderr ***",
            "logged ***",
        ):
            assert line in logs
    assert "as bytes ***" in step_log().read_text()  # which ZenML does not store
    assert search([canary], tmp_path).found == [str(store)]
    assert search([canary], zenml_server.folder).found == []


def profile(folder: Path, account: str, **env: str) -> str:
    zenml = {
        "store_url": "https://zenml.example.com",
        "api_key": "file:///run/secrets/zenml/api-key",
        "service_account": account,
    }
    return str(write_profile(folder, "prod", zenml=zenml, env=env))


@pytest.mark.load
def test_the_profiles_other_credentials_are_checked_at_submission(
    me: Account, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("canary-value")
    file = profile(tmp_path, me.name, HF_TOKEN=f"file://{there}")
    make_stack(profile="prod", config_file=file)
    assert two_steps().status == "completed"
    profile(tmp_path, me.name, HF_TOKEN=f"file://{tmp_path}/missing")
    connection._passed.clear()
    with pytest.raises(StackValidationError, match="missing") as caught:
        two_steps()
    assert "\n" not in str(caught.value)
    assert traced() == ["first", "second"]  # of the first run


def test_the_profile_names_the_account(me: Account, tmp_path: Path) -> None:
    make_stack(profile="prod", config_file=profile(tmp_path, "prefect-prod"))
    assert f"as service account {me.name!r}, not as 'prefect-prod'" in stopped()


def test_a_profile_that_is_not_in_the_source_root_is_one_line(me: Account) -> None:
    make_stack(profile="prod", config_file="nowhere.toml")
    line = stopped()
    assert "config_file nowhere.toml of profile 'prod' is not in the source root" in line


def installed(**config: object) -> str:
    """Return the packages that ZenML installs in an image for a stack with the component."""
    make_stack(**config)
    files = PipelineDockerImageBuilder.gather_requirements_files(
        DockerSettings(), stack=Client().active_stack, log=False
    )
    return "\n".join(content for name, content, _ in files if "stack" in name)


@pytest.mark.parametrize("vault", [False, True])
def test_step_images_get_no_mlauth_that_nobody_chose(
    me: Account, tmp_path: Path, vault: bool
) -> None:
    config, extras = {}, ""
    if vault:
        file = profile(tmp_path, me.name, HF_TOKEN="azurekv://acme-prod/hf-token")
        config, extras = {"profile": "prod", "config_file": file}, "[azurekv]"
    with pytest.raises(InvalidComponent) as caught:
        installed(**config)
    wheel = f"https://…/mlauth-{metadata.version('mlauth')}-py3-none-any.whl"
    name = next(iter(Client().active_stack.alerters))
    assert str(caught.value) == (
        f"alerter {name!r} has no `requirements`, so ZenML does not know from where step images "
        f"get mlauth, which is on no public index: zenml alerter update {name} "
        f"--requirements='[\"mlauth{extras} @ {wheel}\"]', or --requirements='[]' if the image has "
        "it"
    )


def test_step_images_get_what_requirements_says(me: Account) -> None:
    assert installed(requirements="[]") == ""
    wheel = "mlauth @ https://wheels.example.com/mlauth-0.1.0-py3-none-any.whl"
    assert installed(requirements=json.dumps([wheel])) == wheel


@pytest.mark.parametrize(
    "wrong", [{"on_failure": "explode"}, {"timeout": "0"}, {"service_acount": "prefect-prod"}]
)
def test_a_wrong_configuration_is_refused_when_it_is_registered(
    me: Account, wrong: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_stack(**wrong)


def test_the_flavor_is_what_the_documentation_registers() -> None:
    flavor = ServiceAccountCheckFlavor()
    assert (flavor.name, flavor.type) == ("mlauth", StackComponentType.ALERTER)


def test_the_check_function_reports_and_raises(me: Account) -> None:
    report = zenml_mlauth.check(me.name)
    assert report.summary() == f"ZenML's client in this process: passed as {me.name!r}"
    with pytest.raises(CheckFailed, match="not as 'prefect-prod'"):
        zenml_mlauth.check("prefect-prod")
    assert zenml_mlauth.check("prefect-prod", on_failure="warn").status.value == "failed"


def test_nothing_of_the_client_is_on_disk(me: Account) -> None:
    assert os.environ[isolation.NO_DISK] == "true"
    zenml_mlauth.check(me.name)
    assert not (Path(os.environ["ZENML_CONFIG_PATH"]) / "credentials.yaml").exists()

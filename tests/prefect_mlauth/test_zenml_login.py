"""`zenml_login` in real flow runs, in both ways of Prefect."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.prefect_mlauth.conftest import WAYS, Project, digest, zenml_login
from tests.support.accounts import Account
from tests.support.search import search

pytestmark = pytest.mark.timeout(300)


@pytest.mark.usefixtures("counted")
def test_the_flow_works_as_the_account_and_nothing_is_left(
    way: str, project: Project, account: Account
) -> None:
    """Variables of another account are emptied, and the user's settings stay."""
    step = zenml_login(account, service_account=account.name, stack="default")
    deployment = project.deploy("who", step)
    before = account.logins()
    run = project.run(
        way,
        deployment,
        ZENML_STORE_API_TOKEN="canary-left-over",
        ZENML_STORE_VERIFY_SSL="true",
        ZENML_STORE_HTTP_TIMEOUT="17",
        ZENML_LOCAL_STORES_PATH=str(project.folder / "stores"),
    )
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["account"] == account.name
    assert account.logins() == before + 2  # the step's, and that of ZenML's own client
    env = run.facts["env"]
    assert env["ZENML_STORE_API_KEY"] == digest(account.key)
    assert env["DISABLE_CREDENTIALS_DISK_CACHING"] == "true"
    assert env.get("ZENML_STORE_API_TOKEN", digest("")) == digest("")
    assert env["ZENML_STORE_VERIFY_SSL"] == "true"
    assert env["ZENML_STORE_HTTP_TIMEOUT"] == "17"
    assert env["ZENML_LOCAL_STORES_PATH"] == str(project.folder / "stores")
    assert "replaced earlier values in the environment: ZENML_STORE_API_TOKEN" in run.text
    assert "canary" not in run.output + run.text
    assert {"ZENML_STORE_URL", "ZENML_STORE_API_KEY"} <= set(run.facts["at_import"])
    assert run.facts["private"]
    assert Path(env["ZENML_CONFIG_PATH"]).is_relative_to(run.folder)
    assert run.left_over() == []
    # The UI shows the account of the run, and the names of the variables.
    assert any(f"took the key of {account.name!r}; set " in line for line in run.logs)
    assert project.places_of([account.key], run) == []
    assert search([account.key], account.server.folder).found == []


@pytest.mark.parametrize("way", [pytest.param("worker", marks=pytest.mark.load), "execute"])
@pytest.mark.usefixtures("counted")
def test_with_a_token_the_key_stays_out_and_one_login_is_all(
    way: str, project: Project, account: Account, tmp_path: Path
) -> None:
    deployment = project.deploy("pipeline", zenml_login(account, credential="api_token"))
    before = account.logins()
    left_over = {"ZENML_STORE_API_KEY": "canary-left-over"}
    run = project.run(way, deployment, TOKEN_FILE=str(tmp_path / "token"), **left_over)
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["account"] == account.name
    assert account.logins() == before + 1  # the step's; the whole pipeline needs no other
    env, token = run.facts["env"], (tmp_path / "token").read_text()
    assert env["ZENML_STORE_API_TOKEN"] == digest(token)
    # ZenML ignores an empty variable. If the engine is another process, the variable is gone.
    assert env.get("ZENML_STORE_API_KEY", digest("")) == digest("")
    assert "replaced earlier values in the environment: ZENML_STORE_API_KEY" in run.text
    assert run.left_over() == []
    assert project.places_of([token, account.key], run) == []
    # The artifact is in the same place as without mlauth, not in the private folder.
    kept = run.folder if way == "execute" else run.folder / "home"
    assert Path(run.facts["artifact"]).is_relative_to(kept / ".config/zenml/local_stores")
    assert Path(run.facts["artifact"]).exists()


@pytest.mark.load
def test_a_client_that_an_earlier_step_used_works_as_the_account(
    project: Project, account: Account
) -> None:
    """In the engine's own process, ZenML is imported by then, and works as a local user."""
    use = {"their_steps.use_zenml": {"id": "use"}}
    seen = {"script": "echo before: {{ use.before }}"}
    shell = {"prefect.deployments.steps.run_shell_script": seen}
    run = project.run("worker", project.deploy("who", use, shell, zenml_login(account)))
    assert run.result.state_type == "COMPLETED", run.text
    assert "before: default" in run.output
    assert run.facts["account"] == account.name


@pytest.mark.load
def test_two_accounts_at_once_stay_who_they_are_when_they_log_in_again(
    project: Project, counted: Account, make_account: Callable[[str], Account], tmp_path: Path
) -> None:
    """They share a home and a server; each run is started in another way."""
    accounts = [counted, make_account("dev")]
    accounts[1].between = counted.between
    deployments = [project.deploy("who_again", zenml_login(each)) for each in accounts]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    shared = {"HOME": str(project.worker.folder / "home"), "MEETING": str(meeting)}
    before = counted.logins()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda way, name: project.run(way, name, **shared), WAYS, deployments))
    for each, run in zip(accounts, runs, strict=True):
        assert run.result.state_type == "COMPLETED", run.text
        assert (run.facts["first"], run.facts["again"]) == (each.name, [each.name] * 3)
        assert run.facts["met"] == 2  # both runs were there before either went on
        assert run.left_over() == []
        assert project.places_of([each.key], run) == []
    assert counted.logins() == before + 2 * (2 + 3)

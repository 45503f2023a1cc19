"""However Prefect starts a flow, it runs with the account of its step, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prefect_mlauth.conftest import Project, digest, zenml_login
from tests.prefect_mlauth.ways import WAYS
from tests.support.accounts import Account

pytestmark = pytest.mark.timeout(300)

SHOWN_ELSEWHERE = {
    "flow-run execute": "test_zenml_login.py",
    "a process worker": "test_zenml_login.py",
    "a plain function": "what starts the subflow here",
}
SLOW = {"from_source and deploy", "serve", "the engine, with the id as variable"}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[pytest.mark.load] if way in SLOW else [])
        for way in WAYS
        if way not in SHOWN_ELSEWHERE
    ],
)
def test_the_flow_runs_as_the_account(
    way: str, project: Project, make_account: Callable[[str], Account]
) -> None:
    account, other = make_account("one"), make_account("other")
    facts = WAYS[way](project, account, other)
    assert facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
    assert facts["private"]


def test_where_no_version_of_prefect_runs_steps_a_step_fails_in_one_line(
    project: Project, account: Account, tmp_path: Path
) -> None:
    run = project.create_run(project.deploy("show", zenml_login(account)))
    said = project.script("prepared.py", run, str(tmp_path / "workspace"))
    (refused,) = [line for line in said.splitlines() if line.startswith("REFUSED ")]
    assert "_workspace_resolver.prepare_workspace_for_flow_run of this version" in refused
    (left,) = [line for line in said.splitlines() if line.startswith("SET ")]
    assert "ZENML_STORE" not in left
    assert "MLAUTH_ACTIVATION" not in left

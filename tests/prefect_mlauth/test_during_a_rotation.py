"""50 logins and 5 flow runs start while a key is rotated, and none fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mlauth
from mlauth import Profile, ZenMLCredentials
from mlauth.report import CheckReport
from tests.prefect_mlauth.conftest import Project, Run, digest, zenml_login
from tests.support.accounts import Account
from tests.support.reverse_proxy import Request, proxy

pytestmark = [pytest.mark.load, pytest.mark.timeout(500)]

LOGINS, RUNS = 50, 5


def test_50_logins_and_5_flow_runs_that_start_during_a_rotation_all_succeed(
    project: Project, account: Account, tmp_path: Path
) -> None:
    """The rotation stops while the server has the new key and the store has the old one.

    Half of the logins and runs start then, and the others while the rotation goes on.
    """
    old, password = account.key, tmp_path / "admin-password"
    password.touch(0o600)
    password.write_text(account.server.admin_password.get_secret_value())
    fields = {"store_url": account.url, "api_key": account.reference}
    admin = {"user": account.server.admin_name, "password": f"file://{password}"}
    step = zenml_login(account, service_account=account.name, timeout=200)
    deployment = project.deploy("show", step)
    rotated, half = threading.Event(), threading.Event()
    logins: list[str] = []
    runs: list[Run] = []

    def hold(request: Request) -> None:
        if request.path.endswith("/rotate"):
            rotated.set()
            assert half.wait(300)

    def count() -> None:
        if len(logins) >= LOGINS / 2 and len(runs) >= RUNS / 2:
            half.set()

    def log_in(_: int) -> CheckReport:
        report = mlauth.check(ZenMLCredentials.of("test", fields), timeout=200)
        logins.append(report.summary())
        count()
        return report

    def run(_: int) -> Run:
        made = project.run("worker", deployment)
        runs.append(made)
        count()
        return made

    with (
        proxy(account.url) as front,
        ThreadPoolExecutor(1) as rotating,
        ThreadPoolExecutor(RUNS // 2 + 1) as flows,
        ThreadPoolExecutor(8) as clients,
    ):
        front.replaces = hold
        profile = {"zenml": fields | {"store_url": front.url}, "zenml_admin": admin}
        rotation = rotating.submit(
            mlauth.rotate_zenml, Profile.model_validate(profile), retain_minutes=60, timeout=400
        )
        assert rotated.wait(100)
        ran = flows.map(run, range(RUNS))
        reports = list(clients.map(log_in, range(LOGINS)))
        assert rotation.result().account == account.name
        shown = [each.facts["env"]["ZENML_STORE_API_KEY"] for each in ran]
    assert [each.summary() for each in reports if each.status is not mlauth.Status.PASSED] == []
    assert [each.result.state_type for each in runs] == ["COMPLETED"] * RUNS
    assert shown[0] == digest(old)
    assert set(shown) <= {digest(old), digest(account.key)}
    assert account.key != old
    assert (len(logins), len(runs)) == (LOGINS, RUNS)
    assert runs[-1].left_over() == []
    assert project.places_of([old, account.key], runs[-1]) == []

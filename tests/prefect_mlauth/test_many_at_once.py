"""Many processes start at the same moment, with one vault that throttles."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.prefect_mlauth.conftest import Project, digest, zenml_login
from tests.support.accounts import Account
from tests.support.azure import Azure

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]

PROCESSES, RUNS = 200, 10

# Processes are forked from one that has imported everything: the imports would take minutes.
FORKS = """
import gc, os, sys
import azure.identity, azure.keyvault.secrets, prefect.context, prefect.logging.configuration
import requests, tenacity
import mlauth.stores.azurekv
from prefect_mlauth.steps import export_secrets

reference, count = sys.argv[1], int(sys.argv[2])
gc.freeze()
os.nice(10)  # the servers of other tests go first
waiting, start = os.pipe()
children = []
for _ in range(count):
    pid = os.fork()
    if pid == 0:
        os.close(start)
        os.read(waiting, 1)  # all at once, when the last one is there
        try:
            export_secrets({"CANARY": reference}, timeout=120)
            assert os.environ["CANARY"] == "canary-of-many"
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\\n".encode())
            os._exit(1)
        os._exit(0)
    children.append(pid)
os.close(start)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


def test_200_processes_on_a_throttling_vault_take_one_get_each(
    azure: Azure, clean_environment: Path
) -> None:
    vault, identity = azure.vault(), azure.identity("get")
    vault.put("key", "canary-of-many")
    vault.limit(50, 1.0)
    done = subprocess.run(
        [sys.executable, "-c", FORKS, f"azurekv://{vault.name}/key", str(PROCESSES)],
        env={**os.environ, **azure.environment(identity)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert vault.count("GET", status=200) == PROCESSES
    throttled = vault.count("GET", status=429)
    assert throttled > 0
    # What else there is, is each process's own challenge; and its own token.
    assert len(vault.requests) == vault.count("GET") == 2 * PROCESSES + throttled
    assert len(identity.requests) == PROCESSES
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.usefixtures("counted")
def test_10_flow_runs_at_once_prove_their_logins_with_a_key_of_a_throttling_vault(
    project: Project, account: Account, azure: Azure
) -> None:
    vault = azure.vault()
    vault.put("key", account.key)
    vault.limit(2, 1.0)
    step = zenml_login(
        account,
        api_key=f"azurekv://{vault.name}/key",
        service_account=account.name,
        timeout=90,  # ten flow runs start on two cores
    )
    deployment, logins = project.deploy("show", step), account.logins()
    with ThreadPoolExecutor(RUNS) as pool:
        runs = list(
            pool.map(
                lambda _: project.run("worker", deployment, **azure.environment()), range(RUNS)
            )
        )
    for run in runs:
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts["env"]["ZENML_STORE_API_KEY"] == digest(account.key)
        assert any(f"took the key of {account.name!r}; set " in line for line in run.logs)
    assert len({run.facts["env"]["ZENML_CONFIG_PATH"] for run in runs}) == RUNS
    assert account.logins() == logins + RUNS
    assert vault.count("GET", status=200) == RUNS
    assert len(vault.requests) == 2 * RUNS + vault.count("GET", status=429)
    assert runs[-1].left_over() == []
    assert project.places_of([account.key], runs[-1]) == []

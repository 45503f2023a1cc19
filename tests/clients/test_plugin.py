"""A system and a store of another distribution (tests/plugin), installed beside mlauth.

mlauth finds them by their entry points, and knows nothing else about them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlauth.testing.web import serve
from tests.plugin.tests.stand_ins import WORKER, Vault, shop
from tests.prefect_mlauth.conftest import Project, digest
from tests.support.environments import ROOT, Installed
from tests.support.profiles import write_profile
from tests.support.servers import PrefectServer, ProcessWorker, child_environment
from tests.support.session import untraced

pytestmark = pytest.mark.clients
PLUGIN = ROOT / "tests" / "plugin"
TOKEN = "acme_canary-of-the-flow"
FLOW = """
import hashlib, os
from prefect import flow

@flow(log_prints=True)
def order():
    print("with", os.environ["ACME_TOKEN"], "at", os.environ["ACME_URL"])
    digest = hashlib.sha256(os.environ["ACME_TOKEN"].encode()).hexdigest()[:16]
    print("FOUND", digest == os.environ["EXPECTED"])
"""


@dataclass
class Acme:
    """An environment with the plugin, and stand-ins of Acme's services.

    Attributes:
        python: of the environment.
        shop: the URL.
        vault: the variables of a worker that may read the vault.
        folder: of the test.
    """

    python: str
    shop: str
    vault: dict[str, str]
    folder: Path

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        with untraced():
            return subprocess.run(
                [self.python, *arguments],
                cwd=self.folder,
                env=child_environment(self.folder, {**self.vault, **env}),
                capture_output=True,
                text=True,
                timeout=100,
            )

    def mlauth(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Return the exit code and the output of a command, which must hold no secret."""
        done = self.run("-m", "mlauth.cli", *arguments, **env)
        said = " ".join((done.stdout + done.stderr).split())
        assert TOKEN not in said
        assert WORKER not in said
        return done.returncode, said

    def profile(self, token: str = "acmevault://flows/token", **env: str) -> None:
        acme = {"url": self.shop, "token": token}
        write_profile(self.folder, "prod", acme=acme, **({"env": env} if env else {}))


@pytest.fixture(scope="session")
def python(client: Callable[..., Installed]) -> str:
    """Of an environment with mlauth, Prefect and the plugin."""
    return client("plugin", ROOT, PLUGIN).python


@pytest.fixture
def acme(python: str, tmp_path: Path) -> Iterator[Acme]:
    vault = Vault()
    vault.secrets["token"] = TOKEN
    with ExitStack() as stack:
        ports = [stack.enter_context(serve(each)) for each in (partial(shop, TOKEN), vault)]
        shop_url, vault_url = (f"http://127.0.0.1:{port}" for port in ports)
        worker = {"ACME_VAULT_URL": vault_url, "ACME_VAULT_TOKEN": WORKER}
        yield Acme(python, shop_url, worker, tmp_path)


def test_its_own_tests_run_the_suites_that_ours_run(acme: Acme) -> None:
    shutil.copytree(PLUGIN / "tests", acme.folder / "tests")
    (acme.folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    done = acme.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_its_section_of_a_profile_is_checked(acme: Acme) -> None:
    acme.profile()
    code, said = acme.mlauth("check", "--profile", "prod")
    assert code == 0, said
    assert "acme authenticated passed" in said
    assert "passed: profile 'prod' of mlauth.toml: passed as 'flows'" in said


def test_a_literal_in_its_section_is_refused_by_its_name(acme: Acme) -> None:
    acme.profile(TOKEN)
    code, said = acme.mlauth("check", "--profile", "prod")
    assert code == 2
    assert "profiles.prod.acme.token" in said
    assert "rotate it" in said


def test_another_value_for_a_variable_of_its_own_is_refused(acme: Acme) -> None:
    acme.profile(ACME_TOKEN="env://ANOTHER")
    code, said = acme.mlauth("exec", "-p", "prod", "--", "true", ANOTHER="another-canary")
    assert code == 125
    assert "ACME_TOKEN" in said
    assert "another-canary" not in said


def test_what_its_client_finds_in_the_environment_is_checked(acme: Acme) -> None:
    found = {"ACME_URL": acme.shop, "ACME_TOKEN": TOKEN}
    code, said = acme.mlauth("check", "acme", **found)
    assert code == 0, said
    assert "acme authenticated passed" in said
    code, said = acme.mlauth("check", "acme", ACME_URL=acme.shop, ACME_API_TOKEN=TOKEN)
    assert code == 1
    assert "ACME_API_TOKEN is not read by Acme" in said
    assert acme.mlauth("check", **found)[0] == 0  # no name is needed where its variables are


def test_a_command_gets_its_variables(acme: Acme) -> None:
    acme.profile()
    code = f"import os; print(os.environ['ACME_TOKEN'] == {TOKEN!r}, os.environ['ACME_URL'])"
    done = acme.run("-m", "mlauth.cli", "exec", "-p", "prod", "--", acme.python, "-c", code)
    assert done.stdout == f"True {acme.shop}\n", done.stderr


def test_a_reference_to_its_store_is_explained(acme: Acme) -> None:
    code, said = acme.mlauth("explain", "acmevault://flows/token")
    assert code == 0, said
    assert f"points to flows/token in {acme.vault['ACME_VAULT_URL']}" in said
    assert "read as the owner of ACME_VAULT_TOKEN" in said
    assert "readable yes" in said
    code, said = acme.mlauth("explain", "acmevault://flows")
    assert code == 2
    assert "the secret is missing; the form is acmevault://team/secret" in said


BLOCK = """
import os, sys
from prefect.blocks.core import Block
from prefect_mlauth import AcmeCredentials

assert Block.get_block_class_from_key("acme-credentials") is AcmeCredentials
AcmeCredentials(url=sys.argv[1], token="acmevault://flows/token").save("shop")
block = AcmeCredentials.load("shop")
print(block.check().summary())
with block.login() as login:
    print(login.account, login.variables, len(os.environ["ACME_TOKEN"]))
print("ACME_TOKEN" in os.environ)
"""


def test_its_block_is_saved_loaded_and_logs_in(acme: Acme, prefect_server: PrefectServer) -> None:
    server = prefect_server.environment(acme.folder)
    done = acme.run("-c", BLOCK, acme.shop, **server)
    assert done.returncode == 0, done.stderr
    said = f"flows ('ACME_TOKEN', 'ACME_URL') {len(TOKEN)}\nFalse\n"
    assert done.stdout == f"acme credentials: passed as 'flows'\n{said}"
    assert TOKEN not in done.stderr


@pytest.fixture(scope="module")
def worker(
    python: str, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessWorker]:
    folder = tmp_path_factory.mktemp("worker")
    with ProcessWorker(folder, prefect_server, pool="acme", python=python) as worker:
        yield worker


@pytest.mark.parametrize("way", ["worker", "execute"])
def test_its_step_gives_a_flow_its_variables_and_masks_them(
    acme: Acme, worker: ProcessWorker, prefect_server: PrefectServer, way: str
) -> None:
    project = Project(acme.folder, prefect_server, worker, acme.python)
    (project.flows / "orders.py").write_text(FLOW)
    fields = {"url": acme.shop, "token": "acmevault://flows/token"}
    step: dict[str, Any] = {"prefect_mlauth.steps.acme_login": fields}
    deployment = project.deploy("order", step, file="orders.py")
    run = project.run(way, deployment, EXPECTED=digest(TOKEN), **acme.vault)
    assert run.result.state_type == "COMPLETED", run.text
    assert f"with *** at {acme.shop}" in run.logs
    assert "FOUND True" in run.logs
    proven = f"{acme.shop} (Acme) took the key of 'flows'; set ACME_TOKEN, ACME_URL"
    assert any(proven in line for line in run.logs), run.text
    assert project.places_of([TOKEN], run) == []
    assert run.left_over() == []

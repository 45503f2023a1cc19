"""Tests the capabilities in environments with other versions: `make test-matrix`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from demo.run import register_stack
from tests.prefect_mlauth.conftest import Project, digest, export_secrets, zenml_login
from tests.prefect_mlauth.ways import WAYS
from tests.support.accounts import Account, new_account
from tests.support.azure import Azure
from tests.support.profiles import write_profile
from tests.support.search import search
from tests.support.servers import PrefectServer, ProcessWorker, ZenMLServer
from tests.versions.environments import Installed
from tests.versions.matrix import ALL, CAPABILITIES, ROOT

# The first test of an environment installs it.
pytestmark = [pytest.mark.matrix, pytest.mark.timeout(900)]

PROGRAMS = Path(__file__).parent / "programs"
FLOWS = ROOT / "tests" / "prefect_mlauth" / "flows"
IMPORTS = {
    "prefect": "import prefect_mlauth",
    "zenml": "import zenml_mlauth",
    "azurekv": "import mlauth; mlauth.resolve('azurekv://acme-prod/token')",
}


class Place:
    """A folder with programs, and an environment in which they run."""

    def __init__(self, installed: Installed, folder: Path, env: dict[str, str]) -> None:
        self.installed, self.folder, self.env = installed, folder, env

    def program(self, name: str, *arguments: str, **env: str) -> str:
        shutil.copy(PROGRAMS / f"{name}.py", self.folder)
        return self.command("python", f"{name}.py", *arguments, **env)

    def command(self, *command: str, **env: str) -> str:
        """Run a command that must succeed, and return the last line that it wrote."""
        done = self.run(*command, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.installed.run(*command, cwd=self.folder, env={**self.env, **env})

    def profile(self, account: Account, **more: str) -> None:
        """Write mlauth.toml."""
        server = account.server
        (self.folder / "password").touch(0o600)
        (self.folder / "password").write_text(server.admin_password.get_secret_value())
        fields = {"store_url": server.url, "api_key": account.reference, **more}
        fields["service_account"] = account.name
        admin = {"user": server.admin_name, "password": f"file://{self.folder}/password"}
        write_profile(self.folder, "prod", zenml=fields, zenml_admin=admin)


def capability(name: str) -> pytest.MarkDecorator:
    assert name in CAPABILITIES
    return pytest.mark.capability(name)


@pytest.fixture
def place(installed: Installed, tmp_path: Path, home: dict[str, str]) -> Place:
    return Place(installed, tmp_path, home)


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, str]:
    """A reference, and the digest of its secret."""
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "secret").write_text("canary-of-a-file")
    return f"file://{tmp_path}/secret", digest("canary-of-a-file")


@pytest.fixture
def project(
    installed: Installed, prefect: tuple[PrefectServer, ProcessWorker], tmp_path: Path
) -> Project:
    return Project(tmp_path, *prefect, python=installed.python)


@pytest.fixture
def stack(installed: Installed, known: Account, tmp_path: Path) -> str:
    """A stack with the component, which wants the account."""
    script = (ROOT / "deployments" / "zenml-on-prefect" / "register_stack.py").read_text()
    script = script.replace('"prod"', f'"{known.name}"')
    script = script.replace('"service-account"', f'"check-{known.name}"')
    (tmp_path / "register_stack.py").write_text(script)
    register_stack(known.server, tmp_path, known.name, python=installed.python)
    return known.name


def newest_run(server: ZenMLServer) -> dict[str, Any]:
    path = "/runs?size=1&sort_by=desc:created&hydrate=true"
    (run,) = server.request("GET", path)["items"]
    return run  # type: ignore[no-any-return]


def test_the_wheel_is_what_is_tested(installed: Installed, tmp_path: Path, home: Any) -> None:
    wanted = "import mlauth, sys; print(mlauth.__file__); print(sys.version.split()[0])"
    done = installed.run("python", "-c", wanted, cwd=tmp_path, env=home)
    where, version = done.stdout.split()
    assert where.startswith(str(installed.folder))
    assert version.startswith(installed.folder.name.rpartition("-")[2] + ".")
    for package in ("prefect", "zenml"):
        wanted = f"from importlib.metadata import version; print(version({package!r}))"
        done = installed.run("python", "-c", wanted, cwd=tmp_path, env=home)
        assert done.stdout.strip() == installed.environment.version(package)


def test_what_is_not_there_is_said_in_one_line(
    installed: Installed, tmp_path: Path, home: dict[str, str]
) -> None:
    for extra in ALL - installed.environment.extras:
        done = installed.run("python", "-c", IMPORTS[extra], cwd=tmp_path, env=home)
        assert f"mlauth[{extra}]" in done.stderr.strip().splitlines()[-1]


@capability("files")
def test_files_and_variables(place: Place, secret: tuple[str, str]) -> None:
    reference, wanted = secret
    assert place.program("resolve", reference) == wanted
    assert place.program("resolve", "env://CANARY", CANARY="canary-of-a-file") == wanted


@capability("vault")
def test_key_vault(place: Place, azure: Azure) -> None:
    vault = azure.vault()
    vault.put("token", "canary-of-a-vault")
    found = place.program("resolve", f"azurekv://{vault.name}/token", **azure.environment())
    assert found == digest("canary-of-a-vault")


@capability("check")
def test_check(place: Place, known: Account) -> None:
    place.profile(known)
    assert "passed" in place.run("mlauth", "check", "--profile", "prod").stdout
    report = json.loads(place.run("mlauth", "check", "--profile", "prod", "--json").stdout)
    assert report["status"] == "passed"
    assert [each["account"] for each in report["systems"]] == [known.name]
    known.server.set_api_key_active(known.id, known.key_id, active=False)
    assert place.run("mlauth", "check", "--profile", "prod").returncode == 1


@capability("rotate")
def test_rotate(place: Place, known: Account) -> None:
    place.profile(known)
    before = known.key
    done = place.run("mlauth", "rotate", "zenml", "--profile", "prod")
    assert done.returncode == 0, done.stdout + done.stderr
    assert known.key != before
    assert not any(key in done.stdout + done.stderr for key in (before, known.key))
    assert place.run("mlauth", "check", "--profile", "prod").returncode == 0


@capability("activate")
def test_activate(place: Place, known: Account) -> None:
    place.profile(known)
    account, inside, undone = json.loads(place.program("activate"))
    assert account == known.name
    assert {"ZENML_STORE_URL", "ZENML_STORE_API_KEY"} <= set(inside)
    assert undone


@capability("worker")
def test_pull_steps_on_a_process_worker(project: Project, known: Account, secret: Any) -> None:
    pull_steps("worker", project, known, secret)


@capability("execute")
def test_pull_steps_in_a_containers_command(project: Project, known: Account, secret: Any) -> None:
    pull_steps("execute", project, known, secret)


def pull_steps(way: str, project: Project, known: Account, secret: tuple[str, str]) -> None:
    reference, wanted = secret
    login = zenml_login(known, service_account=known.name)
    run = project.run(way, project.deploy("show", login, export_secrets(CANARY=reference)))
    assert run.result.state_type == "COMPLETED", run.text
    assert run.facts["env"]["ZENML_STORE_API_KEY"] == digest(known.key)
    assert run.facts["env"]["CANARY"] == wanted
    assert any(f"took the key of {known.name!r}" in line for line in run.logs)
    assert run.left_over() == []
    assert project.places_of([known.key, "canary-of-a-file"], run) == []
    wrong = zenml_login(known, service_account="somebody-else")
    run = project.run(way, project.deploy("show", wrong))
    assert run.result.state_type in ("CRASHED", "FAILED")
    assert "not as 'somebody-else'" in run.text


@capability("ways")
@pytest.mark.parametrize("way", WAYS)
def test_pull_steps_however_a_flow_is_started(
    way: str, project: Project, known: Account, tmp_path: Path
) -> None:
    facts = WAYS[way](project, known, new_account(known.server, tmp_path, "other"))
    assert facts["env"]["ZENML_STORE_API_KEY"] == digest(known.key)


@capability("blocks")
def test_blocks(project: Project, place: Place, secret: tuple[str, str]) -> None:
    reference, wanted = secret
    place.env = project.server.environment(place.folder / "client")
    place.env.pop("PYTHONPATH", None)
    place.command("prefect", "block", "register", "-m", "prefect_mlauth")
    place.program("save_block", "a-profile", reference)
    deployment = project.deploy("with_a_block", file="with_a_block.py")
    for way in ("worker", "execute"):
        run = project.run(way, deployment, BLOCK="a-profile")
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts["env"]["CANARY"] == wanted
        assert "printed ***" in run.logs


@capability("pipeline")
def test_a_pipeline_runs_as_the_account(place: Place, known: Account) -> None:
    place.profile(known)
    shutil.copy(FLOWS / "one_step.py", place.folder)
    owner, stack, status = json.loads(place.program("pipeline"))
    assert (owner, stack, status) == (known.name, "default", "completed")
    run = newest_run(known.server)
    owner = run["resources"].get("user") or run["body"]["user"]  # 0.80.2 has it in the body
    assert owner["name"] == known.name
    assert search([known.key], place.folder).found == [str(known.file)]


@capability("component")
def test_the_component_lets_only_its_account_run(place: Place, known: Account, stack: str) -> None:
    place.profile(known, stack=stack)
    shutil.copy(FLOWS / "one_step.py", place.folder)
    assert json.loads(place.program("pipeline")) == [known.name, stack, "completed"]
    written = newest_run(known.server)["metadata"]["run_metadata"]["service_account_check"]
    assert (written["account"], written["status"]) == (known.name, "passed")
    other = new_account(known.server, place.folder)
    place.profile(other, stack=stack)
    refused = place.run("python", "pipeline.py")
    assert refused.returncode == 1
    said = " ".join((refused.stdout + refused.stderr).split())  # ZenML wraps it
    assert f"{other.name!r}, not as {known.name!r}" in said


@capability("both")
def test_a_deployment_runs_a_pipeline(project: Project, known: Account, stack: str) -> None:
    login = zenml_login(known, service_account=known.name, stack=stack, credential="api_token")
    deployment = project.deploy("pipeline", login)
    for way in ("worker", "execute"):
        run = project.run(way, deployment)
        assert run.result.state_type == "COMPLETED", run.text
        assert run.facts["account"] == known.name
        written = newest_run(known.server)["metadata"]["run_metadata"]["service_account_check"]
        assert (written["account"], written["status"]) == (known.name, "passed")
        assert project.places_of([known.key], run) == []

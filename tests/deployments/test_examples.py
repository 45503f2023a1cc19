"""Runs the examples of deployments/ unchanged, but for the settings that every reader edits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from demo.run import register_stack
from tests.support.accounts import Account, new_account
from tests.support.azure import Azure
from tests.support.search import search
from tests.support.servers import (
    PrefectServer,
    ProcessWorker,
    ZenMLServer,
    deploy,
    execute_flow_run,
    flow_run_logs,
    run_deployment,
)
from tests.support.session import untraced

ROOT = Path(__file__).parent.parent.parent / "deployments"
WORK_POOL = yaml.safe_load((ROOT / "zenml-on-kubernetes" / "work-pool.yaml").read_text())
TEMPLATE = {
    "job_configuration": {"image": "{{ image }}", **WORK_POOL},
    "variables": {"type": "object", "properties": {"image": {"type": "string"}}},
}

pytestmark = pytest.mark.timeout(300)


def edited(
    example: str, folder: Path, account: Account, reference: str, pool: str | None = None
) -> Path:
    """Return a copy of an example with the settings that every reader edits."""
    image = folder / "image"
    shutil.copytree(ROOT / example, image)
    text = (image / "prefect.yaml").read_text()
    directory = yaml.safe_load(text)["pull"][0]["prefect.deployments.steps.set_working_directory"]
    for theirs, ours in (
        (f"directory: {directory['directory']}", f"directory: {image}"),
        ("https://zenml.example.com", account.url),
        ("file:///run/secrets/zenml/api-key", reference),
        ("service_account: prefect-prod", f"service_account: {account.name}"),
        *([("name: process-pool", f"name: {pool}")] if pool else []),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    script = image / "register_stack.py"
    if script.exists():  # a stack of the test's own: the server is shared
        text = text.replace("stack: prod", f"stack: {account.name}")
        names = script.read_text().replace('"prod"', f'"{account.name}"')
        script.write_text(names.replace('"service-account"', f'"check-{account.name}"'))
        register_stack(account.server, image, account.name)
    (image / "prefect.yaml").write_text(text)
    return image


def home(folder: Path) -> dict[str, str]:
    (folder / "tmp").mkdir(parents=True)
    return {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}


@pytest.mark.load
def test_the_example_for_kubernetes_runs_as_its_work_pool_runs_it(
    tmp_path: Path, prefect_server: PrefectServer, zenml_server: ZenMLServer
) -> None:
    account = new_account(zenml_server, tmp_path)
    image = edited("zenml-on-kubernetes", tmp_path, account, account.reference)
    pool = {"name": "kubernetes-pool", "type": "kubernetes", "base_job_template": TEMPLATE}
    prefect_server.request("POST", "/work_pools/", pool)
    deploy(image, "prod", prefect_server)
    container = tmp_path / "container"
    with untraced():
        done = execute_flow_run(prefect_server, "train-model/prod", container, home(container))
    logs = flow_run_logs(prefect_server, done.flow_run.id)
    assert done.flow_run.state_type == "COMPLETED", logs
    assert f"ran as {account.name}" in logs
    assert any(line.startswith("accuracy ") for line in logs)
    for folder in (container, prefect_server.folder, zenml_server.folder, image):
        assert search([account.key], folder).found == []


@pytest.mark.parametrize("way", ["worker", pytest.param("execute", marks=pytest.mark.load)])
@pytest.mark.load
def test_the_example_on_prefect_runs_with_its_key_in_key_vault(
    way: str,
    tmp_path: Path,
    prefect_server: PrefectServer,
    process_worker: ProcessWorker,
    zenml_server: ZenMLServer,
    counted: Account,
    component_flavor: None,
    azure: Azure,
) -> None:
    account, vault, identity = counted, azure.vault(), azure.identity("get")
    key = account.key
    vault.put("zenml-api-key", key)
    account.file.unlink()
    reference = f"azurekv://{vault.name}/zenml-api-key"
    image = edited("zenml-on-prefect", tmp_path, account, reference, process_worker.pool)
    deploy(image, "prod", prefect_server)
    environment, folder, logins = azure.environment(identity), tmp_path / "run", account.logins()
    if way == "worker":
        variables, folder = {"env": environment}, process_worker.folder
        run = run_deployment(prefect_server, "train-model/prod", job_variables=variables)
    else:
        environment |= home(folder)
        done = execute_flow_run(prefect_server, "train-model/prod", folder, environment)
        run = done.flow_run
    logs = flow_run_logs(prefect_server, run.id)
    assert run.state_type == "COMPLETED", logs
    assert f"ran as {account.name}" in logs
    assert any(line.startswith("accuracy ") for line in logs)
    path = f"/runs?user={account.name}&hydrate=true"
    (pipeline_run,) = zenml_server.request("GET", path)["items"]
    written = pipeline_run["metadata"]["run_metadata"]["service_account_check"]
    assert (written["account"], written["status"]) == (account.name, "passed")
    # One challenge, one token, one GET; the logins are the step's and that of ZenML's own client.
    assert [(asked.method, asked.status) for asked in vault.requests] == [
        ("GET", 401),
        ("GET", 200),
    ]
    assert [each.status for each in identity.requests] == [200]
    assert account.logins() == logins + 2
    for place in (folder, prefect_server.folder, zenml_server.folder, image):
        assert search([key], place).found == []


@pytest.mark.load
@pytest.mark.parametrize("way", ["worker", "execute"])
def test_the_rotation_of_a_key_in_key_vault_runs(
    way: str,
    tmp_path: Path,
    prefect_server: PrefectServer,
    process_worker: ProcessWorker,
    zenml_server: ZenMLServer,
    azure: Azure,
) -> None:
    account, vault = new_account(zenml_server, tmp_path), azure.vault()
    old, password = account.key, zenml_server.admin_password.get_secret_value()
    vault.put("zenml-api-key", old)
    vault.put("zenml-rotator-password", password)
    account.file.unlink()
    image = tmp_path / "image"
    shutil.copytree(ROOT / "rotate-zenml-key", image)
    for file, theirs, ours in (
        ("prefect.yaml", "/opt/flows/rotate-zenml-key", str(image)),
        ("prefect.yaml", "process-pool", process_worker.pool),
        ("prefect.yaml", 'cron: "0 4 1 * *"', 'cron: "0 4 29 2 *"'),
        ("mlauth.toml", "https://zenml.example.com", zenml_server.url),
        ("mlauth.toml", "acme-prod/", f"{vault.name}/"),
        ("mlauth.toml", "acme-admin/", f"{vault.name}/"),
        ("mlauth.toml", "prefect-prod", account.name),
        ("mlauth.toml", "key-rotator", zenml_server.admin_name),
    ):
        text = (image / file).read_text()
        assert theirs in text
        (image / file).write_text(text.replace(theirs, ours))
    deploy(image, "prod", prefect_server)
    environment, folder = (
        azure.environment(azure.identity("get", "set", "update")),
        tmp_path / "run",
    )
    if way == "worker":
        variables, folder = {"env": environment}, process_worker.folder
        run = run_deployment(prefect_server, "rotate-zenml-key/prod", job_variables=variables)
    else:
        environment |= home(folder)
        run = execute_flow_run(
            prefect_server, "rotate-zenml-key/prod", folder, environment
        ).flow_run
    logs = flow_run_logs(prefect_server, run.id)
    assert run.state_type == "COMPLETED", logs
    said = f"service account {account.name!r} on {zenml_server.url} has a new value of its API key"
    assert any(said in line and "the old key works until" in line for line in logs)
    new = vault.values("zenml-api-key")[-1]
    assert new != old
    for place in (folder, prefect_server.folder, zenml_server.folder, image):
        assert search([old, new, password], place).found == []


def test_every_file_that_an_example_names_exists() -> None:
    pod = WORK_POOL["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    steps = yaml.safe_load((ROOT / "zenml-on-kubernetes" / "prefect.yaml").read_text())["pull"]
    reference = steps[1]["prefect_mlauth.steps.zenml_login"]["api_key"]
    assert reference == f"file://{mount['mountPath']}/api-key"
    assert mount["name"] == volume["name"]
    assert volume["secret"]["defaultMode"] == 0o440
    readme = (ROOT / "zenml-on-kubernetes" / "README.md").read_text()
    assert f"generic {volume['secret']['secretName']} --from-file=api-key" in readme
    dockerfile = (ROOT / "zenml-on-kubernetes" / "Dockerfile").read_text()
    assert f" {steps[0]['prefect.deployments.steps.set_working_directory']['directory']}/" in (
        dockerfile
    )
    for name in ("flow.py", "training.py"):
        assert name in dockerfile
        first, second = (ROOT / each / name for each in ("zenml-on-prefect", "zenml-on-kubernetes"))
        assert first.read_text() == second.read_text()

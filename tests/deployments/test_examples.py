"""The folders of deployments/, run as they are but for what every reader edits."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mlauth.demo.run import register_stack
from mlauth.demo.search import search
from mlauth.demo.servers import (
    PrefectServer,
    ZenMLServer,
    deploy,
    execute_flow_run,
    flow_run_logs,
)
from tests.accounts import new_account

ROOT = Path(__file__).parent.parent.parent / "deployments"
WORK_POOL = yaml.safe_load((ROOT / "zenml-on-kubernetes" / "work-pool.yaml").read_text())
TEMPLATE = {
    "job_configuration": {"image": "{{ image }}", **WORK_POOL},
    "variables": {"type": "object", "properties": {"image": {"type": "string"}}},
}

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("example", "directory", "pool", "kind"),
    [
        ("zenml-on-kubernetes", "/opt/flows", "kubernetes-pool", "kubernetes"),
        ("zenml-on-prefect", "/opt/flows/zenml-on-prefect", "process-pool", "process"),
    ],
)
def test_an_example_runs_as_container_work_pools_run_it(
    example: str,
    directory: str,
    pool: str,
    kind: str,
    tmp_path: Path,
    prefect_server: PrefectServer,
    zenml_server: ZenMLServer,
    component_flavor: None,
) -> None:
    account = new_account(zenml_server, tmp_path)
    image = tmp_path / "image"
    shutil.copytree(ROOT / example, image)
    text = (image / "prefect.yaml").read_text()
    for theirs, ours in (
        (f"directory: {directory}", f"directory: {image}"),
        ("https://zenml.example.com", zenml_server.url),
        ("/run/secrets/zenml/api-key", str(account.file)),
        ("service_account: prefect-prod", f"service_account: {account.name}"),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    (image / "prefect.yaml").write_text(text)
    if (image / "register_stack.py").exists():
        register_stack(zenml_server, image, account.name)
    prefect_server.request(
        "POST",
        "/work_pools/",
        {"name": pool, "type": kind, "base_job_template": TEMPLATE if "kub" in kind else {}},
    )
    deploy(image, "prod", prefect_server)
    container = tmp_path / "container"
    (container / "tmp").mkdir(parents=True)
    home = {"HOME": str(container), "TMPDIR": str(container / "tmp")}
    done = execute_flow_run(prefect_server, "train-model/prod", container, home)
    logs = flow_run_logs(prefect_server, done.flow_run.id)
    assert done.flow_run.state_type == "COMPLETED", logs
    assert f"ran as {account.name}" in logs
    assert any(line.startswith("accuracy ") for line in logs)
    if (image / "register_stack.py").exists():
        path = "/runs?size=1&sort_by=desc:created&hydrate=true"
        (run,) = zenml_server.request("GET", path)["items"]
        written = run["metadata"]["run_metadata"]["service_account_check"]
        assert (written["account"], written["status"]) == (account.name, "passed")
    for folder in (container, prefect_server.folder, zenml_server.folder, image):
        assert search([account.key], folder).found == []


def test_what_the_documents_of_an_example_name_is_there() -> None:
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

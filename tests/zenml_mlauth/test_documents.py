"""The commands of docs/zenml-component.md, run."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from mlauth.systems.zenml import isolation
from tests.support.environment import child_environment
from tests.support.servers import ZenMLServer
from tests.zenml_mlauth.pipelines import ROOT

pytestmark = pytest.mark.usefixtures("component_flavor")


@pytest.mark.load
def test_the_commands_register_a_stack_with_the_component(
    zenml_server: ZenMLServer, tmp_path: Path
) -> None:
    text = (ROOT / "docs/zenml-component.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (zenml .*)$", text, re.MULTILINE)
    # The first is how the fixture registers the flavor.
    assert commands[0] == "zenml alerter flavor register zenml_mlauth.ServiceAccountCheckFlavor"
    assert len(commands) == 3
    environment = child_environment(
        tmp_path,
        {
            "ZENML_STORE_URL": zenml_server.url,
            "ZENML_STORE_API_TOKEN": zenml_server.admin_token().get_secret_value(),
            isolation.NO_DISK: "true",
        },
    )
    unique = f"documented-{uuid.uuid4().hex[:8]}"
    for command in commands[1:]:
        words = [
            unique if word in ("service-account", "prod") else word for word in command.split()
        ]
        words[0] = str(Path(sys.executable).with_name("zenml"))
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (stack,) = zenml_server.request("GET", f"/stacks?name={unique}&hydrate=true")["items"]
    (alerter,) = stack["metadata"]["components"]["alerter"]
    component = zenml_server.request("GET", f"/components/{alerter['id']}")
    assert component["metadata"]["configuration"]["service_account"] == "prefect-prod"

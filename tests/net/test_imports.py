from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.zenml_keys import api_key


def test_who_asks_nobody_imports_no_http(tmp_path: Path) -> None:
    """A proxy or a CA in the environment is no reason either."""
    (tmp_path / "token").write_text("canary-token")
    code = (
        "import sys, mlauth\n"
        f"env = {{'TOKEN': 'file://{tmp_path}/token', 'OTHER': 'env://SOURCE'}}\n"
        "with mlauth.activate(mlauth.EnvironmentSecrets(env=env)): pass\n"
        "rooms = {'httpx', 'requests', 'tenacity', 'azure', 'mlauth.net.http'}\n"
        "print(sorted(rooms & set(sys.modules)))"
    )
    environment = os.environ | {
        "SOURCE": "canary-source",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "REQUESTS_CA_BUNDLE": "/nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "activate",
    [
        "import mlauth\nwith mlauth.activate(mlauth.EnvironmentSecrets(env=env)): pass",
        "from prefect_mlauth import steps\nsteps.export_secrets(env)",
    ],
)
def test_an_activation_imports_no_system_that_it_does_not_use(
    activate: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("canary-token")
    code = (
        f"import sys\nenv = {{'TOKEN': 'file://{tmp_path}/token'}}\n{activate}\n"
        "rooms = ('mlauth.systems.', 'mlauth.azure', 'zenml')\n"
        "print([name for name in sorted(sys.modules) if name.startswith(rooms)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1:] == ["['mlauth.systems.env']"], done.stdout + done.stderr


def test_without_a_proof_nothing_is_imported_that_asks_a_server(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text(api_key())
    code = (
        "import sys\nfrom prefect_mlauth import steps\n"
        "steps.zenml_login('https://zenml.invalid', 'file://api-key', verify=False)\n"
        "print(sorted({'mlauth.net.http', 'mlauth.systems.zenml.server'}\n"
        " & set(sys.modules)))"
    ).replace("file://api-key", f"file://{tmp_path}/api-key")
    environment = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr

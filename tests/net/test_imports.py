from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_who_asks_nobody_imports_no_http(tmp_path: Path) -> None:
    """A proxy or a CA in the environment is no reason either."""
    (tmp_path / "token").write_text("canary-token")
    code = (
        "import sys, mlauth, mlauth.net.http\n"
        f"env = {{'TOKEN': 'file://{tmp_path}/token', 'OTHER': 'env://SOURCE'}}\n"
        "with mlauth.activate(mlauth.EnvironmentSecrets(env=env)): pass\n"
        "print(sorted({'httpx', 'requests', 'tenacity', 'azure'} & set(sys.modules)))"
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

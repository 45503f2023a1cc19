"""The examples of docs/blocks.md and of the blocks' own descriptions, run as scripts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.blocks.core import Block

from prefect_mlauth import (
    AzureKeyVaultSecret,
    MLAuthProfile,
    ReferencedSecret,
    ZenMLCredentials,
)
from tests.support.azure import Azure
from tests.support.servers import PrefectServer, ZenMLServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/blocks.md").read_text(encoding="utf-8")
CANARY = "canary-hf-token"

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def run(
    zenml_server: ZenMLServer,
    prefect_server: PrefectServer,
    registered_blocks: str,
    documents_key: str,
    azure: Azure,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """Runs code as a reader of the page does, with an account and a mounted key."""
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "api-key").write_text(documents_key, encoding="utf-8")
    (folder / "api-key").chmod(0o600)
    (folder / "tokens.json").write_text(f'{{"hf": "{CANARY}"}}', encoding="utf-8")
    vault = azure.vault()
    vault.put("hf-token", CANARY)
    environment = {"CI_HF_TOKEN": CANARY, **azure.environment(azure.writer)}

    def run(code: str) -> str:
        for readers, ours in (
            ("https://zenml.example.com", zenml_server.url),
            ("/run/secrets/zenml/api-key", str(folder / "api-key")),
            ("/run/secrets/tokens.json", str(folder / "tokens.json")),
            ('vault="acme"', f'vault="{vault.host.partition(".")[0]}"'),
        ):
            code = code.replace(readers, ours)
        (folder / "script.py").write_text(code)
        done = subprocess.run(
            [sys.executable, str(folder / "script.py")],
            capture_output=True,
            text=True,
            env=prefect_server.environment(folder / "home") | environment,
            timeout=100,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert documents_key not in said
        assert CANARY not in said
        return said

    return run


def section(title: str) -> str:
    """Return all the code of a section of the page, as one script."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.load
def test_zenml_credentials(run: Run) -> None:
    said = run(section("ZenML Credentials"))
    assert "works as prefect-prod" in said
    assert "logged in as prefect-prod" in said
    assert "passed as 'prefect-prod'" in said


@pytest.mark.load
def test_a_profile(run: Run) -> None:
    said = run(section("mlauth Profile"))
    assert said.index("set: True") < said.index("set: False")


@pytest.mark.load
def test_a_secret_of_key_vault(run: Run) -> None:
    said = run(section("Azure Key Vault Secret"))
    assert re.search(r"written as azurekv://[\w-]+/hf-token\?version=[0-9a-f]{32}\b", said)
    assert "is the new one: True" in said


@pytest.mark.load
def test_a_referenced_secret(run: Run) -> None:
    said = run(section("Referenced Secret"))
    assert re.search(r"written to file://\S+/tokens.json#hf\n", said)
    assert "is the new one: True" in said


@pytest.mark.parametrize(
    ("block", "made", "said"),
    [
        (
            ReferencedSecret,
            'ReferencedSecret(reference="file:///run/secrets/tokens.json#hf").save("example")',
            "Finished in state Completed()",
        ),
        (
            AzureKeyVaultSecret,
            'AzureKeyVaultSecret(vault="acme", name="hf-token").save("example")',
            "Finished in state Completed()",
        ),
        (
            ZenMLCredentials,
            """ZenMLCredentials(
                store_url="https://zenml.example.com", api_key="file:///run/secrets/zenml/api-key"
            ).save("example")""",
            "prefect-prod",
        ),
        (
            MLAuthProfile,
            'MLAuthProfile(content={"env": {"HF_TOKEN": "env://CI_HF_TOKEN"}}).save("example")',
            "('HF_TOKEN',)",
        ),
    ],
)
@pytest.mark.load
def test_the_example_that_the_catalogue_shows(
    run: Run, block: type[Block], made: str, said: str
) -> None:
    example = block.get_code_example()
    assert example is not None
    code = example.removeprefix("```python\n").removesuffix("```")
    code = code.replace("BLOCK_NAME", "example")
    (function,) = re.findall(r"^def (\w+)", code, re.MULTILINE)
    assert said in run(f"{code}\n{made}\n{function}()\n")


def test_the_page_links_to_what_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).resolve().exists(), target

"""The README's examples, run."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from mlauth import ZenMLCredentials
from mlauth.profiles import load_profile
from tests.support.servers import ZenMLServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found
    return found


@pytest.fixture(scope="module")
def project(
    zenml_server: ZenMLServer, documents_key: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder as the README's reader has it: mlauth.toml and a mounted key."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "api-key").write_text(documents_key + "\n", encoding="utf-8")
    (folder / "api-key").chmod(0o600)
    (toml,) = blocks("toml")
    (folder / "mlauth.toml").write_text(adapted(toml, folder, zenml_server), encoding="utf-8")
    return folder


def adapted(text: str, folder: Path, server: ZenMLServer) -> str:
    """Replace the server's address and the key's place, as every reader must."""
    text = text.replace("https://zenml.example.com", server.url)
    return text.replace("/run/secrets/zenml/api-key", str(folder / "api-key"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, project: Path) -> dict[str, str]:
    monkeypatch.chdir(project)
    monkeypatch.setenv("CI_HF_TOKEN", "canary-hf-token")
    monkeypatch.setenv("HOME", str(project))
    return dict(os.environ)


def test_nothing_is_installed_by_a_name_that_somebody_else_could_register() -> None:
    """This holds as long as the project is on no public index."""
    folders = ("docs", "deployments", "mlauth", "prefect_mlauth", "zenml_mlauth")
    pages = [*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    named = [
        f"{path.name}: {part}"
        for path in pages
        if path.suffix in {".md", ".py", ".yaml"} or path.name == "Dockerfile"
        for installs in re.findall(r"pip install ([^`\n]*)", path.read_text(encoding="utf-8"))
        for part in re.split(r"[\s\"']+", installs)
        if re.match(r"mlauth($|[\[=<>~])", part)
    ]
    assert named == ["README.md: mlauth"]  # which says what that would do


def test_the_first_example_is_the_deployment_that_tests_run() -> None:
    deployed = yaml.safe_load((ROOT / "deployments/zenml-on-prefect/prefect.yaml").read_text())
    # The folder's own README registers a stack for it, too.
    assert deployed["pull"][1]["prefect_mlauth.steps.zenml_login"].pop("stack") == "prod"
    assert yaml.safe_load(blocks("yaml")[0])["pull"] == deployed["pull"]


def test_every_step_takes_what_the_examples_give_it() -> None:
    loaded = [yaml.safe_load(text) for text in blocks("yaml")]
    steps = [step for each in loaded for step in (each["pull"] if isinstance(each, dict) else each)]
    assert len(steps) == 5
    for step in steps:
        ((name, inputs),) = step.items()
        module, _, function = name.rpartition(".")
        taken = {key: value for key, value in inputs.items() if key != "id"}
        inspect.signature(getattr(import_module(module), function)).bind(**taken)


@pytest.mark.process
@pytest.mark.load
def test_the_recipe_to_replace_really_does_not_work() -> None:
    (recipe,) = yaml.safe_load(blocks("yaml")[1])
    ((name, inputs),) = recipe.items()
    code = (
        "import asyncio, os, sys; from prefect.deployments.steps import run_shell_script as run\n"
        "try: asyncio.run(run(script=sys.argv[1], shell=sys.argv[2] == 'shell'))\n"
        "except FileNotFoundError as error: print(error)\n"
        "print('ZENML_URL' in os.environ)"
    )
    assert name.endswith("run_shell_script")

    def said(how: str) -> str:
        command = [sys.executable, "-c", code, inputs["script"], how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "No such file or directory: 'export'" in said("plain")
    assert said("shell").endswith("False\n")


def test_the_profile_is_valid(project: Path) -> None:
    profile = load_profile("prod", str(project / "mlauth.toml"))
    zenml, env = profile.systems["zenml"], profile.systems["env"]
    assert isinstance(zenml, ZenMLCredentials)
    assert zenml.service_account == "prefect-prod"
    assert str(env.references()["HF_TOKEN"]) == "env://CI_HF_TOKEN"


def test_the_python_example_runs(
    project: Path, zenml_server: ZenMLServer, environment: dict[str, str]
) -> None:
    (code,) = blocks("python")
    command = [sys.executable, "-c", adapted(code, project, zenml_server)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "prefect-prod"
    assert done.stdout.splitlines()[1].startswith("passed ")
    assert "ZENKEY_" not in done.stdout + done.stderr


def test_the_commands_run(
    project: Path, zenml_server: ZenMLServer, environment: dict[str, str]
) -> None:
    commands = [
        line.removeprefix("$ ").split()
        for text in blocks("console")
        for line in text.splitlines()
        if line.startswith("$ mlauth ")
    ]
    assert [command[1] for command in commands] == ["check", "exec", "explain", "rotate"]
    Path("train.py").write_text("import os; print(os.environ['ZENML_STORE_URL'])")
    for command in commands:
        words = [adapted(word, project, zenml_server) for word in command[1:]]
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "mlauth.cli", *words],
            capture_output=True,
            text=True,
            env=environment,
        )
        if words[0] == "rotate":  # the document that is linked beside it has an administrator
            assert done.returncode == 1
            assert "only an administrator may" in done.stderr
        else:
            assert done.returncode == 0, done.stdout + done.stderr
        assert "ZENKEY_" not in done.stdout + done.stderr

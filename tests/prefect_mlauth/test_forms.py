"""Steps, blocks and tables are made from the models of credentials, and say the same."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from prefect.utilities.importtools import import_object

from mlauth import systems
from mlauth.errors import InvalidCredentials
from prefect_mlauth import steps
from tests.prefect_mlauth.forms import MADE, OURS, ROOT
from tests.support.distributions import PLUGIN, install
from tests.support.servers import child_environment


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_from_the_models_is_what_they_say(name: str) -> None:
    path, text = ROOT / name, MADE[name]()
    if os.environ.get("MLAUTH_WRITE_DOCS"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "make docs"


TYPES = """
from prefect_mlauth import MLAuthProfile, ZenMLCredentials
from prefect_mlauth.steps import export_secrets, zenml_login

said: str = zenml_login("https://zenml.example.com", "env://A", stack="prod")["account"]
zenml_login("https://zenml.example.com", "env://A", stak="prod")
with ZenMLCredentials(store_url="https://zenml.example.com", api_key="env://A").login() as login:
    account: int = login.account
"""


@pytest.mark.load
def test_a_type_checker_knows_the_steps_and_blocks_that_are_made(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(TYPES)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "use.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert re.findall(r"error: .*\[(.*)\]", done.stdout) == ["call-arg", "assignment"], done.stdout


@pytest.mark.parametrize("system", OURS)
def test_the_step_of_a_system_is_a_function_with_the_fields_of_its_model(system: str) -> None:
    name, model = f"{system}_login", systems.load(system)
    step = import_object(f"prefect_mlauth.steps.{name}")  # as Prefect does
    assert step is getattr(steps, name)
    assert (step.__module__, step.__qualname__, step.__name__) == (
        "prefect_mlauth.steps",
        name,
        name,
    )
    parameters = inspect.signature(step).parameters
    assert set(parameters) == {*model.model_fields, "verify", "timeout"}
    assert step.__annotations__["return"] == dict[str, Any]
    for each in ("Args:", "Returns:", "Raises:", "Example:", *(f"    {p}: " for p in parameters)):
        assert f"\n{each}" in step.__doc__
    assert all(len(line) <= 100 for line in step.__doc__.splitlines())
    example = step.__doc__.partition("```yaml\n")[2].partition("```")[0]
    (pulled,) = yaml.safe_load(example)["pull"]
    assert model.of("the example", pulled[f"prefect_mlauth.steps.{name}"])


def test_a_step_shows_types_and_defaults() -> None:
    parameters = inspect.signature(steps.zenml_login).parameters
    assert parameters["api_key"].annotation is str
    assert parameters["api_key"].default is inspect.Parameter.empty
    assert parameters["api_key"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert parameters["credential"].annotation == Literal["api_key", "api_token"]
    assert parameters["credential"].default == "api_key"
    assert parameters["stack"].annotation == (str | None)
    assert parameters["stack"].kind is inspect.Parameter.KEYWORD_ONLY
    assert (parameters["verify"].default, parameters["timeout"].default) == (True, 30.0)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "zenml_login: store_url: is missing: add it; api_key: is missing: add it"),
        ({"servce_account": "x"}, "servce_account: there is no such setting; check the spelling"),
    ],
)
def test_inputs_that_are_missing_or_misspelt_are_named(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCredentials) as caught:
        steps.zenml_login(**inputs)
    assert said in str(caught.value)


def test_an_input_that_is_given_twice_is_a_wrong_call() -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'store_url'"):
        steps.zenml_login("https://a.example", "env://A", store_url="https://b.example")


@pytest.mark.parametrize("name", ["zenm_login", "env_login", "_login", "login", "zenml_logins"])
def test_a_name_that_is_no_step_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(steps, name)


def test_the_steps_of_all_systems_are_listed() -> None:
    assert {"zenml_login", "export_secrets", "activate_profile"} <= set(dir(steps))
    assert "env_login" not in dir(steps)


def run(code: str, folder: Path, *paths: Path) -> str:
    env = {"PYTHONPATH": os.pathsep.join([*map(str, paths), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=child_environment(folder, env),
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


IMPORTS = """
import sys
import prefect_mlauth.steps as steps
from mlauth import plugins, systems
room = "mlauth.systems."
rooms = lambda: sorted({name.split(".")[2] for name in sys.modules if name.startswith(room)})
print(rooms())
steps.zenml_login
print(rooms(), plugins.entries.cache_info().misses)
"""


@pytest.mark.process
@pytest.mark.load
def test_a_step_imports_its_system_alone_and_asks_for_no_other_packages(tmp_path: Path) -> None:
    """Each would take milliseconds, at every run."""
    assert run(IMPORTS, tmp_path) == "[]\n['zenml'] 0\n"


ANOTHER = """
import inspect, os
from prefect.blocks.core import Block
from prefect_mlauth.steps import acme_login
print(inspect.signature(acme_login))
os.environ["CI_ACME_TOKEN"] = "acme_canary"
print(acme_login("https://acme.example.com", "env://CI_ACME_TOKEN", customer=3, verify=False))
print(os.environ["ACME_TOKEN"] == "acme_canary")
block = Block.get_block_class_from_key("acme-credentials")
from prefect_mlauth import AcmeCredentials
assert block is AcmeCredentials
print(block.get_description().splitlines()[0])
written = {"url": "https://acme.example.com", "token": "env://CI_ACME_TOKEN", "verify": False}
made = block(**written, customer=None, pin=None)  # as a block that was saved is loaded
with made.login() as login:
    print(login.variables)
try:
    block(url="https://acme.example.com", token="canary", pin="canary", customer=0)
except Exception as error:
    print(type(error).__name__, error)
    assert "canary" not in str(error)
fields = block.model_json_schema()["properties"]
print([fields[name]["type"] for name in ("url", "token", "customer", "pin")])
print(["would have to be rotated" in fields[name]["description"] for name in fields])
"""


@pytest.mark.process
def test_a_system_of_another_package_has_a_step_and_a_block(tmp_path: Path) -> None:
    entries = "acme = acme_mlauth.system:AcmeCredentials"
    said = run(ANOTHER, tmp_path, install(tmp_path / "site", "mlauth.systems", entries), PLUGIN)
    assert (
        "(url: str, token: str, *, customer: int | None = None, pin: str | None = None, "
        "verify: bool = True, timeout: float = 30.0) -> dict[str, typing.Any]\n"
        "{'variables': ['ACME_CUSTOMER', 'ACME_TOKEN', 'ACME_URL']}\nTrue\n"
        "Lets a flow order from an Acme shop.\n"
        "('ACME_TOKEN', 'ACME_URL')\n"
        "InvalidBlock Acme Credentials block: customer: Input should be greater than 0\n"
        "['string', 'string', 'integer', 'string']\n"
        "[False, True, False, True, False, False]\n"
    ) in said
    assert "canary" not in said


BROKEN = """
from prefect.blocks.core import Block
print(Block.get_block_class_from_key("zenml-credentials").__name__)
import prefect_mlauth
print("AcmeCredentials" in dir(prefect_mlauth))
try:
    from prefect_mlauth.steps import acme_login
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.process
@pytest.mark.load
def test_a_package_that_is_broken_takes_no_block_from_others(tmp_path: Path) -> None:
    entries = "acme = nowhere:AcmeCredentials"
    said = run(BROKEN, tmp_path, install(tmp_path / "site", "mlauth.systems", entries))
    assert said.startswith("ZenMLCredentials\nFalse\nUnknownSystem\n")
    warning = "the system 'acme' of the installed distribution acme-anvils cannot be used: nowhere:"
    assert said.count(warning) == 1

"""No object of ours shows a value, however it is printed, stored or inspected.

The tests find all public classes by reflection. For a new class they fail until `making.py` can
make an object of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import pickle
import pkgutil
import pprint
import re
from abc import ABC
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import cloudpickle
import pytest
from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter

from mlauth import SecretReference, systems
from prefect_mlauth import logins
from tests.leaks.making import BUILDERS, Here
from tests.support.azure import Azure
from tests.support.canaries import leaks

PACKAGES = ("mlauth", "prefect_mlauth", "zenml_mlauth")


def modules() -> Iterator[Any]:
    for package in PACKAGES:
        top = import_module(package)
        yield top
        for found in pkgutil.walk_packages(top.__path__, f"{package}."):
            # The stand-ins of contract suites get only the suites' own secrets.
            if not (re.search(r"\._", found.name) or found.name.startswith("mlauth.testing")):
                yield import_module(found.name)


CLASSES: dict[str, type] = {
    f"{module.__name__}.{name}": item
    for module in list(modules())  # all, as some make classes of others
    for name, item in vars(module).items()
    if inspect.isclass(item) and item.__module__ == module.__name__ and not name.startswith("_")
}
# These classes have no instances of their own.
CONCRETE = sorted(
    name
    for name, cls in CLASSES.items()
    if not inspect.isabstract(cls)
    and ABC not in cls.__bases__
    and not getattr(cls, "_is_protocol", False)
)


def is_a_line(cls: type) -> bool:
    """Say whether a class is an error that is made from its message alone."""
    return issubclass(cls, Exception) and cls.__init__ in {
        Exception.__init__,
        ValueError.__init__,
    }


@pytest.fixture
def here(
    tmp_path: Path, azure: Azure, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> Iterator[Here]:
    with ExitStack() as stack:
        yield Here(tmp_path, azure, monkeypatch, stack)


def make(name: str, here: Here) -> Any:
    cls = CLASSES[name]
    if name not in BUILDERS and is_a_line(cls):
        return here.error(cls)
    assert name in BUILDERS, f"{name} is new: say in making.py how one is made with a secret"
    made = BUILDERS[name](here)
    assert type(made) is cls
    return made


def looks(value: Any) -> Iterator[tuple[str, str | bytes]]:
    """Look at an object in every way in which it is printed, stored or sent."""
    yield "repr", repr(value)
    yield "str", f"{value} {value!s}"
    yield "pprint", pprint.pformat(value)
    for how, pickler in (("pickle", pickle), ("cloudpickle", cloudpickle)):
        with suppress(TypeError, AttributeError, pickle.PicklingError):  # it refuses
            yield how, pickler.dumps(value)
    if isinstance(value, BaseModel):
        yield "model_dump", repr(value.model_dump())
        yield "model_dump_json", value.model_dump_json()
        yield "schema", json.dumps(type(value).model_json_schema())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        with suppress(TypeError):  # it refuses, or holds what cannot be copied
            yield "asdict", repr(dataclasses.asdict(value))
        with suppress(Exception):  # a type that has no JSON
            yield "JSON", TypeAdapter(type(value)).dump_json(value)
    yield "vars", inside(value)


def inside(value: Any) -> str:
    """Return the content of an object and of all objects in it, if they are ours or Python's.

    This stops at a secret type, whose value is available by name only.
    """
    found, seen = io.StringIO(), set[int]()

    def walk(item: Any) -> None:
        if id(item) in seen or isinstance(item, (SecretStr, SecretBytes)):
            return
        seen.add(id(item))
        if isinstance(item, (str, bytes)):
            found.write(item if isinstance(item, str) else item.decode("utf-8", "replace"))
            found.write("\n")
        elif isinstance(item, Mapping):
            for key, each in list(item.items()):
                walk(key)
                walk(each)
        elif isinstance(item, (list, tuple, set, frozenset)):
            for each in list(item):
                walk(each)
        elif type(item).__module__.partition(".")[0] in PACKAGES:
            walk(getattr(item, "__dict__", {}))
            if isinstance(item, BaseException):
                walk(item.args)
                walk(item.__cause__)
        elif inspect.isfunction(item):
            for cell in item.__closure__ or ():
                with suppress(ValueError):  # not set yet
                    walk(cell.cell_contents)
        else:
            found.write(repr(item) + "\n")

    walk(value)
    return found.getvalue()


@pytest.mark.parametrize("name", CONCRETE)
def test_an_object_shows_no_value(name: str, here: Here) -> None:
    made = make(name, here)
    for how, said in looks(made):
        assert leaks(said, *here.values) == [], f"{name}: {how}"


def test_what_is_made_here_exists() -> None:
    assert set(BUILDERS) <= set(CONCRETE)


def test_the_look_into_an_object_finds_a_value() -> None:
    """This shows that the tests above can fail."""

    class Ours:
        def __init__(self) -> None:
            value = "canary-inside"
            self.deep = [{"key": (lambda: value,)}]

    Ours.__module__ = "mlauth.pretended"
    assert "canary-inside" in inside(Ours())
    assert "canary-inside" not in inside([SecretStr("canary-inside")])


@pytest.mark.parametrize(
    "name", [name for name in CONCRETE if issubclass(CLASSES[name], Exception)]
)
def test_an_error_is_the_same_after_it_went_through_another_process(name: str, here: Here) -> None:
    """Prefect pickles the error of a task, and so does a process pool."""
    made = make(name, here)
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is type(made)
    assert str(again) == str(made)


GRANTS = re.compile(
    r"(^|_)(key|keys|token|tokens|secret|secrets|password|passphrase|credential|credentials|value|"
    r"values|certificate|private|sas|connection_string|before)(_|$)"
)
NO_SECRET = {
    "mlauth.azure.identity.ServicePrincipal.certificate": "a path",
    "mlauth.azure.identity.WorkloadIdentity.token_file": "a path",
    "mlauth.systems.zenml.ZenMLCredentials.credential": "a choice of two words",
    "mlauth.references.SecretReference.key": "the name of a field",
    "mlauth.systems.zenml.rotation.Ready.key": "what a server says of it",
    "mlauth.systems.zenml.rotation.Ready.new_key": "yes or no",
    "mlauth.systems.zenml.rotation.Rotation.key_name": "a name",
    "mlauth.systems.zenml.rotation.Rotation.old_key_until": "a time",
    "mlauth.record.Record.secrets": "names of variables",
    "mlauth.checking.Checked.credentials": "a model of references",
    "prefect_mlauth.blocks.ZenMLCredentials.credential": "a choice of two words",
}


# Of blocks: Prefect's form knows no type of ours; a key is refused.
REFERENCES_AS_TEXT = {
    f"prefect_mlauth.blocks.{logins.block_name(system)}.{name}"
    for system in logins.names()
    for name, field in systems.load(system).model_fields.items()
    if "SecretReference" in str(field.annotation)
}


def fields(cls: type) -> dict[str, Any]:
    if dataclasses.is_dataclass(cls):
        return {field.name: get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
    if issubclass(cls, BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    return {}


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        pytest.param(f"{name}.{field}", kind, id=f"{name}.{field}")
        for name in CONCRETE
        for field, kind in fields(CLASSES[name]).items()
        if GRANTS.search(field) and CLASSES[name].__module__.partition(".")[0] in PACKAGES
    ],
)
def test_a_field_that_grants_access_has_a_secret_type(field: str, kind: Any) -> None:
    if field in NO_SECRET or field in REFERENCES_AS_TEXT:
        return
    assert any(secret.__name__ in str(kind) for secret in (SecretStr, SecretReference)), field


def test_every_exception_of_that_rule_is_about_a_field() -> None:
    known = {f"{name}.{field}" for name in CONCRETE for field in fields(CLASSES[name])}
    assert set(NO_SECRET) <= known

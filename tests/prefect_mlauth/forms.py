"""Makes stubs for type checkers, and tables for docs/, from the models of credentials."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import Parameter, formatannotation
from pathlib import Path

from pydantic.fields import FieldInfo

from mlauth import systems
from prefect_mlauth import logins

ROOT = Path(__file__).parents[2]
OURS = [name for name in systems._OURS if logins.is_known(name)]
BEGIN, END = "<!-- made by `make docs` from mlauth/systems -->", "<!-- until here -->"


def steps() -> str:
    """Return the stubs of the steps, which only exist once they are looked up."""
    names = [f"{system}_login" for system in OURS]
    text = f"{_HEAD}from typing import Any, Literal\n\n__all__ = {_listed(names)}\n"
    for system, name in zip(OURS, names, strict=True):
        signature = logins.signature(systems.load(system))
        lines, keywords = [], False
        for parameter in signature.parameters.values():
            if parameter.kind is Parameter.KEYWORD_ONLY and not keywords:
                lines.append("    *,\n")
                keywords = True
            default = "" if parameter.default is Parameter.empty else f" = {_py(parameter.default)}"
            lines.append(f"    {parameter.name}: {_type(parameter.annotation)}{default},\n")
        text += f"\ndef {name}(\n{''.join(lines)}) -> {_type(signature.return_annotation)}: ...\n"
    return text


def blocks() -> str:
    """Return the stubs of the blocks."""
    names = [logins.block_name(system) for system in OURS]
    text = (
        f"{_HEAD}from typing import Literal\n\nfrom prefect_mlauth.blocks.login import Login\n\n"
        f"__all__ = {_listed(names)}\n"
    )
    for system, name in zip(OURS, names, strict=True):
        text += f"\nclass {name}(Login):\n"
        for field, info in logins.fields(systems.load(system)).items():
            default = "" if info.is_required() else f" = {_py(logins.default(info))}"
            text += f"    {field}: {_type(logins.kind(info))}{default}\n"
    return text


_HEAD = "# Made by `make docs` from the models in mlauth/systems.\n"


def _type(annotation: object) -> str:
    return formatannotation(annotation).replace("typing.", "").replace("'", '"')


def _py(value: object) -> str:
    return repr(value).replace("'", '"')


def _listed(names: list[str]) -> str:
    return "[" + ", ".join(_py(name) for name in names) + "]"


def page(system: str) -> str:
    """Return the system's page of docs/, with the table of the current model."""
    text = (ROOT / "docs" / f"{system}.md").read_text(encoding="utf-8")
    before, begins, rest = text.partition(BEGIN)
    _, ends, after = rest.partition(END)
    assert begins, f"docs/{system}.md has no line {BEGIN}"
    assert ends, f"docs/{system}.md has no line {END}"
    return f"{before}{BEGIN}\n\n{_table(system)}\n{END}{after}"


def _table(system: str) -> str:
    model = systems.load(system)
    rows = [
        (f"`{name}`", info.title, _default(info), logins.description(info))
        for name, info in logins.fields(model).items()
    ]
    head = ("field", "in the form", "default", "")
    lines = [head, ("---",) * 4, *rows]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in lines)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    value = logins.default(info)
    return "" if value is None else f"`{str(value).lower() if value in (True, False) else value}`"


MADE: dict[str, Callable[[], str]] = {
    "prefect_mlauth/_logins.pyi": steps,
    "prefect_mlauth/blocks/_logins.pyi": blocks,
    **{f"docs/{system}.md": partial(page, system) for system in OURS},
}

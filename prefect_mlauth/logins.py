"""Makes the fields, signatures and docstrings of login steps and blocks from the models."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from functools import reduce
from inspect import Parameter, Signature
from operator import or_
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from mlauth import systems
from mlauth.references import SecretReference
from mlauth.systems import Credentials


class _Options(BaseModel):
    verify: bool = Field(
        default=True,
        title="Verify",
        description="Prove that each service takes its credentials, before anything is set.",
    )
    timeout: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        title="Time limit",
        description="Seconds for reading every secret and asking every service, together.",
    )


OPTIONS: Mapping[str, Any] = _Options.model_fields


def names() -> Iterator[str]:
    """Yield the systems with a login: all but `env`, which has only variables."""
    return (name for name in systems.names() if name != "env")


def is_known(name: str) -> bool:
    """Say whether there is a login for a system of this name."""
    return name != "env" and systems.place(name) is not None


def block_name(system: str) -> str:
    """Return the name of a system's block, which is also the name of its model."""
    return (systems.place(system) or "").rpartition(":")[2]


def fields(model: type[Credentials]) -> dict[str, FieldInfo]:
    """Return the fields of a login: those of the credentials, and those of every login."""
    return {**model.model_fields, **OPTIONS}


def default(field: FieldInfo) -> Any:
    """Return the default of a field."""
    return field.get_default(call_default_factory=True)


def is_reference(field: FieldInfo) -> bool:
    """Say whether a field holds a reference."""
    return SecretReference in (field.annotation, *get_args(field.annotation))


def description(field: FieldInfo) -> str:
    """Return the description of a field; a reference gets an example."""
    if not is_reference(field):
        return str(field.description)
    example = f", for instance {field.examples[0]}" if field.examples else ""
    return f"{field.description} A reference{example}; never the secret itself."


def kind(field: FieldInfo) -> Any:
    """Return a field's type as people write it: a reference is text."""
    union = get_origin(field.annotation) in (Union, UnionType)
    types = get_args(field.annotation) if union else (field.annotation,)
    return reduce(or_, [str if each is SecretReference else each for each in types])


def signature(model: type[Credentials]) -> Signature:
    """Return the signature of a system's step; only required fields may be positional."""
    parameters = [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD if field.is_required() else Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.is_required() else default(field),
            annotation=kind(field),
        )
        for name, field in fields(model).items()
    ]
    parameters.sort(key=lambda each: each.kind)
    return Signature(parameters, return_annotation=dict[str, Any])


def docstring(model: type[Credentials], step: str) -> str:
    """Return the docstring of a system's step."""
    said = [f"{name}: {description(field)}" for name, field in fields(model).items()]
    example = "".join(
        f"          {name}: {field.examples[0]}\n"
        for name, field in model.model_fields.items()
        if field.examples
    )
    return _DOCSTRING.format(
        about=textwrap.dedent(f"    {model.__doc__}").strip(),
        args="\n".join(_wrapped(line) for line in said),
        step=step,
        example=example,
    )


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 96, initial_indent=" " * 4, subsequent_indent=" " * 8)


_DOCSTRING = """\
{about}

Args:
{args}

Returns:
    `variables`, the names of the variables that were set. With `verify` also `account` and facts
    about the service, such as its version. No secrets.

Raises:
    MLAuthError: one line that says what failed, where, why, and what to do; nothing is set.

Example:
    ```yaml
    pull:
      - {step}:
{example}    ```
"""

"""The blocks of systems, made from the models of their credentials."""

from __future__ import annotations

import asyncio
from abc import ABC
from inspect import cleandoc
from types import new_class
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from prefect._internal.compatibility.async_dispatch import async_dispatch
from pydantic import Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from mlauth import systems
from mlauth.activation import prepare
from mlauth.checking import check
from mlauth.deadline import Deadline
from mlauth.report import CheckReport
from mlauth.systems import Credentials
from prefect_mlauth import logins
from prefect_mlauth.blocks.active import Active
from prefect_mlauth.blocks.references_only import SEEN_BY_ALL, ReferencesOnly


class Login(ReferencesOnly, ABC):
    """The base of the blocks of systems; a block adds the fields of the system's credentials."""

    _model: ClassVar[type[Credentials]]

    if TYPE_CHECKING:  # if they were defined here, they would come first in the form
        verify: bool
        timeout: float

    def login(self) -> Active:
        """Keep the credentials in the environment: `with block.login():`, or `async with`.

        The system's client works as the account until the block of code ends, and then as before.
        In `async with`, the event loop goes on while the service is asked. But the environment
        belongs to the whole process: coroutines and threads that run meanwhile see the variables.

        Returns:
            A context manager for `with` and `async with`, which gives an `mlauth.Activation`. If
            nothing was set, entering it raises an `mlauth.MLAuthError` of one line. After its end,
            it may be used again.
        """
        return Active(
            lambda: prepare(self._credentials(), Deadline(self.timeout), verify=self.verify)
        )

    async def acheck(self) -> CheckReport:
        """Find out if the service takes the credentials; see `check`."""
        return await asyncio.to_thread(self._check)

    @async_dispatch(acheck)
    def check(self) -> CheckReport:
        """Find out if the service takes the credentials. Sets nothing.

        In async code, await it: `await block.check()`.

        Returns:
            The report. A check that failed or is unknown raises no error.
        """
        return self._check()

    def _check(self) -> CheckReport:
        return check(self._credentials(), timeout=self.timeout)

    def _validate_fields(self) -> None:
        self._credentials()

    def _credentials(self) -> Credentials:
        fields = self.model_dump(include=set(self._model.model_fields))
        return self._model.of(self._where(), fields)


def block_of(system: str) -> type[Login]:
    """Make the block of a system.

    It has the name of the system's model, and its type is called `<title> Credentials`.

    Raises:
        UnknownSystem: no system has this name, or its package is broken.
    """
    model = systems.load(system)
    fields = logins.fields(model)
    namespace = {
        "__module__": __name__.rpartition(".")[0],
        "__qualname__": model.__name__,
        "__doc__": _DOCSTRING.format(about=cleandoc(model.__doc__ or ""), name=model.__name__),
        "__annotations__": {name: _annotation(field) for name, field in fields.items()},
        "_block_type_name": f"{model.title} Credentials",
        "_model": model,
        **{name: _field(field) for name, field in fields.items()},
    }
    return new_class(model.__name__, (Login,), exec_body=lambda body: body.update(namespace))


class _WithoutNone:
    """Leaves None out of a field's schema: Prefect's form would offer it as a choice."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shown = handler(schema)
        kinds = [each for each in shown.get("anyOf", [shown]) if each != {"type": "null"}]
        return kinds[0] if len(kinds) == 1 else {**shown, "anyOf": kinds}


def _annotation(field: FieldInfo) -> Any:
    annotated = cast("Any", Annotated)
    kind = logins.kind(field), *field.metadata, _WithoutNone()
    return annotated[kind]


def _field(field: FieldInfo) -> Any:
    title, description = field.title, logins.description(field)
    if logins.is_reference(field):
        title = f"{title} (a reference)"
        description += f" {SEEN_BY_ALL}"
    return Field(default=logins.default(field), title=title, description=description)


_DOCSTRING = """\
{about}

Example:
    ```python
    from prefect import flow
    from prefect_mlauth import {name}

    @flow(log_prints=True)
    def train():
        credentials = {name}.load("BLOCK_NAME")
        with credentials.login() as login:
            print(login.account)
    ```
"""

"""Objects that hold a secret value, which pickle and JSON refuse to write.

Pickle would write it in clear. JSON would write `**********` for every value, and what takes that
for a key, such as Prefect's cache policies, would take two accounts for one.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, SupportsIndex

from pydantic_core import SchemaSerializer, core_schema


def refuse_json(value: object) -> NoReturn:
    """Raise the error that says why a value is not written as JSON."""
    raise TypeError(
        f"{type(value).__name__} holds secret values, which JSON would write as one and the same: "
        "hand the secret's reference on instead"
    )


class NeverPickled:
    """Cannot be pickled or copied: Prefect, for one, pickles results of tasks into files.

    Nor can pydantic write it as JSON: Prefect makes the key of a task's kept result of that.
    """

    # What pydantic's `to_jsonable_python` looks for: `infer.rs` of pydantic-core.
    __pydantic_serializer__: ClassVar[Any] = SchemaSerializer(
        core_schema.any_schema(
            serialization=core_schema.plain_serializer_function_ser_schema(
                refuse_json, when_used="json"
            )
        )
    )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secret values, which pickle would write out in clear: "
            "hand the secret's reference on instead"
        )

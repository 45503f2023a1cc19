"""A base for objects that hold a secret value: it makes pickle and JSON refuse them.

Pickle would write the value in clear. JSON would write `**********` for every value, so Prefect's
cache policies, which make a key of it, would mistake one account for another.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, SupportsIndex

from pydantic_core import SchemaSerializer, core_schema


def refuse_json(value: object) -> NoReturn:
    """Raise the error that says why a value is not written as JSON."""
    raise TypeError(
        f"{type(value).__name__} holds secret values, and JSON would write the same text for all "
        "of them: pass the secret's reference on instead"
    )


class NeverPickled:
    """Cannot be pickled or copied, because Prefect pickles the results of tasks into files.

    Pydantic cannot write it as JSON either, because Prefect makes cache keys of that JSON.
    """

    # Pydantic's `to_jsonable_python` looks for this attribute (`infer.rs` of pydantic-core).
    __pydantic_serializer__: ClassVar[Any] = SchemaSerializer(
        core_schema.any_schema(
            serialization=core_schema.plain_serializer_function_ser_schema(
                refuse_json, when_used="json"
            )
        )
    )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secret values, which pickle would write in clear: pass "
            "the secret's reference on instead"
        )

"""Secret references: URIs that say where a value lives, never what it is.

Grammar: `scheme://where/what[?name=value…][#key]`. The text between `://` and `?` is a place in
the store. It is split at slashes, then each part is decoded, so `%2F` is a slash inside of a part.
`#key` picks one field of a secret that holds several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mlauth import stores
from mlauth.deadline import run_here
from mlauth.errors import InvalidReference
from mlauth.known import KEY_SHAPES
from mlauth.stores import Place

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*\Z")
# A text that holds a key is no reference: so no message repeats a key that stands for a name.
_KEYS = re.compile("|".join(KEY_SHAPES))
_LITERAL = (
    "a literal stands where a secret reference belongs; it has probably been stored in clear: "
    "rotate it, put it into a store and name it as {form}"
)
_FORM = "scheme://where/what, for instance file:///run/secrets/team/api-key"


@dataclass(frozen=True)
class SecretReference:
    """Where a secret lives: the store's scheme, the place in the store and, if needed, the key.

    Attributes:
        scheme: the store, for instance `file`.
        place: the place in the store, with the store's options.
        key: the field to pick from a JSON secret, or None for the whole.
    """

    scheme: str
    place: Place
    key: str | None = None

    def __str__(self) -> str:
        text = f"{self.scheme}://{self.place}"
        return text if self.key is None else f"{text}#{quote(self.key, safe='/:@!$&()*+,;=~?')}"

    def whole(self) -> SecretReference:
        """Return the reference to the whole secret, without `#key`: stores read whole secrets."""
        return SecretReference(self.scheme, self.place)

    @classmethod
    def parse(cls, text: str) -> SecretReference:
        """Parse and validate a reference; does no I/O and needs no SDK.

        Args:
            text: for instance `file:///run/secrets/tokens.json#ci`.

        Raises:
            InvalidReference: the text is no reference, its scheme is unknown, or its store does
                not take one of its parts. A text that is no reference is not repeated in the
                message, because it may be the secret itself.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or not _SCHEME.match(scheme) or _KEYS.search(text):
            raise InvalidReference(_not_a_reference(text))
        rest, hash_sign, key = rest.partition("#")
        location, question_mark, options_text = rest.partition("?")
        grammar = stores.grammar(scheme)
        if grammar is None:
            # A password may stand in a URL of another kind: only the scheme is safe to repeat.
            raise InvalidReference(
                f"no store is called {scheme!r}; mlauth knows {', '.join(stores.schemes())}"
            )
        # The place is repeated only after the store has accepted it: before, it may be the secret.
        where = f"a reference to {scheme}"
        try:
            text.encode()  # fails for lone surrogates, which no store has in a name
            parts = tuple(unquote(part, errors="strict") for part in location.split("/"))
            options = _parse_options(options_text, where)
            picked = unquote(key, errors="strict") if key else None
        except UnicodeError:
            raise InvalidReference(
                f"{where} is not UTF-8, or its percent-encoding is not"
            ) from None
        problem = run_here(lambda: grammar.problem(parts), f"the store {scheme!r}")
        if problem:
            raise InvalidReference(f"{where}: {problem}; the form is {grammar.form}")
        where = f"the {scheme} reference {cls(scheme, Place(parts))}"
        if (hash_sign and not key) or (question_mark and not options_text):
            empty = "#" if hash_sign and not key else "?"
            raise InvalidReference(f"{where} has an empty part after {empty!r}: {grammar.form}")
        unknown = sorted(set(options) - set(grammar.options))
        if unknown:
            known = ", ".join(sorted(grammar.options)) or "none"
            raise InvalidReference(
                f"{where} has the unknown option {unknown[0]!r} (known: {known}): remove it"
            )
        for name, value in sorted(options.items()):
            problem = grammar.options[name](value)
            if problem:
                raise InvalidReference(f"{where}: the option {name!r} {problem}")
        return cls(scheme, Place(parts, options), picked)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> SecretReference:
            if isinstance(value, SecretReference):
                return value
            if not isinstance(value, str):
                raise PydanticCustomError(
                    "secret_reference", "{why}", {"why": _LITERAL.format(form=_FORM)}
                )
            try:
                return cls.parse(value)
            except InvalidReference as error:
                raise PydanticCustomError(
                    "secret_reference", "{why}", {"why": str(error)}
                ) from None

        return core_schema.no_info_plain_validator_function(
            validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
            json_schema_input_schema=core_schema.str_schema(),
        )


def holds_key(text: str) -> bool:
    """Say whether a part of a text looks like a key of a known system."""
    return bool(_KEYS.search(text))


def _parse_options(text: str, where: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in text.split("&") if text else []:
        name, _, value = item.partition("=")
        name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        if not name or not value:
            raise InvalidReference(f"{where} has an option without a {'value' if name else 'name'}")
        if name in options:
            raise InvalidReference(f"{where} has the option {name!r} twice")
        options[name] = value
    return options


def _not_a_reference(text: str) -> str:
    if not text.strip():
        return f"an empty text stands where a secret reference belongs: {_FORM}"
    if text.startswith(("{{", "${", "$")):
        return (
            "a template that nothing replaced stands where a secret reference belongs; "
            f"write the reference itself: {_FORM}"
        )
    scheme = text.partition(":")[0]
    if scheme in stores.schemes() and re.match(r"[^:]+:/?[^/]", text):
        grammar = None if _KEYS.search(text) else stores.grammar(scheme)
        if grammar:
            return f"{scheme} references start with '{scheme}://': {grammar.form}"
    return _LITERAL.format(form=_FORM)

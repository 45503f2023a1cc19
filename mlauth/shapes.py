"""Rules for addresses, names and secret values that hold for every system."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from pydantic import BaseModel

from mlauth.net.route import has_plain_host
from mlauth.references import holds_key

_LITERAL = (
    "a literal key stands where only names and references belong; it has probably been stored in "
    "clear: rotate it, and put it into a store"
)
_PLACEHOLDER = re.compile(
    r"<.*>|\$?\{.*\}|\$\w+|x{3,}|\*{3,}|\.{3,}|(your|my|change|replace|insert|todo|example|dummy|"
    r"placeholder|secret|none|null)([-_ ].*|me)?",
    re.IGNORECASE,
)


def address_problem(url: str) -> str | None:
    """Say what is wrong with a service's URL without repeating it: it may hold a password."""
    if "{{" in url or "${" in url:
        return "is a template that nothing replaced: check the name in it"
    if re.search(r"\s", url):
        return "has white space in it: remove it"
    if not url.isprintable():
        return "has characters in it that no URL has: type it again"
    if not re.match(r"https?://", url):
        return "must start with https:// (in lower case)"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is not a URL"
    if "@" in parts.netloc:
        return "has a user or password in it: remove it, and rotate it if it was real"
    if not parts.hostname or parts.query or parts.fragment:
        return "must be only the server's address: https://host[:port][/path]"
    if not has_plain_host(url):
        return (
            "has a host that programs read differently: write it with letters, digits, '.' and '-' "
            "only, or as an IPv6 address in brackets"
        )
    return None


def literal_problem(value: object) -> str | None:
    """Say why a value of any kind cannot be that of a field: a key is in it. Or return None."""
    return _LITERAL if any(holds_key(text) for text in _texts(value)) else None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from _texts(dict(value))
    elif isinstance(value, Mapping):
        for each in (*value.keys(), *value.values()):
            yield from _texts(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _texts(each)


def host_of(url: str) -> str:
    """Return the host of a URL for which `address_problem` returned None."""
    return urlsplit(url).hostname or ""


def text_problem(text: str) -> str | None:
    """Say why a text cannot be a name or another setting that is no secret, or return None."""
    if not text.strip():
        return "is empty: remove it, or give a name"
    if "{{" in text:
        return "is a template that nothing replaced: check the name in it"
    return literal_problem(text)


def secret_problem(value: str) -> str | None:
    """Say why a text cannot be a key, a token or the like, without showing it, or return None."""
    if value.startswith("\ufeff"):
        return "starts with a byte order mark: store it again as plain UTF-8"
    if re.search(r"\s", value):
        return "has white space in it or around it: store it again without (printf, not echo)"
    if not value.isprintable():
        return "has characters in it that no key has: store it again"
    if len(value) > 1 and (value[0] in "\"'" or value[-1] in "\"'"):
        return "is in quotes: store it again without them"
    if "://" in value:
        return "is itself a reference or a URL: put the key there, or name the place it points to"
    if _PLACEHOLDER.fullmatch(value):
        return "is a placeholder: put the real key there"
    return None

"""Environment variables: which names may be set, and which values are possible."""

from __future__ import annotations

import re

from pydantic import SecretStr

from mlauth.known import REFUSED

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Credentials of installers (UV_INDEX_TEAM_PASSWORD, UV_PUBLISH_TOKEN) are allowed: they do not
# choose where code is installed from.
_OF_INSTALLERS = re.compile(
    r"(PIP|UV|NPM_CONFIG)_(\w*_)?(TOKEN|PASSWORD|USERNAME)\Z", re.IGNORECASE
)
# With an entry `NAME=value` of 131,072 bytes, Linux refuses to start another program (E2BIG).
_MOST_BYTES = 131_072


def name_problem(name: str) -> str | None:
    """Say why a secret may not be exported under a name, or return None."""
    if not _NAME.match(name):
        return "is not the name of a variable (letters, digits and '_')"
    if _OF_INSTALLERS.match(name):
        return None
    return next((why for why, names in REFUSED.items() if _is_one_of(name.upper(), names)), None)


def value_problem(name: str, value: SecretStr) -> str | None:
    """Say why a variable cannot have a value, without showing the value, or return None."""
    if "\0" in value.get_secret_value():
        return "has a NUL character, which no environment variable can hold: pass it as a file"
    if value.get_secret_value().startswith("() {"):  # sudo's `*=()*`
        return "starts like a shell function, which old shells would run: pass it as a file"
    try:
        size = len(f"{name}={value.get_secret_value()}".encode())
    except UnicodeEncodeError:
        return "is not UTF-8, which an environment variable must be here: store it as base64"
    if size >= _MOST_BYTES:
        return (
            f"is too long for an environment variable ({size:,} bytes with its name, at most "
            f"{_MOST_BYTES - 1:,} are possible): pass it as a file"
        )
    return None


def _is_one_of(name: str, patterns: str) -> bool:
    for pattern in patterns.split():
        head, star, tail = pattern.partition("*")
        if name == pattern or (
            star
            and name.startswith(head)
            and name.endswith(tail)
            and len(name) >= len(head) + len(tail)
        ):
            return True
    return False

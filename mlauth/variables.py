"""Environment variables: which names may be set, and which values can be."""

from __future__ import annotations

import re

from pydantic import SecretStr

from mlauth.known import REFUSED

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What installers send to the places that others chose (UV_INDEX_TEAM_PASSWORD, UV_PUBLISH_TOKEN).
_OF_INSTALLERS = re.compile(
    r"(PIP|UV|NPM_CONFIG)_(\w*_)?(TOKEN|PASSWORD|USERNAME)\Z", re.IGNORECASE
)
# One entry `NAME=value` of 131,072 bytes makes the next exec fail with E2BIG.
_MOST_BYTES = 131_072


def name_problem(name: str) -> str | None:
    """Say why a secret may not be exported under a name, or return None."""
    if not _NAME.match(name):
        return "is not the name of a variable (letters, digits and '_')"
    if _OF_INSTALLERS.match(name):
        return None
    return next((why for why, names in REFUSED.items() if _is_one_of(name.upper(), names)), None)


def value_problem(name: str, value: SecretStr) -> str | None:
    """Say why a value cannot be that of a variable, without showing it, or return None."""
    if "\0" in value.get_secret_value():
        return "has a NUL character, which no environment variable can hold: hand it over as a file"
    if value.get_secret_value().startswith("() {"):  # sudo's `*=()*`
        return (
            "starts as a function of the shell, which old shells would run: hand it over as a file"
        )
    try:
        size = len(f"{name}={value.get_secret_value()}".encode())
    except UnicodeEncodeError:
        return "is not UTF-8, which an environment variable must be here: store it as base64"
    if size >= _MOST_BYTES:
        return (
            f"is too long for an environment variable ({size:,} bytes with its name, of "
            f"{_MOST_BYTES - 1:,} at most): hand it over as a file"
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

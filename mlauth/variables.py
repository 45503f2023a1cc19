"""Environment variables: which names may be set, and which values can be."""

from __future__ import annotations

import re

from pydantic import SecretStr

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# These change which code runs, in this process or in its children.
_STARTS_PROGRAMS = re.compile(
    r"(PATH|IFS|ENV|BASH_ENV|SHELLOPTS|HOME|SHELL|NODE_OPTIONS|PERL5OPT|RUBYOPT|JAVA_TOOL_OPTIONS)\Z"
    r"|(LD_|DYLD_|PYTHON|PREFECT_|MLAUTH_)",
    re.IGNORECASE,  # Windows does not tell the cases apart
)
_OF_ZENML = re.compile(r"ZENML_STORE_|ZENML_CONFIG_PATH\Z|DISABLE_CREDENTIALS_DISK_CACHING\Z")
# One entry `NAME=value` of 131,072 bytes makes the next exec fail with E2BIG.
_MOST_BYTES = 131_072


def name_problem(name: str) -> str | None:
    """Say why a secret may not be exported under a name, or return None."""
    if not _NAME.match(name):
        return "is not the name of a variable (letters, digits and '_')"
    if _STARTS_PROGRAMS.match(name):
        return "changes how programs start: a secret is never put there"
    if _OF_ZENML.match(name):
        return (
            "belongs to ZenML, whose client would write the key to its disk: use zenml_login or "
            "the profile's [zenml]"
        )
    return None


def value_problem(name: str, value: SecretStr) -> str | None:
    """Say why a value cannot be that of a variable, without showing it, or return None."""
    if "\0" in value.get_secret_value():
        return "has a NUL character, which no environment variable can hold: hand it over as a file"
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

"""The environment of a child process that writes only into one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"

_FOREIGN_PREFIXES = ("ZENML_", "PREFECT_", "MLAUTH_", "OTEL_", "OPENTELEMETRY_")
_FOREIGN_NAMES = frozenset(
    {
        "DISABLE_CREDENTIALS_DISK_CACHING",
        # With these unset, programs look under HOME, which is in the folder.
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
    }
)


def foreign(name: str) -> bool:
    """Whether a variable is of a system, or leads a program out of its own folder."""
    return name in _FOREIGN_NAMES or name.startswith(_FOREIGN_PREFIXES)


def child_environment(
    folder: str | os.PathLike[str], extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the complete environment of a child process that writes only into one folder.

    It is the environment of this process without the variables of ZenML, Prefect, mlauth and
    OpenTelemetry. HOME and the temporary directory are in the folder, telemetry is off, and
    loopback is reached without a proxy.

    Args:
        folder: where `home` and `tmp` are made if they are not there.
        extra: variables to add; they win.

    Returns:
        A new dictionary, for `subprocess` as it is.
    """
    folder = Path(folder).resolve()
    environment = {name: value for name, value in os.environ.items() if not foreign(name)}
    home, temporary = private_folder(folder / "home"), str(private_folder(folder / "tmp"))
    environment.update(
        HOME=str(home),
        USERPROFILE=str(home),
        TMPDIR=temporary,
        TMP=temporary,
        TEMP=temporary,
        DO_NOT_TRACK="1",
        ZENML_ANALYTICS_OPT_IN="false",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PYTHONUNBUFFERED="1",
    )
    for name in ("NO_PROXY", "no_proxy"):
        others = environment.get(name)
        environment[name] = ",".join(filter(None, (others, LOOPBACK, "localhost")))
    environment.update(extra or {})
    return environment


def private_folder(folder: Path) -> Path:
    """Make a folder and its parents, accessible to its owner only; return it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder

"""Service accounts for the flows of an ML platform.

A flow names where a secret lives, never what it is; the process that runs it reads it at the last
moment, proves that it works, and leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlauth.forks import load

if TYPE_CHECKING:
    from mlauth.activation import activate
    from mlauth.checking import check
    from mlauth.errors import MLAuthError
    from mlauth.profiles import Profile, load_profile
    from mlauth.references import SecretReference
    from mlauth.report import CheckReport, Stage, StageResult, Status
    from mlauth.resolving import resolve
    from mlauth.systems.env import EnvironmentSecrets
    from mlauth.systems.zenml import ZenMLCredentials
    from mlauth.systems.zenml.rotation import Rotation, rotate_zenml

# Imported when they are first used: a pull step pays at every run for what it does not need.
_MODULES = {
    "Activation": "environment",
    "CheckReport": "report",
    "EnvironmentSecrets": "systems.env",
    "MLAuthError": "errors",
    "Profile": "profiles",
    "Rotation": "systems.zenml.rotation",
    "SecretReference": "references",
    "Stage": "report",
    "StageResult": "report",
    "Status": "report",
    "ZenMLCredentials": "systems.zenml",
    "activate": "activation",
    "check": "checking",
    "load_profile": "profiles",
    "resolve": "resolving",
    "rotate_zenml": "systems.zenml.rotation",
}

__all__ = [
    "Activation",
    "CheckReport",
    "EnvironmentSecrets",
    "MLAuthError",
    "Profile",
    "Rotation",
    "SecretReference",
    "Stage",
    "StageResult",
    "Status",
    "ZenMLCredentials",
    "activate",
    "check",
    "load_profile",
    "resolve",
    "rotate_zenml",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(load(f"{__name__}.{_MODULES[name]}"), name)

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
    from mlauth.systems.zenml.rotation import Rotation

# These are imported when they are first used: otherwise every run of a pull step would import
# modules that it does not need.
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


def rotate_zenml(
    profile: str | Profile,
    *,
    retain_minutes: int = 24 * 60,
    new_key: bool = False,
    timeout: float = 30.0,
    config: str = "mlauth.toml",
) -> Rotation:
    """Rotate the API key of a profile's ZenML service account.

    No failure loses a key: the new value is shown to nobody, and the old one works until the new
    one is stored. Ctrl-C and SIGTERM are held back while the key is rotated and stored. Python can
    do that in the main thread only.

    Args:
        profile: its name, or the profile. Its key must be in a store that mlauth can write to.
        retain_minutes: how long the old value works beside the new one. Choose more than your
            longest run needs.
        new_key: make a second API key instead of rotating the stored one; the old key stays valid.
        timeout: seconds for everything before the rotation, and again for each step after it: the
            rotation, storing the new value, reading it back, and proving it.
        config: the file with the profiles, if `profile` is a name.

    Returns:
        What was done, without secrets.

    Raises:
        RotationIncomplete: the key was rotated, but the new value is not stored or not proven.
            The message says how long the old one works, and what to do.
        MLAuthError: nothing was rotated. The errors are those of `mlauth.check` and
            `mlauth.resolve`.
    """
    rotation: Rotation = load(f"{__name__}.rotating").rotate(
        "zenml",
        profile,
        retain_minutes=retain_minutes,
        new_key=new_key,
        timeout=timeout,
        config=config,
    )
    return rotation

"""Service accounts for the flows of an ML platform.

A flow names where a secret lives, never what it is; the process that runs it reads it at the last
moment, proves that it works, and leaves nothing behind.
"""

from mlauth.activation import Activation, activate
from mlauth.checking import check
from mlauth.checks import CheckReport, Stage, StageResult, Status
from mlauth.credentials.env import EnvironmentSecrets
from mlauth.credentials.zenml import ZenMLCredentials
from mlauth.errors import MLAuthError
from mlauth.profiles import Profile, load_profile
from mlauth.references import SecretReference
from mlauth.resolving import resolve

__all__ = [
    "Activation",
    "CheckReport",
    "EnvironmentSecrets",
    "MLAuthError",
    "Profile",
    "SecretReference",
    "Stage",
    "StageResult",
    "Status",
    "ZenMLCredentials",
    "activate",
    "check",
    "load_profile",
    "resolve",
]

"""Masks the output and the logs of a step, on the console and in ZenML's log store."""

from __future__ import annotations

import os

from mlauth import masking
from mlauth.record import resume
from mlauth.systems.zenml import API_KEY, API_TOKEN


def mask_output() -> None:
    """Mask the values that were exported in this process. Calling it again is harmless."""
    resume()
    masking.register(os.environ.get(name, "") for name in (API_KEY, API_TOKEN))
    masking.guard_output()

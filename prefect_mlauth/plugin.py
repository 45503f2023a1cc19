"""Prefect's plugin: masks in the Prefect processes that a flow starts, such as those of its tasks.

Prefect 3.7 and newer load it, where `handlers.for_children` says so, when `prefect` is imported
(`prefect/plugins.py`, read in 3.7.0 and 3.8.8). It does nothing where nothing was
exported.
"""

from __future__ import annotations

from importlib import import_module

from pluggy import HookimplMarker

from mlauth.masking import guard_output
from mlauth.record import read_record, resume


@HookimplMarker("prefect-experimental")  # what Prefect's `register_hook` is, in every version
def setup_environment(*, ctx: object) -> None:  # noqa: ARG001 - Prefect gives it
    """Mask what this process logs; see Prefect's `HookSpec`."""
    if read_record():
        import_module("prefect.main")  # sets up Prefect's handlers, which mask from here on
        resume()
        guard_output()

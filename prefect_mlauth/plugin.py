"""A plugin of Prefect that masks in the processes that a flow starts, such as those of its tasks.

Prefect 3.7 and newer load it when `prefect` is imported, if `handlers.for_children` has set the
variables for that (`prefect/plugins.py`, read in 3.7.0 and 3.8.8). It does nothing if nothing was
exported.
"""

from __future__ import annotations

from importlib import import_module

from pluggy import HookimplMarker

from mlauth.masking import guard_output
from mlauth.record import read_record, resume


@HookimplMarker("prefect-experimental")  # this is Prefect's `register_hook`, in every version
def setup_environment(*, ctx: object) -> None:  # noqa: ARG001 - Prefect gives it
    """Mask everything that this process logs; see Prefect's `HookSpec`."""
    if read_record():
        import_module("prefect.main")  # this sets up Prefect's handlers; the next lines guard them
        resume()
        guard_output()

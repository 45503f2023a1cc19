"""Where a step runs, seen from inside of it. Facts: sources of Prefect 3.3.7 to 3.8.8.

(A) `prefect flow-run execute` (container work pools) runs the steps in a child process that ends
before the flow starts. (B) The process worker and `serve` run them in the engine's process. And a
long-lived worker runs them in itself when it loads a flow for the hooks of a crash. From Prefect
3.8 on, a process runs the steps and then replaces itself by the engine (exec; on Windows it starts
it), whichever way.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TypeAlias

from mlauth.activation import Activation

Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

_FLOW_RUN_ID = "PREFECT__FLOW_RUN_ID"
_RESOLVER = "prefect.runner._workspace_resolver"
_ENGINES = {"prefect.engine", "prefect.flow_engine"}
# What runs steps to find a flow's hooks, and the hooks, for a worker or a script that serves flows.
_PREFECT_ITSELF = ("prefect._internal.concurrency.", "prefect.runner.", "prefect.workers.")


def main_module() -> str:
    """Return the name of the module that Python was started with, `python -m NAME`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "")


def in_resolver() -> bool:
    """Say whether this is the process of (A), which ends before the flow starts."""
    return main_module() == _RESOLVER


def in_engine() -> bool:
    """Say whether this process runs a flow for a worker."""
    return main_module() in _ENGINES


def in_long_lived_process() -> bool:
    """Say whether Prefect runs this step or hook outside of a flow run: nothing may be set there.

    In plain Python, where a person's code calls the step, it is not so.
    """
    if os.environ.get(_FLOW_RUN_ID) or in_resolver():
        return False
    from prefect.context import FlowRunContext, TaskRunContext

    if FlowRunContext.get() or TaskRunContext.get():
        return False
    frame = sys._getframe()  # noqa: SLF001 - the only way to see who calls
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith(_PREFECT_ITSELF):
            return True
    return False


def owner() -> int:
    """Return the process that lives as long as the run: in (A) the parent, else this one."""
    return os.getppid() if in_resolver() else os.getpid()


def flow_run_id() -> str:
    """Return the id of the flow run that this step belongs to, or an empty text."""
    return os.environ.get(_FLOW_RUN_ID) or (sys.argv[1] if in_resolver() else "")


def run_logger() -> Logger:
    """Return the logger of the flow run, whose lines the UI shows, or else Prefect's own."""
    from prefect.logging import get_logger

    run_id = flow_run_id()
    if not run_id:
        return get_logger("mlauth")
    return logging.LoggerAdapter(
        logging.getLogger("prefect.flow_runs"),
        {"flow_run_id": run_id, "flow_run_name": run_id, "flow_name": "<unknown>"},
    )


def tell(logger: Logger, activation: Activation) -> None:
    """Log what an activation did, for the people who look at the run."""
    for warning in activation.warnings:
        logger.warning("mlauth: %s", warning)
    facts = activation.report.facts
    proof = (
        "{server_url} (ZenML {server_version}) took the key of {account!r}; ".format_map(facts)
        if "account" in facts
        else ""
    )
    logger.info("mlauth: %sset %s", proof, ", ".join(activation.variables))

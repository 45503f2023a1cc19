"""Launchers of real servers on loopback: ZenML, Prefect, and a Prefect process worker.

The demo and the tests use the same launchers. Each is a context manager: on entry the server is
ready, and on exit the whole tree of its processes is gone, also after an exception, Ctrl-C or
SIGTERM. A server keeps everything (home, configuration, database, log) in its folder, and inherits
no variable of ZenML, Prefect or mlauth.

Example::

    with ZenMLServer("demo/zenml") as zenml, PrefectServer("demo/prefect") as prefect:
        account = zenml.create_service_account("prefect-prod")
        key_id, key = zenml.create_api_key(account, "demo")
        with ProcessWorker("demo/worker", prefect, pool="demo"):
            deploy("deployments/zenml-on-prefect", "prod", prefect)
            result = run_deployment(prefect, "train/prod")
"""

from tests.support.environment import child_environment
from tests.support.flow_runs import (
    ExecutedFlowRun,
    FlowRunResult,
    deploy,
    execute_flow_run,
    flow_run_logs,
    run_deployment,
)
from tests.support.managed import ManagedProcess, running
from tests.support.prefect_server import PrefectServer, ProcessWorker
from tests.support.processes import ServerError
from tests.support.signals import Terminated
from tests.support.zenml_server import ZenMLServer

__all__ = [
    "ExecutedFlowRun",
    "FlowRunResult",
    "ManagedProcess",
    "PrefectServer",
    "ProcessWorker",
    "ServerError",
    "Terminated",
    "ZenMLServer",
    "child_environment",
    "deploy",
    "execute_flow_run",
    "flow_run_logs",
    "run_deployment",
    "running",
]

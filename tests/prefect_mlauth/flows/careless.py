"""A flow that makes the usual mistakes with its secrets: it prints, logs and passes them."""

import logging
import os
import subprocess
import sys

from flows import log_a_secret, say
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from zenml import get_step_context, pipeline, step

from prefect_mlauth import MLAuthProfile


@step(enable_cache=False)
def careless_step() -> str:
    for name in ("CANARY", "ZENML_STORE_API_KEY"):
        print("printed in a step", os.environ[name])
        logging.getLogger(__name__).warning("logged in a step %s", os.environ[name])
    return get_step_context().pipeline_run.name


@pipeline(enable_cache=False)
def careless_pipeline() -> None:
    careless_step()


@flow(log_prints=True)
def careless() -> None:
    """Make mistakes that would leave secrets somewhere without mlauth."""
    log_a_secret()
    with MLAuthProfile(content={"env": {"CANARY_OF_A_BLOCK": os.environ["OF_A_BLOCK"]}}).activate():
        print("printed beside a block", os.environ["CANARY_OF_A_BLOCK"])
    create_markdown_artifact("# A report", key="report")
    child = "import os; print(len(os.environ['CANARY']))"
    subprocess.run([sys.executable, "-c", child], check=True, stdout=subprocess.DEVNULL)
    run = careless_pipeline()
    say(account=run.user.name, stack=run.stack.name)

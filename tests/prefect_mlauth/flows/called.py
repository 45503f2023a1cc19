"""A script that calls a flow: `called.py LOGIN [DEPLOYMENT]`.

LOGIN is JSON with the login of the script. The flow runs DEPLOYMENT meanwhile.
"""

import json
import sys

from flows import say
from prefect import flow
from prefect.deployments import run_deployment

from prefect_mlauth import ZenMLCredentials
from prefect_mlauth.steps import zenml_login


@flow
def alone() -> None:
    """Report the environment."""
    say()


@flow
def parent() -> None:
    """Run another flow as a child, under an activation of this flow."""
    with ZenMLCredentials(**json.loads(sys.argv[1])).login():
        run = run_deployment(sys.argv[2], timeout=120, poll_interval=1)
        print("CHILD", run.id, run.state_name)
        say()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        parent()
    else:
        zenml_login(**json.loads(sys.argv[1]))
        alone()

"""A script that calls a flow: `called.py LOGIN [DEPLOYMENT]`.

LOGIN is JSON, as what the script logs in; DEPLOYMENT is what the flow runs meanwhile.
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
    """Say what is in the environment."""
    say()


@flow
def parent() -> None:
    """Run another flow, as its child, under an activation of this one's."""
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

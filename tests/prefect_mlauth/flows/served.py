"""A script of a user's that serves flows for as long as it lives: `python -m served FLOWS LOGIN`.

FLOWS are JSON, deployment names to flow names. LOGIN, if there is one, is JSON with what the script
gives to `zenml_login` before it serves.
"""

import json
import sys
from pathlib import Path

from prefect import flow, serve

from prefect_mlauth.steps import zenml_login

if __name__ == "__main__":
    if len(sys.argv) > 2:
        zenml_login(**json.loads(sys.argv[2]))
    here = str(Path(__file__).parent)
    serve(
        *(
            flow.from_source(here, f"flows.py:{name}").to_deployment(deployment)
            for deployment, name in json.loads(sys.argv[1]).items()
        )
    )

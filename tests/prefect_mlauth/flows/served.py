"""A user's script that serves flows as long as it lives: `python -m served FLOWS LOGIN`.

FLOWS is JSON: names of deployments with the names of their flows. LOGIN, if it is there, is JSON
with the inputs of `zenml_login`, which the script calls before it serves.
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

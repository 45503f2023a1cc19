"""A program that runs pull steps in a way of its own: `prepared.py FLOW_RUN_ID FOLDER`."""

import asyncio
import sys

from flows import environment
from prefect.runner._workspace_resolver import prepare_workspace_for_flow_run

if __name__ == "__main__":
    try:
        asyncio.run(prepare_workspace_for_flow_run(*sys.argv[1:]))
    except Exception as error:
        print("REFUSED", error.__cause__)
    print("SET", sorted(environment()))

"""A script that deploys a flow from its source: `deployed.py FOLDER POOL NAME`."""

import sys

from prefect import flow

if __name__ == "__main__":
    folder, pool, name = sys.argv[1:]
    flow.from_source(folder, "flows.py:show").deploy(name, work_pool_name=pool)

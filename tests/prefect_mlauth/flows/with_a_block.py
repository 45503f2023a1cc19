"""A flow that needs a block of ours, and Prefect alone."""

import os

from flows import say
from prefect import flow

from prefect_mlauth import MLAuthProfile


@flow(log_prints=True)
def with_a_block() -> None:
    with MLAuthProfile.load(os.environ["BLOCK"]).activate():
        print("printed", os.environ["CANARY"])
        say()

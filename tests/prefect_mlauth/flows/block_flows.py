"""Flows that use blocks, as code of a user's does."""

import os

from flows import environment, say
from prefect import flow
from zenml.client import Client

from prefect_mlauth import MLAuthProfile, ZenMLCredentials


class Planned(Exception):
    pass


def leak() -> None:
    for name in ("ZENML_STORE_API_KEY", "CANARY"):
        if name in os.environ:
            print("printed", os.environ[name])


@flow(log_prints=True)
def login() -> None:
    """Log in, say as whom ZenML's client works, and fail inside of the block of code."""
    block = ZenMLCredentials.load(os.environ["BLOCK"])
    report = block.check()
    before, inside, account = dict(os.environ), {}, ""
    try:
        with block.login() as activation:
            leak()
            inside, account = environment(), Client().active_user.name
            raise Planned
    except Planned:
        undone = dict(os.environ) == before
    say(
        status=report.status.value,
        activated=activation.account,
        account=account,
        inside=inside,
        undone=undone,
    )


@flow(log_prints=True)
async def login_async() -> None:
    """Do the same in async code."""
    block = await ZenMLCredentials.load(os.environ["BLOCK"])
    report = await block.check()
    before, inside, account = dict(os.environ), {}, ""
    try:
        async with block.login() as activation:
            leak()
            inside, account = environment(), Client().active_user.name
            raise Planned
    except Planned:
        undone = dict(os.environ) == before
    say(
        status=report.status.value,
        activated=activation.account,
        account=account,
        inside=inside,
        undone=undone,
    )


@flow(log_prints=True)
def profile() -> None:
    """Use a profile."""
    block = MLAuthProfile.load(os.environ["BLOCK"])
    before = dict(os.environ)
    with block.activate() as activation:
        leak()
        inside = environment()
    say(variables=activation.variables, inside=inside, undone=dict(os.environ) == before)


@flow(log_prints=True)
async def profile_async() -> None:
    """Do the same in async code."""
    block = await MLAuthProfile.load(os.environ["BLOCK"])
    before = dict(os.environ)
    async with block.activate() as activation:
        leak()
        inside = environment()
    say(variables=activation.variables, inside=inside, undone=dict(os.environ) == before)

"""Flows that use blocks, as users do."""

import hashlib
import os

from flows import environment, say
from prefect import flow
from zenml.client import Client

from prefect_mlauth import (
    AzureKeyVaultSecret,
    MLAuthProfile,
    ReferencedSecret,
    ZenMLCredentials,
)


def digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()[:16]


class Planned(Exception):
    pass


def leak() -> None:
    for name in ("ZENML_STORE_API_KEY", "CANARY"):
        if name in os.environ:
            print("printed", os.environ[name])


@flow(log_prints=True)
def login() -> None:
    """Log in, report the account of ZenML's client, and fail inside of the block of code."""
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


@flow(log_prints=True)
def secret() -> None:
    """Read a secret, write another value, and print both by mistake."""
    block = AzureKeyVaultSecret.load(os.environ["BLOCK"])
    old = block.read_secret()
    reference = block.write_secret(old + b"-new")
    print("printed", old, block.read_secret().decode())
    say(old=digest(old), new=digest(block.read_secret()), reference=reference)


@flow(log_prints=True)
def referenced_secret() -> None:
    """Do the same with the secret of any store."""
    block = ReferencedSecret.load(os.environ["BLOCK"])
    block.write_secret(block.read_secret() + b"-new")
    say(new=digest(block.read_secret()))


@flow(log_prints=True)
async def secret_async() -> None:
    """Do the same in async code."""
    block = await AzureKeyVaultSecret.load(os.environ["BLOCK"])
    old = await block.read_secret()
    reference = await block.write_secret(old + b"-new")
    new = await block.read_secret()
    print("printed", old, new.decode())
    say(old=digest(old), new=digest(new), reference=reference)

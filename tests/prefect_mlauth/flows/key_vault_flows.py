"""Flows that use the block Azure Key Vault Secret, as code of a user's does."""

import hashlib
import json
import os

from prefect import flow

from prefect_mlauth import AzureKeyVaultSecret


def digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()[:16]


def say(**facts: object) -> None:
    print("FACTS " + json.dumps(facts))


@flow(log_prints=True)
def replace() -> None:
    """Read a secret, write a new one and read that."""
    secret = AzureKeyVaultSecret.load(os.environ["BLOCK"])
    before = secret.read_secret()
    print("printed", before.decode())
    written = secret.write_secret(os.environ["NEW"].encode())
    after = secret.read_secret()
    print("printed", after.decode())
    say(before=digest(before), written=written, after=digest(after))


@flow(log_prints=True)
async def replace_async() -> None:
    """Do the same in async code."""
    secret = await AzureKeyVaultSecret.load(os.environ["BLOCK"])
    before = await secret.read_secret()
    print("printed", before.decode())
    written = await secret.write_secret(os.environ["NEW"].encode())
    after = await secret.read_secret()
    print("printed", after.decode())
    say(before=digest(before), written=written, after=digest(after))

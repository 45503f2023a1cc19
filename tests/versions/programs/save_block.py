"""Save blocks: `python save_block.py NAME REFERENCE`."""

import sys

from prefect.blocks.core import Block

from prefect_mlauth import MLAuthProfile, ZenMLCredentials

name, reference = sys.argv[1:]
MLAuthProfile(content={"env": {"CANARY": reference}}).save(name)
login = ZenMLCredentials(store_url="https://zenml.example.com", api_key=reference)
login.save(name)
fields = {"store_url", "api_key"}
loaded = Block.load(f"zenml-credentials/{name}")
assert loaded.model_dump(include=fields) == login.model_dump(include=fields)

"""Save a block: `python save_block.py NAME REFERENCE`."""

import sys

from prefect_mlauth import MLAuthProfile

name, reference = sys.argv[1:]
MLAuthProfile(content={"env": {"CANARY": reference}}).save(name)

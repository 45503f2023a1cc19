"""Prefect imports this to find blocks by their slugs: it makes those of all systems."""

from __future__ import annotations

import logging

from mlauth.errors import UnknownSystem
from prefect_mlauth import blocks, logins

NAMES = list(blocks.__all__)

for _system in logins.names():
    _name = logins.block_name(_system)
    try:
        getattr(blocks, _name)
    except UnknownSystem as error:  # of another package, for which ours go on
        logging.getLogger("mlauth").warning("%s", error)
    else:
        NAMES.append(_name)

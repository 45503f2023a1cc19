"""Run a ZenML pipeline as the account of the profile `prod`, and print its owner and stack."""

import json

from one_step import one_step

import mlauth

with mlauth.activate("prod"):
    run = one_step()
    print(json.dumps([run.user.name, run.stack.name, run.status.value]))

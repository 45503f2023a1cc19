"""Print the variables of the profile `prod` inside of a `with`, and whether it is undone."""

import json
import os

import mlauth

before = dict(os.environ)
with mlauth.activate("prod") as activation:
    inside = sorted(set(os.environ) - set(before))
print(json.dumps([activation.account, inside, dict(os.environ) == before]))

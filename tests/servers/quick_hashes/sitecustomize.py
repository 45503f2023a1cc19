"""Python imports this when a ZenML server of the tests starts: bcrypt at its lowest cost.

ZenML hashes API keys at the default cost, 0.6 s of CPU a login: half of what the tests would take.
"""

from passlib.hash import bcrypt

bcrypt.default_rounds = bcrypt.min_rounds

"""Python imports this when a ZenML server of the tests starts: bcrypt at its lowest cost.

ZenML hashes API keys at the default cost, up to 0.6 s of CPU a login: a fifth of what the tests
take.
"""

from passlib.hash import bcrypt

bcrypt.default_rounds = bcrypt.min_rounds

"""Print a digest of the secret of a reference: `python resolve.py REFERENCE`."""

import hashlib
import sys

import mlauth

secret = mlauth.resolve(sys.argv[1])
print(hashlib.sha256(secret.get_secret_value().encode()).hexdigest()[:16])

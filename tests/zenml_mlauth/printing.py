"""A step that shows a secret in every way, from the import of its module on."""

from __future__ import annotations

import logging
import os
import sys

from zenml import pipeline, step

SECRET = os.environ.get("TEST_EXPORTED", "")
if SECRET:
    print(f"printed at import {SECRET}")
    logging.getLogger("some.library").warning("logged at import %s", SECRET)


@step(enable_cache=False)
def indiscreet() -> int:
    print(f"printed {SECRET}")
    print(f"to stderr {SECRET}", file=sys.stderr)
    sys.stdout.flush()
    sys.stdout.buffer.write(f"as bytes {SECRET}\n".encode())
    logging.getLogger("some.library").warning("logged %s", SECRET)
    return len(SECRET)


@pipeline
def prints() -> None:
    indiscreet.with_options(step_operator=True)()

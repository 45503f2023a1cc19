"""Small flows that say what they find; of secrets only a digest."""

import base64
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from prefect import flow, get_run_logger

FOUND_AT_IMPORT = {name for name in os.environ if name.startswith(("ZENML_", "CANARY"))}


def environment() -> dict[str, str]:
    """Return the variables that tests ask about: secrets as digests, the rest as they are."""
    names = ("ZENML_", "CANARY", "MLAUTH_", "DISABLE_", "PREFECT_LOGGING_HANDLERS")
    return {
        name: hashlib.sha256(value.encode()).hexdigest()[:16]
        if "KEY" in name or "TOKEN" in name or name.startswith("CANARY")
        else value
        for name, value in os.environ.items()
        if name.startswith(names)
    }


def say(**facts: object) -> None:
    print("FACTS " + json.dumps(facts))


@flow(log_prints=True)
def show() -> None:
    """Say what is in the environment, and what was when this module was imported."""
    say(env=environment(), at_import=sorted(FOUND_AT_IMPORT))


@flow(log_prints=True)
def who() -> None:
    """Say as whom ZenML's own client works."""
    from zenml.client import Client

    say(account=Client().active_user.name, env=environment())


@flow(log_prints=True)
def who_again() -> None:
    """Say as whom ZenML's client works before and after it logs in again, next to another run."""
    from zenml.client import Client

    store = Client().zen_store
    first = Client().active_user.name
    meeting = Path(os.environ["MEETING"])
    (meeting / f"{os.getpid()}.here").touch()
    end = time.monotonic() + 90
    while len(list(meeting.glob("*.here"))) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    names = []
    for _ in range(3):
        store.authenticate(force=True)
        names.append(store.get_user(include_private=True).name)
    say(first=first, again=names, met=len(list(meeting.glob("*.here"))))


@flow(log_prints=True)
def leak() -> None:
    """Log a secret in every way that flows do by mistake."""
    secret = os.environ["CANARY"]
    logger = get_run_logger()
    for _ in range(2):
        print("printed", secret)
        logger.info("logged %s", secret)
        logger.warning("in a dictionary %s", {"token": secret})
        logger.info("encoded %s", base64.b64encode(f"user:{secret}".encode()).decode())
        try:
            raise ValueError(f"could not use {secret}")
        except ValueError:
            logger.exception("failed")
        import zenml.client  # noqa: F401 - adds log handlers of its own
    say(done=True)


@flow(log_prints=True)
def killed() -> None:
    """End as a process does that the kernel kills."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@killed.on_crashed
def after_crash(flow: object, flow_run: object, state: object) -> None:
    """Write down what the worker, which runs this hook itself, has in its environment."""
    Path(os.environ["HOOK_FILE"]).write_text(json.dumps({"pid": os.getpid(), **environment()}))

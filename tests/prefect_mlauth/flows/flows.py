"""Small flows that report their environment; of secrets, they report only a digest."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

from prefect import flow, get_run_logger, task

FOUND_AT_IMPORT = sorted(os.environ)


def environment() -> dict[str, str]:
    """Return the variables that tests ask about: secrets as digests, the rest as they are."""
    names = ("ZENML_", "CANARY", "MLAUTH_", "DISABLE_", "PREFECT_LOGGING_HANDLERS", "AZURE_", "HF_")
    return {
        name: hashlib.sha256(value.encode()).hexdigest()[:16]
        if {"KEY", "TOKEN", "SECRET"} & set(name.split("_")) or name.startswith("CANARY")
        else value
        for name, value in os.environ.items()
        if name.startswith(names)
    }


def say(**facts: object) -> None:
    private = Path(os.environ.get("ZENML_CONFIG_PATH", "/nowhere")).is_dir()
    print("FACTS " + json.dumps({"env": environment(), "private": private, **facts}))


@flow(log_prints=True)
def show() -> None:
    """Report the environment."""
    say()


@flow(log_prints=True)
def who() -> None:
    """Report the account of ZenML's own client."""
    from zenml.client import Client

    say(account=Client().active_user.name, at_import=FOUND_AT_IMPORT)


@flow(log_prints=True)
def pipeline() -> None:
    """Run a ZenML pipeline, and give the token to a test that searches for it."""
    from one_step import one_step

    run = one_step()
    if "TOKEN_FILE" in os.environ:
        Path(os.environ["TOKEN_FILE"]).write_text(os.environ["ZENML_STORE_API_TOKEN"])
    say(account=run.user.name, artifact=run.steps["answer"].outputs["output"][0].uri)


@flow(log_prints=True)
def who_again() -> None:
    """Report the account of ZenML's client before and after a new login, beside another run."""
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
        # The server refuses this token like an expired one, so the client logs in again.
        store.session.headers["Authorization"] = "Bearer expired"
        names.append(store.get_user(include_private=True).name)
    say(first=first, again=names, met=len(list(meeting.glob("*.here"))))


@task(log_prints=True)
def in_a_task(secret: str) -> None:
    print("printed in a task", secret)


def log_a_secret() -> None:
    """Log a secret in every way that flows do by mistake."""
    secret = os.environ["CANARY"]
    logger = get_run_logger()
    print("printed", secret)
    logger.info("logged %s", secret)
    logger.warning("in a dictionary %s", {"token": secret})
    logger.info("in base64 %s", base64.b64encode(f"user:{secret}".encode()).decode())
    logger.info("in a URL %s", quote(secret, safe=""))
    logger.info("in JSON %s", json.dumps({"token": secret}))
    try:
        raise ValueError(f"could not use {secret}")
    except ValueError:
        logger.exception("failed")
    in_a_task(secret)
    thread = threading.Thread(target=print, args=("from a thread", secret))  # no run context there
    thread.start()
    thread.join()
    sys.stdout.buffer.write(f"as bytes {secret}\n".encode())
    sys.stdout.flush()


@flow(log_prints=True)
def leak() -> None:
    log_a_secret()


@flow(log_prints=True)
def leak_beside_zenml() -> None:
    log_a_secret()
    import zenml.client  # noqa: F401 - adds log handlers of its own

    log_a_secret()


CHILD = """
import os, sys
from prefect import flow, get_run_logger

@flow(log_prints=True)
def child() -> None:
    get_run_logger().warning("logged by a child %s", sys.argv[1])
    print("printed by a child", sys.argv[1], os.environ["CANARY"])

child()
"""


@flow(log_prints=True)
def with_children() -> None:
    """Start programs that run flows, with mlauth and without."""
    for interpreter in json.loads(os.environ["INTERPRETERS"]):
        command = [*interpreter, "-c", CHILD, str(len(interpreter))]
        subprocess.run(command, cwd="/", check=True)
    say()


@flow(log_prints=True)
def killed() -> None:
    """End like a process that the kernel kills."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


@flow(log_prints=True)
def endless() -> None:
    """Wait to be cancelled."""
    say()
    time.sleep(600)


@killed.on_crashed
@endless.on_cancellation
def hook(flow: object, flow_run: object, state: object) -> None:
    """Write down the environment of the process that runs this hook."""
    from prefect_mlauth import MLAuthProfile

    try:
        with MLAuthProfile(content={"env": {"CANARY": "env://HOME"}}).activate():
            refused = ""
    except Exception as error:
        refused = str(error)
    place = Path(os.environ["HOOKS"], flow.name)
    found = {"pid": os.getpid(), "refused": refused, **environment()}
    place.with_suffix(".new").write_text(json.dumps(found))
    place.with_suffix(".new").rename(place)  # at once, for who waits for it

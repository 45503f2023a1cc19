"""Reads and proves credentials, and keeps them in the environment for the length of a block."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from mlauth.checking import Subject, as_one, check_all
from mlauth.deadline import Deadline
from mlauth.environment import Activating, Activation
from mlauth.profiles import DEFAULT_FILE

logger = logging.getLogger("mlauth")


def activate(
    subject: Subject, *, verify: bool = True, timeout: float = 30.0, config: str = DEFAULT_FILE
) -> AbstractContextManager[Activation]:
    """Keep credentials in the environment for the length of a `with` block.

    The environment belongs to the whole process. Activations may be nested. Those of several
    threads or async tasks may overlap as long as no variable would have two values at once (see
    docs/security.md). The end of the block restores the environment exactly, after any exception
    and in whatever order activations end.

    Args:
        subject: a profile's name, a profile or credentials.
        verify: whether the services are asked.
        timeout: seconds for reading and asking together.
        config: the file with the profiles, if `subject` is a name.

    Returns:
        A context manager. Secrets are read and services asked when its block is entered, and the
        errors below are raised then.

    Raises:
        InvalidProfile, InvalidCredentials, StoreError, ResolutionError: nothing was exported.
        CheckFailed: the service does not take the credentials.
        CheckUnknown: the service gave no answer, and the exports depend on it. Where they do not,
            an unknown check is only a warning.
        ActivationError: a value cannot be a variable, or another thread or task of this process
            has an activation with other values; nothing was exported.
    """
    return active(lambda: prepare(subject, Deadline(timeout), verify=verify, config=config), _tell)


def _tell(activation: Activation) -> None:
    for warning in activation.warnings:
        logger.warning("%s", warning)


@contextmanager
def active(
    prepared: Callable[[], Activating],
    tell: Callable[[Activation], None],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Activation]:
    """Keep prepared credentials in the environment for the length of a `with` block.

    Args:
        prepared: reads the secrets and asks the services. Its errors are raised as they are.
        tell: logs the names of the variables. If it raises an error, nothing stays set.
        settings: variables beside those of the credentials, which `Activation` does not name.
    """
    activating = prepared()
    try:
        try:
            yield activating.activate(tell, owner=os.getpid(), settings=settings, by=_caller())
        finally:
            activating.undo()
    finally:
        activating.undo()  # again: Ctrl-C may have come before the first one, or in its middle


def prepare(
    subject: Subject, deadline: Deadline, *, verify: bool = True, config: str = DEFAULT_FILE
) -> Activating:
    """Read and check credentials; see `activate`. Sets nothing yet."""
    report, checks = check_all(subject, deadline, config=config, verify=verify)
    failures = [each.error for each in checks if each.error and not each.exports]
    if failures:
        raise as_one(failures, report)
    unknown = [
        f"not proven: {each.report.summary()}; going on all the same"
        for each in checks
        if each.error
    ]
    certificates = [each.certificates for each in checks if each.certificates]
    return Activating(
        [each.exports for each in checks if each.exports],
        report,
        [*report.warnings, *unknown],
        certificates[0] if certificates else None,  # they are the same for every system
    )


def _caller() -> tuple[int, object]:
    """Return the thread and the async task that activate: each may have activations of its own."""
    asyncio = sys.modules.get("asyncio")
    try:
        return threading.get_ident(), asyncio.current_task() if asyncio else None
    except RuntimeError:  # no event loop runs in this thread
        return threading.get_ident(), None

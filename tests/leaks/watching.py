"""Collects all output of a process: loggers at DEBUG, streams, and tracebacks with locals."""

from __future__ import annotations

import io
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from rich.console import Console
from rich.traceback import Traceback

from mlauth import environment as of_process
from tests.conftest import unguard_output

_LOGGERS = tuple(
    "prefect zenml mlauth httpx httpcore azure msal urllib3 requests asyncio __main__".split()
)


class Watch:
    """The output so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.log = io.StringIO()
        self._text: list[str] = []
        self.raised: list[BaseException] = []

    def outcome(self, call: Callable[[], Any]) -> None:
        """Call a function, and keep its result or error as people and programs print it."""
        try:
            result = call()
            self._text.append(result if isinstance(result, str) else repr(result))
        except (Exception, SystemExit) as error:
            self.raised.append(error)
            self._text.append(said(error))
        unguard_output()  # for the next call, which may write what this one has to hide

    def text(self) -> str:
        """Return all of it."""
        out, err = self._capture.readouterr()
        self._text += [out, err]
        return "\n".join([self.log.getvalue(), *self._text])


def said(error: BaseException) -> str:
    """Return tracebacks with locals, as rich (and so Prefect) and Python show them."""
    console = Console(file=io.StringIO(), width=4000, record=True)
    console.print(
        Traceback.from_exception(
            type(error),
            error,
            error.__traceback__,
            width=4000,
            show_locals=True,
            locals_max_string=None,  # type: ignore[arg-type]
            locals_max_length=None,  # type: ignore[arg-type]
            locals_hide_dunder=False,
        )
    )
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    stored = ""
    with suppress(TypeError, AttributeError, pickle.PicklingError):
        stored = pickle.dumps(error).decode("utf-8", "replace")
    return "\n".join([console.export_text(), *told.format(), repr(error), stored])


@contextmanager
def watching(capture: pytest.CaptureFixture[str]) -> Iterator[Watch]:
    """Set every logger to DEBUG, with a plain handler from before mlauth masks any.

    The end restores the environment and the factory of log records.
    """
    watch, root = Watch(capture), logging.getLogger()
    handler = logging.StreamHandler(watch.log)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    loud = [root, *(logging.getLogger(name) for name in _LOGGERS)]
    loud += [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _LOGGERS
    ]
    before = [(logger, logger.level, logger.disabled, logger.handlers[:]) for logger in loud]
    factory, environment = logging.getLogRecordFactory(), dict(os.environ)
    logging.setLogRecordFactory(logging.LogRecord)
    for logger in loud:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
        if logger is root or not logger.propagate:
            logger.addHandler(handler)
    try:
        yield watch
    finally:
        for each in list(of_process._active):
            each.undo()
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        logging.setLogRecordFactory(factory)
        for logger, level, disabled, handlers in before:
            logger.level, logger.disabled, logger.handlers = level, disabled, handlers
            logger.manager._clear_cache()  # type: ignore[attr-defined]

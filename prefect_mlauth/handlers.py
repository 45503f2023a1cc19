"""Log handlers that mask, for a process whose logging is set up after a step has run.

Prefect takes the class of each log handler from the environment, as in
`PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS`. What is named there is an attribute of this module whose
name spells the handler's own class, with colons for dots, so that a handler of the user's stays
what it is: `prefect_mlauth.handlers.prefect:logging:handlers:APILogHandler`. A colon in front of
that says that the variable was not set before.

Prefect sets up no handler at all where one cannot be imported. So the process that takes these
variables up puts them back to what they were: a process that it starts may have no mlauth.
`prefect_mlauth.plugin` is what masks in those that have it.
"""

from __future__ import annotations

import logging
import os
import re
from functools import cache
from importlib import import_module

from prefect.settings import get_current_settings

from mlauth.folders import remove_at_exit
from mlauth.masking import guard_output, mask
from mlauth.record import read_record, resume
from prefect_mlauth import runs

_OURS = f"{__name__}."


def environment(config: dict[str, object]) -> dict[str, str]:
    """Return the variables that make Prefect's handlers mask.

    Args:
        config: the logging configuration that is in force, as of `logging.config`.
    """
    handlers = config.get("handlers")
    classes = {
        name: handler["class"]
        for name, handler in (handlers.items() if isinstance(handlers, dict) else ())
        if isinstance(handler, dict) and isinstance(handler.get("class"), str)
    }
    variables = {}
    for name, path in classes.items():
        # As Prefect itself spells the path of a setting in its logging configuration.
        variable = re.sub(r"[^0-9a-zA-Z]+", "_", f"PREFECT_LOGGING_handlers_{name}_class").upper()
        held = os.environ.get(variable, "")
        if path.startswith(_OURS):
            spelled = path
        elif held.startswith(_OURS):  # a step before this one has set it
            spelled = held
        else:
            spelled = _OURS + ("" if held else ":") + path.replace(".", ":")
        variables[variable] = spelled
    return variables


def for_children() -> dict[str, str]:
    """Return the variables that make Prefect load our plugin, and no other, in what this starts.

    None where somebody has settled which plugins Prefect loads. Prefect before 3.7 reads none of
    them.
    """
    ours = {"PREFECT_PLUGINS_ENABLED": "true", "PREFECT_PLUGINS_ALLOW": "mlauth"}
    plugins = getattr(get_current_settings(), "plugins", None)
    settled = plugins is not None and bool(plugins.model_fields_set)
    theirs = any(
        name.startswith(("PREFECT_PLUGINS_", "PREFECT_EXPERIMENTS_PLUGINS_"))
        and os.environ[name] != ours.get(name)
        for name in os.environ
    )
    return {} if settled or theirs else ours


def _put_back() -> None:
    """Put the variables back to what they were before `environment` was added."""
    for name, value in list(os.environ.items()):
        if name.startswith("PREFECT_LOGGING_HANDLERS_") and value.startswith(_OURS):
            path = value.removeprefix(_OURS)
            if path.startswith(":"):
                del os.environ[name]
            else:
                os.environ[name] = path.replace(":", ".")


def __getattr__(name: str) -> type[logging.Handler]:
    module, colon, attribute = name.rpartition(":")
    if not colon:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _take_up()
    return _masking(getattr(import_module(module.strip(":").replace(":", ".")), attribute))


def _masking(base: type[logging.Handler]) -> type[logging.Handler]:
    class Masking(base):  # type: ignore[valid-type, misc]
        def format(self, record: logging.LogRecord) -> str:
            return mask(super().format(record))

    Masking.__name__ = Masking.__qualname__ = f"Masking{base.__name__}"
    return Masking


@cache
def _take_up() -> None:
    """Do once what this process owes to the step that ran in another."""
    resume()
    guard_output()
    _put_back()
    os.environ.update(for_children())
    record = read_record()
    owner, parent = record.get("owner"), os.getppid()
    # The engine is a child of the owner, or (Prefect 3.8) what the owner replaced itself by; what
    # the flow starts is neither, and must not clean up. Nor must the runs of an owner that set the
    # variables itself, such as a script that logs in and then serves flows.
    engines = bool(record.get("handed_on")) and owner == parent
    remove_at_exit(
        record.get("folders", []),
        lambda: owner == os.getpid() or (engines and runs.in_engine()),
    )

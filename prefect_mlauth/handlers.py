"""Log handlers that mask, for a process that sets up logging after a step has run.

Prefect reads the class of each log handler from a variable such as
`PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS`. A step sets this variable to an attribute of this module.
The attribute's name is the path of the original class, with colons for dots, so that a user's own
handler keeps working: `prefect_mlauth.handlers.prefect:logging:handlers:APILogHandler`. A colon
before the path says that the variable was not set before.

If one handler cannot be imported, Prefect sets up no handler at all. A process that starts later
may not have mlauth. So the first process that reads these variables restores them, and
`prefect_mlauth.plugin` masks in later processes that do have mlauth.
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
        config: the current logging configuration, as for `logging.config`.
    """
    handlers = config.get("handlers")
    classes = {
        name: handler["class"]
        for name, handler in (handlers.items() if isinstance(handlers, dict) else ())
        if isinstance(handler, dict) and isinstance(handler.get("class"), str)
    }
    variables = {}
    for name, path in classes.items():
        # Prefect builds the name of the variable in the same way.
        variable = re.sub(r"[^0-9a-zA-Z]+", "_", f"PREFECT_LOGGING_handlers_{name}_class").upper()
        held = os.environ.get(variable, "")
        if path.startswith(_OURS):
            spelled = path
        elif held.startswith(_OURS):  # an earlier step has set it
            spelled = held
        else:
            spelled = _OURS + ("" if held else ":") + path.replace(".", ":")
        variables[variable] = spelled
    return variables


def for_children() -> dict[str, str]:
    """Return the variables that make child processes load our plugin of Prefect, and no other.

    If somebody has configured plugins already, there are none. Prefect before 3.7 ignores these
    variables.
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
    """Restore the variables that `environment` replaced."""
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
    """Continue here, once, the activation of the step that ran in another process."""
    resume()
    guard_output()
    _put_back()
    os.environ.update(for_children())
    record = read_record()
    owner, parent = record.get("owner"), os.getppid()
    # The engine is a child of the owner, or (Prefect 3.8) the owner became the engine. The
    # processes that a flow starts are neither, and must not remove the folders. The same holds for
    # the runs of an owner that set the variables itself, such as a script that logs in and then
    # serves flows.
    engines = bool(record.get("handed_on")) and owner == parent
    remove_at_exit(
        record.get("folders", []),
        lambda: owner == os.getpid() or (engines and runs.in_engine()),
    )

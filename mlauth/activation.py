"""Puts credentials into the environment of this process, and takes them out again.

What an activation did is carried by the environment alone (`mlauth.record`). A process that starts
with it (an engine of Prefect that ran no step, a child) knows which of its variables to mask.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlauth import isolation, redaction
from mlauth.checking import DEFAULT_FILE, Subject, examine
from mlauth.checks import CheckReport, StageFailed, is_unknown
from mlauth.credentials import Exports
from mlauth.deadline import Deadline
from mlauth.errors import (
    ActivationError,
    CheckFailed,
    CheckUnknown,
    InvalidCredentials,
    MLAuthError,
    ResolutionError,
    StoreError,
)
from mlauth.record import RECORD, read_record, remember
from mlauth.variables import value_problem

logger = logging.getLogger("mlauth")
_lock = threading.RLock()


@dataclass(frozen=True)
class Activation:
    """What is active: names and facts, no values.

    Attributes:
        variables: the names of the variables that were set.
        report: the check that was made before.
        warnings: what a person should know, one line each.
    """

    variables: tuple[str, ...]
    report: CheckReport
    warnings: tuple[str, ...] = ()

    @property
    def account(self) -> str | None:
        """The account that the service named, or None where it was not asked."""
        return self.report.facts.get("account")


@dataclass(frozen=True)
class Prepared:
    """What is ready to be exported."""

    exports: list[Exports]
    report: CheckReport
    warnings: list[str]


@contextmanager
def activate(
    subject: Subject, *, verify: bool = True, timeout: float = 30.0, config: str = DEFAULT_FILE
) -> Iterator[Activation]:
    """Have credentials in the environment for the length of a `with` block.

    The environment belongs to the whole process: activations may be nested, but not used from
    several threads at once. What was there before is put back exactly, whatever was raised.

    Args:
        subject: a profile's name, a profile or credentials.
        verify: whether the services are asked.
        timeout: seconds for reading and asking together.
        config: the file of the profiles, for a name.

    Raises:
        InvalidProfile, InvalidCredentials, StoreError, ResolutionError: nothing was exported.
        CheckFailed: the service does not take the credentials.
        CheckUnknown: it could not be found out, and what to export hangs on it; otherwise an
            unknown check is a warning.
    """
    prepared = prepare(subject, Deadline(timeout), verify=verify, config=config)
    exported = export(prepared.exports, owner=os.getpid())
    warnings = prepared.warnings + exported.warnings()
    for warning in warnings:
        logger.warning("%s", warning)
    try:
        yield Activation(exported.names, prepared.report, tuple(warnings))
    finally:
        exported.undo()


def prepare(
    subject: Subject, deadline: Deadline, *, verify: bool = True, config: str = DEFAULT_FILE
) -> Prepared:
    """Read and check credentials for an activation; see `activate`."""
    examination = examine(subject, deadline, config=config, verify=verify)
    report, exports = examination.report, dict(examination.exports)
    warnings = list(report.warnings)
    failures: list[MLAuthError] = []
    for system, error in examination.errors.items():
        values = examination.values.get(system)
        if values is None or not is_unknown(error):
            failures.append(error)
            continue
        try:
            exports[system] = examination.credentials[system].exports(values)
        except InvalidCredentials:
            failures.append(error)
        else:
            warnings.append(f"not proven: {report.summary()}; going on all the same")
    if failures:
        raise _as_one(failures, report)
    return Prepared(list(exports.values()), report, warnings)


def _as_one(failures: list[MLAuthError], report: CheckReport) -> MLAuthError:
    stores = [
        each
        for failure in failures
        for each in (failure.errors if isinstance(failure, ResolutionError) else [failure])
    ]
    if all(isinstance(each, StoreError) for each in stores):
        return stores[0] if len(stores) == 1 else ResolutionError(stores)
    (first, *_) = sorted(failures, key=is_unknown)
    if is_unknown(first):
        return CheckUnknown(report)
    return CheckFailed(report) if isinstance(first, StageFailed) else first


@dataclass
class Exported:
    """What `export` changed.

    Attributes:
        names: the variables that it set.
        replaced: those of them that had another value before.
    """

    names: tuple[str, ...]
    replaced: tuple[str, ...]
    _before: dict[str, str | None] = field(default_factory=dict)
    _folder: str | None = None
    _put_client_back: Callable[[], None] = lambda: None

    @property
    def folders(self) -> list[str]:
        """The private directories that were made."""
        return [self._folder] if self._folder else []

    def warnings(self) -> list[str]:
        """Return a line that names what was replaced, if anything was."""
        if not self.replaced:
            return []
        return [f"replaced what the environment held before: {', '.join(self.replaced)}"]

    def undo(self) -> None:
        """Put back what was there before."""
        with _lock:
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            self._put_client_back()
            if self._folder:
                isolation.remove(self._folder)


def export(all_exports: Iterable[Exports], *, owner: int) -> Exported:
    """Set the variables; all of them, or on an error none.

    Args:
        all_exports: what to set.
        owner: the process that lives as long as the variables are needed.

    Raises:
        ActivationError: a value cannot be an environment variable.
    """
    secrets: dict[str, str] = {}
    settings: dict[str, str] = {}
    emptied: list[str] = []
    isolated = False
    for exports in all_exports:
        secrets |= {name: value.get_secret_value() for name, value in exports.secrets.items()}
        settings |= exports.settings
        emptied += [name for name in exports.neutralised if os.environ.get(name)]
        isolated |= exports.isolate_zenml
    for name, value in {**settings, **secrets}.items():
        problem = value_problem(name, value)
        if problem:
            raise ActivationError(f"the value for {name} {problem}")
    redaction.register(secrets.values())
    with _lock:
        folder = None
        if isolated:
            folder, private = isolation.isolate(settings["ZENML_STORE_URL"], owner)
            settings |= private
        record = read_record()
        record["secrets"] = sorted({*record.get("secrets", []), *secrets})
        record["emptied"] = sorted({*record.get("emptied", []), *emptied})
        # Those of another owner, from which this environment was inherited, are its to remove.
        folders = record.get("folders", []) if record.get("owner") == owner else []
        record["folders"] = [*folders, *([folder] if folder else [])]
        record["owner"] = owner
        record["handed_on"] = owner != os.getpid()
        new = {**settings, **secrets, **dict.fromkeys(emptied, "")}
        before = {name: os.environ.get(name) for name in (*new, RECORD)}
        replaced = sorted(
            name
            for name, value in new.items()
            if before[name] not in (None, value) and name not in _OURS
        )
        remember(secrets)
        os.environ.update(new)
        os.environ[RECORD] = json.dumps(record)
        put_back = isolation.forget_client() if isolated else lambda: None
    redaction.guard_logging()
    return Exported(tuple(sorted(new)), tuple(replaced), before, folder, put_back)


# Replacing these is the point of an isolated client, not worth a line.
_OURS = {isolation.CONFIG_PATH, isolation.LOCAL_STORES_PATH, isolation.NO_DISK}


def resume() -> None:
    """Take up the activations of another process: mask their values, drop what they emptied."""
    record = read_record()
    redaction.register(os.environ.get(name, "") for name in record.get("secrets", []))
    redaction.guard_logging()
    for name in record.get("emptied", []):
        if os.environ.get(name) == "":
            del os.environ[name]


def remove_at_exit(folders: Iterable[str], is_owner: Callable[[], bool]) -> None:
    """Remove private directories when this process ends; a fork of it does not.

    Args:
        folders: the directories.
        is_owner: asked at the end, when the main module is known.
    """
    pid, folders = os.getpid(), list(folders)

    def clean_up() -> None:
        if os.getpid() == pid and is_owner():
            for folder in folders:
                isolation.remove(folder)

    atexit.register(clean_up)

"""Puts credentials into the environment of this process, and takes them out again.

What an activation did is carried by the environment alone (`mlauth.record`). A process that starts
with it (an engine of Prefect that ran no step, a child) knows which of its variables to mask.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType

from pydantic import SecretStr

from mlauth import masking
from mlauth.checking import DEFAULT_FILE, Subject, examine
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
from mlauth.forks import lock
from mlauth.never_pickled import NeverPickled
from mlauth.record import RECORD, Entry, read_record, remember, write_record
from mlauth.report import CheckReport, StageFailed, is_unknown
from mlauth.systems import Exports
from mlauth.systems.zenml import isolation
from mlauth.variables import value_problem

logger = logging.getLogger("mlauth")
_lock = lock()


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
class Prepared(NeverPickled):
    """What is ready to be exported."""

    exports: list[Exports]
    report: CheckReport
    warnings: list[str]


def activate(
    subject: Subject, *, verify: bool = True, timeout: float = 30.0, config: str = DEFAULT_FILE
) -> AbstractContextManager[Activation]:
    """Have credentials in the environment for the length of a `with` block.

    The environment belongs to the whole process. Activations may be nested; from several threads
    or async tasks they may overlap as long as no variable would have two values at once (see
    docs/security.md). What was there before is put back exactly, whatever was raised and in
    whatever order they end.

    Args:
        subject: a profile's name, a profile or credentials.
        verify: whether the services are asked.
        timeout: seconds for reading and asking together.
        config: the file of the profiles, for a name.

    Returns:
        What `with` takes; nothing is read or asked before. It raises what stands below.

    Raises:
        InvalidProfile, InvalidCredentials, StoreError, ResolutionError: nothing was exported.
        CheckFailed: the service does not take the credentials.
        CheckUnknown: it could not be found out, and what to export hangs on it; otherwise an
            unknown check is a warning.
        ActivationError: a value cannot be a variable, or another thread or task of this process
            has an activation with other values; nothing was exported.
    """
    return activating(
        lambda: prepare(subject, Deadline(timeout), verify=verify, config=config), _tell
    )


def _tell(activation: Activation) -> None:
    for warning in activation.warnings:
        logger.warning("%s", warning)


@contextmanager
def activating(
    prepared: Callable[[], Prepared],
    tell: Callable[[Activation], None],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Activation]:
    """Have prepared exports in the environment for the length of a `with` block.

    Args:
        prepared: reads and asks; what it raises is raised.
        tell: logs what was set. When it raises, nothing stays set.
        settings: variables beside those of the credentials, which `Activation` does not name.
    """
    ready, exported = prepared(), Exported(by=caller())
    try:
        try:
            yield exported.activate(ready, tell, owner=os.getpid(), settings=settings or {})
        finally:
            exported.undo()
    finally:
        exported.undo()  # once more: Ctrl-C may have come before, or in the middle of, the first


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
        raise as_one(failures, report)
    return Prepared(list(exports.values()), report, warnings)


def as_one(failures: list[MLAuthError], report: CheckReport) -> MLAuthError:
    """Return the error to raise for what an examination found."""
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


def caller() -> tuple[int, object]:
    """Return what tells two activations apart that may be used at the same time."""
    asyncio = sys.modules.get("asyncio")
    try:
        return threading.get_ident(), asyncio.current_task() if asyncio else None
    except RuntimeError:  # no event loop runs in this thread
        return threading.get_ident(), None


class Exported(NeverPickled):
    """What was exported, until it is undone. Others may be exported and undone in between.

    Attributes:
        names: the variables that it set.
        replaced: those of them that had another value before.
        folders: the private directories that were made.
    """

    def __init__(self, by: tuple[int, object] | None = None) -> None:
        """Change nothing yet.

        Args:
            by: who activates; None for what may be replaced by anyone (the steps of a flow run).
        """
        self.names: tuple[str, ...] = ()
        self.replaced: tuple[str, ...] = ()
        self.folders: list[str] = []
        self.by = by
        self._pid = os.getpid()
        self.before: dict[str, SecretStr | None] = {}
        self.put_client_back: Callable[[], None] | None = None
        self.entry = Entry([], [], [], self._pid)

    def set(self, all_exports: Iterable[Exports], *, owner: int) -> None:
        """Set the variables. What raises in the middle is put right by `undo`.

        Args:
            all_exports: what to set.
            owner: the process that lives as long as the variables are needed.

        Raises:
            ActivationError: a value cannot be an environment variable, or is another one in an
                activation of another thread or task.
        """
        # No plain value in a local variable: tracebacks that show locals go into logs.
        secrets: dict[str, SecretStr] = {}
        settings: dict[str, str] = {}
        emptied: list[str] = []
        isolated = False
        for exports in all_exports:
            secrets |= exports.secrets
            settings |= exports.settings
            emptied += [name for name in exports.neutralised if os.environ.get(name)]
            isolated |= exports.isolate_zenml
        new = {name: SecretStr(text) for name, text in settings.items()} | secrets
        for name, value in new.items():
            problem = value_problem(name, value)
            if problem:
                raise ActivationError(f"the value for {name} {problem}")
        masking.register(value.get_secret_value() for value in secrets.values())
        with _lock:
            new |= dict.fromkeys(emptied, SecretStr(""))
            self._refuse_two_values(new, isolated)
            if isolated:
                folder, private = isolation.isolate(
                    settings["ZENML_STORE_URL"], owner, settings.get(isolation.VERIFY_SSL)
                )
                self.folders.append(folder)
                new |= {name: SecretStr(text) for name, text in private.items()}
            self.names = tuple(sorted(new))
            self.before = {name: _held(name) for name in (*new, RECORD)}
            self.replaced = tuple(
                name
                for name in self.names
                if self.before[name] not in (None, new[name]) and name not in _OURS
            )
            self.entry = Entry(list(secrets), emptied, self.folders, owner)
            remember(secrets)
            _exported.append(self)
            for name, value in new.items():
                os.environ[name] = value.get_secret_value()
            _write_record()
            if isolated:
                self.put_client_back = isolation.keep_client()
                isolation.forget_client()
        masking.guard_logging()
        _undo_waiting()

    def activate(
        self,
        ready: Prepared,
        tell: Callable[[Activation], None],
        *,
        owner: int,
        settings: Mapping[str, str],
    ) -> Activation:
        """Set prepared exports and tell of it; `undo` puts right what raises.

        Args:
            ready: what to set.
            tell: logs what was set.
            owner: as of `set`.
            settings: more variables, which `Activation` does not name.
        """
        self.set([*ready.exports, Exports(settings=dict(settings))], owner=owner)
        self.replaced = tuple(name for name in self.replaced if name not in settings)
        activation = Activation(
            tuple(name for name in self.names if name not in settings),
            ready.report,
            (*ready.warnings, *self.warnings()),
        )
        tell(activation)
        return activation

    def _refuse_two_values(self, new: Mapping[str, SecretStr], isolated: bool) -> None:
        """Refuse to change what another thread or task relies on."""
        if self.by is None:
            return
        theirs = {
            name for each in _exported if each.by not in (None, self.by) for name in each.names
        }
        two = {name for name in theirs & set(new) if _held(name) != new[name]}
        if isolated:
            two |= theirs & {isolation.CONFIG_PATH}  # ZenML's client is one for the process
        if two:
            raise ActivationError(
                f"another thread or task of this process has an activation with "
                f"{', '.join(sorted(two))}, and a process has one environment: activate once, "
                "around the threads or tasks, or give each account a process of its own"
            )

    def warnings(self) -> list[str]:
        """Return a line that names what was replaced, if anything was."""
        if not self.replaced:
            return []
        return [f"replaced what the environment held before: {', '.join(self.replaced)}"]

    def undo(self) -> None:
        """Put back what was there before; may be called again.

        What a later one has set stays, and is what that one will put back from here on: so in
        whatever order they end, no value outlives the last activation that wants it.
        """
        if _is_in_the_middle():
            _waiting.append(self)
            return
        with _lock:
            self._undo()
        _undo_waiting()

    def _undo(self) -> None:
        later = _exported[_exported.index(self) + 1 :] if self in _exported else []
        for name, value in list(self.before.items()):
            heir = next((each for each in later if name in each.before), None)
            if heir is not None:
                heir.before[name] = value
            elif value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value.get_secret_value()
            del self.before[name]
        if self.put_client_back is not None:
            client = next((each for each in later if each.put_client_back), None)
            if client is not None:
                client.put_client_back = self.put_client_back
            else:
                self.put_client_back()
            self.put_client_back = None
        if self in _exported:
            _exported.remove(self)
        _write_record()
        if os.getpid() == self._pid:  # not in a fork of this process, which may go on
            for folder in self.folders:
                isolation.remove(folder)


_exported: list[Exported] = []  # in the order in which they were, those that were not undone
_waiting: list[Exported] = []  # to be undone by the thread that is in the middle of another one


def _is_in_the_middle() -> bool:
    """Say whether this thread sets or undoes another one: the garbage collector comes anywhere.

    Asked of the stack, and not kept in a variable, which an interrupt could leave set for ever.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the only way to see who calls
    while frame is not None and frame.f_code not in _MIDDLES:
        frame = frame.f_back
    return frame is not None


_MIDDLES = {Exported.set.__code__, Exported._undo.__code__}  # noqa: SLF001 - of this module


def _undo_waiting() -> None:
    with _lock:
        while _waiting:
            (first, *_) = _waiting
            first._undo()  # noqa: SLF001 - of this module
            _waiting.remove(first)


def _held(name: str) -> SecretStr | None:
    return SecretStr(os.environ[name]) if name in os.environ else None


def _write_record() -> None:
    if _exported:
        before = _exported[0].before.get(RECORD)
        write_record(before.get_secret_value() if before else "", [e.entry for e in _exported])


def export(
    all_exports: Iterable[Exports], *, owner: int, by: tuple[int, object] | None = None
) -> Exported:
    """Set the variables, until somebody calls `undo`; all of them, or on an error none.

    Args:
        all_exports: what to set.
        owner: the process that lives as long as the variables are needed.
        by: see `Exported`.

    Raises:
        ActivationError: a value cannot be an environment variable, or is another one in an
            activation of another thread or task.
    """
    exported = Exported(by)
    try:
        exported.set(all_exports, owner=owner)
    except BaseException:
        exported.undo()
        raise
    return exported


# Replacing these is the point of an isolated client, or adds to them: not worth a line.
_OURS = {
    isolation.CONFIG_PATH,
    isolation.LOCAL_STORES_PATH,
    isolation.NO_DISK,
    isolation.VERIFY_SSL,
    "NO_PROXY",
    "no_proxy",
}


def resume() -> None:
    """Take up the activations of another process: mask their values, drop what they emptied."""
    record = read_record()
    masking.register(os.environ.get(name, "") for name in record.get("secrets", []))
    masking.guard_logging()
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

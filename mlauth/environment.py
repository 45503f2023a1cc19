"""Sets what systems export in the environment of this process, and undoes it exactly.

What was done is carried by the environment alone (`mlauth.record`). A process that starts with it
(an engine of Prefect that ran no step, a child) knows which of its variables to mask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from mlauth import folders, masking, stores, trust
from mlauth.errors import ActivationError
from mlauth.forks import lock
from mlauth.never_pickled import NeverPickled
from mlauth.record import OWN, RECORD, Record, own_environment, write_record
from mlauth.report import CheckReport
from mlauth.systems import Exports, Scope
from mlauth.variables import value_problem

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
    def accounts(self) -> dict[str, str]:
        """The account that each service named, by system; none of those that were not asked."""
        return self.report.accounts

    @property
    def account(self) -> str | None:
        """The account that the service named; None where none or several did (see `accounts`)."""
        accounts = list(self.accounts.values())
        return accounts[0] if len(accounts) == 1 else None


class Activating(NeverPickled):
    """Exports on their way into the environment, and out of it again.

    Others may be activated and undone in between.

    Attributes:
        names: the variables that it set.
        folders: the private folders that were made.
        record: what it adds to the record of the environment.
        before: what the variables were, for as long as this one is to put them back.
    """

    def __init__(
        self,
        exports: Iterable[Exports],
        report: CheckReport,
        warnings: Sequence[str] = (),
        certificates: str | None = None,
    ) -> None:
        """Change nothing yet.

        Args:
            exports: what to set.
            report: the check that was made before.
            warnings: what it found.
            certificates: whom TLS is to trust, if not what it trusts anyway (`mlauth.trust`).
        """
        self._exports = list(exports)
        self._certificates = certificates
        self._report = report
        self._warnings = list(warnings)
        self._pid = os.getpid()
        self._by: object = None
        self._replaced: tuple[str, ...] = ()
        self._put_back: dict[type[Scope], Callable[[], None]] = {}
        self.names: tuple[str, ...] = ()
        self.folders: list[str] = []
        self.before: dict[str, SecretStr | None] = {}
        self.record = Record([], [], [], [], self._pid)

    def activate(
        self,
        tell: Callable[[Activation], None],
        *,
        owner: int,
        settings: Mapping[str, str] | None = None,
        by: object = None,
    ) -> Activation:
        """Set the variables and tell of it; all of them, or on an error none.

        An interrupt may come after the last line of this: call `undo`, whatever is raised.

        Args:
            tell: logs what was set.
            owner: the process that lives as long as the variables are needed.
            settings: more variables, which `Activation` does not name.
            by: who activates; None for what may be replaced by anyone (the steps of a flow run).

        Raises:
            ActivationError: a value cannot be an environment variable, or is another one in an
                activation of somebody else, or there is no place for a private folder.
        """
        more = dict(settings or {})
        try:
            self._set(more, owner, by)
            activation = Activation(
                tuple(name for name in self.names if name not in more and not name.startswith(OWN)),
                self._report,
                (*self._warnings, *self._replacing()),
            )
            tell(activation)
        except BaseException:
            self.undo()
            raise
        return activation

    def _set(self, more: Mapping[str, str], owner: int, by: object) -> None:
        # No plain value in a local variable: tracebacks that show locals go into logs.
        secrets: dict[str, SecretStr] = {}
        settings: dict[str, str] = dict(more)
        emptied: list[str] = []
        for exports in self._exports:
            secrets |= exports.secrets
            settings |= exports.settings
            emptied += [name for name in exports.emptied if os.environ.get(name)]
        masking.register(value.get_secret_value() for value in secrets.values())
        with _lock:
            unsaid = _without_proxy(host for exports in self._exports for host in exports.direct)
            scopes = [exports.scope for exports in self._exports if exports.scope]
            if scopes or self._certificates:
                unsaid |= self._private(scopes, owner)
            texts = settings | unsaid | dict.fromkeys(emptied, "")
            new = {name: SecretStr(text) for name, text in texts.items()} | secrets
            own = _own(new)
            new |= own
            for name, value in new.items():
                problem = value_problem(name, value)
                if problem:
                    raise ActivationError(f"the value for {name} {problem}")
            self._by = by
            self._refuse_two_values(new)
            self.names = tuple(sorted(new))
            self.before = {name: _held(name) for name in (*new, RECORD)}
            self._replaced = tuple(
                name
                for name in self.names
                if self.before[name] not in (None, new[name])
                # Added to, or made for this run: not worth a line.
                and not (name in unsaid or name in more or name in own)
            )
            # What is kept of a secret is masked as one.
            secrets |= {name: own[name] for name in own if name.removeprefix(OWN) in secrets}
            masking.register(value.get_secret_value() for value in secrets.values())
            plain = set(new) - set(secrets) - set(emptied)
            self.record = Record(list(secrets), sorted(plain), emptied, self.folders, owner)
            _active.append(self)
            for name, value in new.items():
                os.environ[name] = value.get_secret_value()
            _write_record()
            for scope in scopes:
                self._put_back[type(scope)] = scope.keep()
                scope.swap()
        masking.guard_logging()
        _undo_waiting()

    def _private(self, scopes: Iterable[Scope], owner: int) -> dict[str, str]:
        """Make the run's private folder, and return the variables of what is in it."""
        variables: dict[str, str] = {}
        try:
            folder = folders.make(owner)
            self.folders.append(folder)
            for scope in scopes:
                variables |= scope.enter(folder)
            if self._certificates:
                file = Path(folder, trust.FILE)
                file.write_text(self._certificates, encoding="ascii")
                variables |= dict.fromkeys(trust.VARIABLES, str(file))
        except OSError as error:
            raise ActivationError(
                f"no private folder can be made for this run: {error.strerror}: give the worker "
                "or the container a directory that this user may write to, and name it in TMPDIR"
            ) from None
        return variables

    def _refuse_two_values(self, new: Mapping[str, SecretStr]) -> None:
        """Refuse to change what another thread or task relies on, such as its private folder."""
        if self._by is None:
            return
        theirs = {
            name
            for each in _active
            if each._by not in (None, self._by)  # noqa: SLF001 - of this class
            for name in each.names
        }
        two = {name for name in theirs & set(new) if _held(name) != new[name]}
        if two:
            raise ActivationError(
                f"another thread or task of this process has an activation with "
                f"{', '.join(sorted(two))}, and a process has one environment: activate once, "
                "around the threads or tasks, or give each account a process of its own"
            )

    def _replacing(self) -> list[str]:
        """Return a line that names what was replaced, if anything was."""
        if not self._replaced:
            return []
        return [f"replaced what the environment held before: {', '.join(self._replaced)}"]

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
        later = _active[_active.index(self) + 1 :] if self in _active else []
        for name, value in list(self.before.items()):
            heir = next((each for each in later if name in each.before), None)
            if heir is not None:
                heir.before[name] = value
            elif value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value.get_secret_value()
            del self.before[name]
        for kind, put_back in list(self._put_back.items()):
            heir = next((each for each in later if kind in each._put_back), None)  # noqa: SLF001 - as above
            if heir is not None:
                heir._put_back[kind] = put_back  # noqa: SLF001 - of this class
            else:
                put_back()
            del self._put_back[kind]
        if self in _active:
            _active.remove(self)
        _write_record()
        if os.getpid() == self._pid:  # not in a fork of this process, which may go on
            for folder in self.folders:
                folders.remove(folder)


_active: list[Activating] = []  # in the order in which they were, those that were not undone
_waiting: list[Activating] = []  # to be undone by the thread that is in the middle of another one


def _is_in_the_middle() -> bool:
    """Say whether this thread sets or undoes another one: the garbage collector comes anywhere.

    Asked of the stack, and not kept in a variable, which an interrupt could leave set for ever.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the only way to see who calls
    while frame is not None and frame.f_code not in _MIDDLES:
        frame = frame.f_back
    return frame is not None


_MIDDLES = {Activating._set.__code__, Activating._undo.__code__}  # noqa: SLF001 - of this module


def _undo_waiting() -> None:
    with _lock:
        while _waiting:
            (first, *_) = _waiting
            first._undo()  # noqa: SLF001 - of this module
            _waiting.remove(first)


def _held(name: str) -> SecretStr | None:
    return SecretStr(os.environ[name]) if name in os.environ else None


def _own(new: Iterable[str]) -> dict[str, SecretStr]:
    """Return what keeps the worker's own value of variables that say as whom stores are read."""
    own = own_environment()
    replaced = [name for name in new if name in own]
    patterns = stores.identity_variables() if replaced else ()
    return {
        OWN + name: SecretStr(own[name])
        for name in replaced
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _write_record() -> None:
    if _active:
        before = _active[0].before.get(RECORD)
        write_record(before.get_secret_value() if before else "", [each.record for each in _active])


def _without_proxy(hosts: Iterable[str]) -> dict[str, str]:
    """Return what makes clients ask these hosts, too, without a proxy."""
    added = list(dict.fromkeys(hosts))
    if not added:
        return {}
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    return {
        "no_proxy": ",".join(filter(None, [lower or upper, *added])),
        "NO_PROXY": ",".join(filter(None, [upper or lower, *added])),
    }

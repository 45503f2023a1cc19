"""Sets the exports of systems in the environment of this process, and undoes that exactly.

The environment itself carries a record of it (`mlauth.record`). A process that starts with this
environment, such as a child, or an engine of Prefect that ran no step, reads there which variables
to mask.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import FrameType

from pydantic import SecretStr

from mlauth import folders, masking, stores, trust
from mlauth.deadline import run_here
from mlauth.errors import ActivationError, MLAuthError
from mlauth.forks import lock
from mlauth.never_pickled import NeverPickled
from mlauth.record import OWN, RECORD, Record, own_environment, write_record
from mlauth.report import CheckReport
from mlauth.systems import Exports, Scope
from mlauth.variables import value_problem

_lock = lock()


@dataclass(frozen=True)
class Activation:
    """An activation as its user sees it: names and facts, no values.

    Attributes:
        variables: the names of the variables that were set.
        report: the check that was made before.
        warnings: one line each.
    """

    variables: tuple[str, ...]
    report: CheckReport
    warnings: tuple[str, ...] = ()

    @property
    def accounts(self) -> dict[str, str]:
        """The account that each service named, by system. A service that was not asked has none."""
        return self.report.accounts

    @property
    def account(self) -> str | None:
        """The account that the service named; None where none or several did (see `accounts`)."""
        accounts = list(self.accounts.values())
        return accounts[0] if len(accounts) == 1 else None


class Activating(NeverPickled):
    """Puts exports into the environment, and takes them out again.

    Other activations may begin and end in between.

    Attributes:
        names: the variables that it set.
        folders: the private folders that it made.
        record: its part of the record in the environment.
        before: the earlier values that this activation has to restore, by variable.
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
            exports: the variables to set, and more.
            report: the check that was made before.
            warnings: the check's warnings.
            certificates: the CAs that the run trusts (`mlauth.trust`); None leaves the trust of
                the environment as it is.
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
        """Set all variables and log that; after an error, none is set.

        An interrupt may come right after the last line of this method. So callers call `undo` in
        any case.

        Args:
            tell: logs the names of the variables.
            owner: the process that lives as long as the variables are needed.
            settings: more variables, which `Activation` does not name.
            by: the thread and task that activate. None says that anyone may replace the values,
                as the steps of a flow run do.

        Raises:
            ActivationError: a value cannot be an environment variable, another thread or task has
                an activation with another value, or no private folder can be made.
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
        secrets = {name: each for exp in self._exports for name, each in exp.secrets.items()}
        settings = {name: text for exp in self._exports for name, text in exp.settings.items()}
        emptied = [name for exp in self._exports for name in exp.emptied if os.environ.get(name)]
        scopes = [exp.scope for exp in self._exports if exp.scope]
        masking.register(each.get_secret_value() for each in secrets.values())
        with _lock:
            made = self._made_for_the_run(scopes, owner, taken={*secrets, *settings, *emptied})
            texts = {**more, **settings, **made, **dict.fromkeys(emptied, "")}
            new = {name: SecretStr(text) for name, text in texts.items()} | secrets
            own = _own(new)
            new |= own
            self._refuse(new, by)
            # The worker's own value of a secret variable is kept, and is a secret too.
            secrets |= {name: own[name] for name in own if name.removeprefix(OWN) in secrets}
            masking.register(each.get_secret_value() for each in secrets.values())
            plain = sorted(set(new) - set(secrets) - set(emptied))
            self.record = Record(list(secrets), plain, emptied, self.folders, owner)
            # Those of the run were only added to, or made for it: they need no warning.
            self._begin(new, unsaid={*made, *more, *own})
            for scope in scopes:
                if type(scope) not in self._put_back:
                    self._put_back[type(scope)] = run_here(scope.keep, "the scope of a system")
                run_here(scope.swap, "the scope of a system")
        masking.guard_logging()
        _undo_waiting()

    def _made_for_the_run(
        self, scopes: Sequence[Scope], owner: int, taken: set[str]
    ) -> dict[str, str]:
        """Make what the run needs beside the exports, and return the variables for that.

        Args:
            scopes: of the systems.
            owner: see `activate`.
            taken: variables that systems export, so that no scope may set them.
        """
        made = _without_proxy(host for exports in self._exports for host in exports.direct)
        if scopes or self._certificates:
            made |= run_here(partial(self._private, scopes, owner), "the private folder of the run")
        twice = sorted(taken & set(made))
        if twice:
            raise _twice(twice)
        return made

    def _refuse(self, new: Mapping[str, SecretStr], by: object) -> None:
        """Refuse values that cannot be set, or not now."""
        for name, value in new.items():
            problem = value_problem(name, value)
            if problem:
                raise ActivationError(f"the value for {name} {problem}")
        self._by = by
        self._refuse_two_values(new)

    def _begin(self, new: Mapping[str, SecretStr], unsaid: set[str]) -> None:
        """Note what the variables were, and set them."""
        self.names = tuple(sorted(new))
        self.before = {name: _held(name) for name in (*new, RECORD)}
        self._replaced = tuple(
            name
            for name in self.names
            if self.before[name] not in (None, new[name]) and name not in unsaid
        )
        _active.append(self)
        for name, value in new.items():
            os.environ[name] = value.get_secret_value()
        _write_record()

    def _private(self, scopes: Iterable[Scope], owner: int) -> dict[str, str]:
        """Make the run's private folder with its content, and return the variables for that."""
        variables: dict[str, str] = {}
        try:
            folder = folders.make(owner)
            self.folders.append(folder)
            for scope in scopes:
                for name, value in scope.enter(folder).items():
                    if variables.setdefault(name, value) != value:
                        raise _twice([name])
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
        """Refuse to change a variable that another thread or task relies on."""
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
        """Return a warning that names the replaced variables, if there are any."""
        if not self._replaced:
            return []
        return [f"replaced earlier values in the environment: {', '.join(self._replaced)}"]

    def undo(self) -> None:
        """Restore the environment; may be called again.

        Where a later activation has set a variable, that value stays, and the later activation
        will restore the value from before this one. So no value outlives the last activation that
        wants it, in whatever order activations end.
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
        failed: list[MLAuthError] = []
        for kind, put_back in list(self._put_back.items()):
            heir = next((each for each in later if kind in each._put_back), None)  # noqa: SLF001 - as above
            if heir is not None:
                heir._put_back[kind] = put_back  # noqa: SLF001 - of this class
            else:
                try:
                    run_here(put_back, "the scope of a system")
                except MLAuthError as error:  # the rest is undone all the same
                    failed.append(error)
            del self._put_back[kind]
        if self in _active:
            _active.remove(self)
        _write_record()
        if os.getpid() == self._pid:  # a fork removes nothing: the parent may still need it
            for folder in self.folders:
                folders.remove(folder)
        if failed:
            raise failed[0]


_active: list[Activating] = []  # those that are not undone, in the order of their beginning
_waiting: list[Activating] = []  # those that this thread undoes once it is done with another one


def _is_in_the_middle() -> bool:
    """Say whether this thread is setting or undoing an activation right now.

    The garbage collector may end an abandoned `with` block at any point, also there. The stack
    answers this; an interrupt could leave a variable set for ever.
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


def _twice(names: Sequence[str]) -> ActivationError:
    return ActivationError(
        f"{', '.join(names)} would get one value from a system and another from the scope of a "
        "system: remove one system of the two, and report this to those who make them"
    )


def _held(name: str) -> SecretStr | None:
    return SecretStr(os.environ[name]) if name in os.environ else None


def _own(new: Iterable[str]) -> dict[str, SecretStr]:
    """Return variables that keep the worker's own identity, where exports replace parts of it."""
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
    """Return the variables that make clients ask these hosts, too, without a proxy."""
    added = list(dict.fromkeys(hosts))
    if not added:
        return {}
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    return {
        "no_proxy": ",".join(filter(None, [lower or upper, *added])),
        "NO_PROXY": ",".join(filter(None, [upper or lower, *added])),
    }

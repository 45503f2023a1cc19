"""Walks credentials through the stages of a check: for `check`, and before every activation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TypeAlias

from pydantic import SecretStr

from mlauth import hosts
from mlauth.deadline import Deadline, run_here
from mlauth.errors import (
    CheckFailed,
    CheckUnknown,
    DeadlineExceeded,
    InvalidCredentials,
    MLAuthError,
    ResolutionError,
    StageFailed,
    StoreError,
    is_unknown,
)
from mlauth.never_pickled import NeverPickled
from mlauth.owners import trespass, two_values
from mlauth.profiles import DEFAULT_FILE, Profile, load_profile
from mlauth.record import environment
from mlauth.report import (
    CheckReport,
    Stage,
    StageResult,
    Status,
    SystemReport,
)
from mlauth.resolving import Expired, Reader, Resolved
from mlauth.stages import Stages, recorded
from mlauth.storing import hosts_of
from mlauth.systems import Credentials, Exports, Proof, load, usable
from mlauth.trust import certificates

Subject: TypeAlias = "str | Profile | Credentials"


@dataclass
class Checked(NeverPickled):
    """The result of the check of one system.

    Attributes:
        credentials: the credentials that were checked.
        report: the stages.
        values: the well-formed values, by field; None if the check ended before.
        proof: the answer of the service that exports need; None if it was not asked or a stage
            did not pass.
        exports: the variables to set. They are there for an unknown check too, if they do not
            depend on the service.
        certificates: the CAs that the run trusts, if the system has a CA bundle (`mlauth.trust`).
        error: the error that ended the check, if there was one.
    """

    credentials: Credentials
    report: SystemReport
    values: dict[str, SecretStr] | None = None
    proof: Proof | None = None
    exports: Exports | None = None
    certificates: str | None = None
    error: MLAuthError | None = None


def check(
    subject: Subject | None = None,
    *,
    systems: Sequence[str] = (),
    timeout: float = 30.0,
    config: str = DEFAULT_FILE,
) -> CheckReport:
    """Find out, against the real services, whether credentials work. Exports nothing.

    Args:
        subject: a profile's name, a profile or credentials. None checks the credentials that the
            environment of this process holds.
        systems: names of systems. Each must be there, and no other is checked. By default, every
            system that is there is checked.
        timeout: seconds for everything together.
        config: the file with the profiles, if `subject` is a name.

    Returns:
        The report. A check that failed or is unknown raises no error.

    Raises:
        InvalidProfile: the profile cannot be read.
        UnknownSystem: there is no system of that name.
    """
    deadline = Deadline(timeout)
    wanted = [load(name) for name in dict.fromkeys(systems)]
    title, failed, broken = "the environment of this process", list[SystemReport](), list[str]()
    expired: Expired = "refuse"
    looked_for = wanted
    if subject is None:
        if not systems:
            looked_for, broken = usable()
        found, failed = _in_environment(looked_for)
    else:
        title, found, expired = _found(subject, config)
        if systems:
            found = [item for item in found if item.system in systems]
    there = {*(item.system for item in found), *(report.system for report in failed)}
    for cls in wanted:
        if cls.system not in there:
            line = _unset(cls) if subject is None else f"{title} has no [{cls.system}]: add it"
            failed.append(_failed(cls.system, cls.title, line))
    if not found and not failed:
        known = [_unset(each) for each in looked_for if each.found_in]
        line = "; ".join(known) + ": set them, or name a profile"
        failed.append(_failed("mlauth", "", line))
    checks = _check_each(found, deadline, verify=True, expired=expired)
    return CheckReport(title, [*(each.report for each in checks), *failed], broken)


def check_all(
    subject: Subject, deadline: Deadline, *, config: str = DEFAULT_FILE, verify: bool = True
) -> tuple[CheckReport, list[Checked]]:
    """Check a profile or credentials within the deadline; systems do not wait for each other.

    Args:
        subject: see `check`.
        deadline: the time limit of everything together.
        config: the file with the profiles, if `subject` is a name.
        verify: whether the services are asked.

    Raises:
        InvalidProfile: the profile cannot be read.
    """
    title, found, expired = _found(subject, config)
    checks = _check_each(found, deadline, verify=verify, expired=expired)
    return CheckReport(title, [each.report for each in checks]), checks


def _found(subject: Subject, config: str) -> tuple[str, list[Credentials], Expired]:
    if isinstance(subject, Credentials):
        return f"{subject.system} credentials", [subject], "refuse"
    if not isinstance(subject, str):
        return "the profile", subject.credentials(), subject.expired
    profile = load_profile(subject, config)
    return f"profile {subject!r} of {config}", profile.credentials(), profile.expired


def _in_environment(
    systems: Iterable[type[Credentials]],
) -> tuple[list[Credentials], list[SystemReport]]:
    """Return the credentials in the environment, and a failed report for each unusable one."""
    found, failed = [], []
    for cls in systems:
        try:
            credentials = run_here(partial(cls.from_environment, environment()), cls.system)
        except MLAuthError as error:
            failed.append(_failed(cls.system, cls.title, str(error)))
        else:
            found += [credentials] if credentials else []
    return found, failed


def _unset(cls: type[Credentials]) -> str:
    variables = ", ".join(cls.found_in.values())
    which = f", so {cls.title} would {cls.otherwise}" if cls.otherwise else ""
    return f"no variable of {cls.title} is set here{f' ({variables})' if variables else ''}{which}"


def _failed(system: str, title: str, line: str) -> SystemReport:
    result = StageResult(system, Stage.CONFIGURED, Status.FAILED, line)
    return SystemReport(system, title, [result])


def _check_each(
    found: list[Credentials], deadline: Deadline, *, verify: bool, expired: Expired
) -> list[Checked]:
    checks = [Checked(item, SystemReport(item.system, item.title)) for item in found]
    trust = cache(partial(_certificates, found))
    inner = deadline.inner()
    reader = Reader(inner, expired=expired)
    walks = [partial(_walk, check, found, inner, trust, reader, verify=verify) for check in checks]
    reports = [each.report for each in checks]
    ended = in_time(deadline, reports, walks)
    checks = [
        replace(each, report=report, error=error)
        for each, report, error in zip(checks, reports, ended, strict=True)
    ]
    _add_exports(checks)
    return checks


def _certificates(found: Iterable[Credentials]) -> str | None:
    held = environment()
    return certificates({each.system: ca for each in found if (ca := each.ca(held))}, held)


def _add_exports(checks: Iterable[Checked]) -> None:
    """Add to each check its exports, or why they are refused: two systems may want one variable."""
    for each in checks:
        if each.values is None or (each.error and not is_unknown(each.error)):
            continue
        try:
            exports = partial(each.credentials.exports, each.values, each.proof)
            each.exports = run_here(exports, each.report.system)
        except MLAuthError as error:
            if each.error is None:
                _refuse(each, error)
    refused = two_values([(each.credentials, each.exports) for each in checks if each.exports])
    for each in checks:
        why = refused.get(each.report.system)
        if why:
            each.exports = None
            _refuse(each, InvalidCredentials(why))


def _refuse(check: Checked, error: MLAuthError) -> None:
    check.error = error
    result = StageResult(check.report.system, Stage.CONFIGURED, Status.FAILED, str(error))
    check.report.results.append(result)


def in_time(
    deadline: Deadline, reports: list[SystemReport], walks: Sequence[Callable[[], None]]
) -> list[MLAuthError | None]:
    """Run the checks of all systems at the same time.

    Args:
        deadline: when it is over, the current stage of each system that is not done is unknown.
        reports: the walks write into them. A walk that is late goes on writing, so its report is
            replaced in this list by a copy.
        walks: one walk through the stages for each system.

    Returns:
        The error that ended each walk, or None.
    """
    ended: list[MLAuthError | None] = []
    for index, result in enumerate(deadline.run_all(walks, "the check")):
        if isinstance(result, MLAuthError):
            reports[index] = deepcopy(reports[index])
            _end(reports[index], result, deadline)
            ended.append(result)
        elif isinstance(result, BaseException):
            raise result
        else:
            ended.append(None)
    return ended


def _end(report: SystemReport, error: MLAuthError, deadline: Deadline) -> None:
    """Write into the last stage of a walk why the walk ended, if no stage says it already."""
    results = report.results
    if all(result.status is Status.PASSED for result in results):  # it hung between stages
        results.append(StageResult(report.system, Stage.CONFIGURED, Status.UNKNOWN))
    if results[-1].detail or results[-1].status is not Status.UNKNOWN:
        return
    results[-1].detail = str(error)
    if isinstance(error, DeadlineExceeded):
        url = report.facts.get("server_url")
        results[-1].detail = (
            f"{f'{url}: ' if url else ''}no answer within {deadline.seconds:g} s: is a firewall or "
            "proxy in the way? a busy service needs a longer timeout"
        )
    elif not is_unknown(error):
        results[-1].status = Status.FAILED


def as_one(failures: list[MLAuthError], report: CheckReport) -> MLAuthError:
    """Return one error for all failures of a check."""
    each_once = {  # several systems may need the same missing secret
        each: None
        for failure in failures
        for each in (failure.errors if isinstance(failure, ResolutionError) else [failure])
    }
    stores = list(each_once)
    if all(isinstance(each, StoreError) for each in stores):
        return stores[0] if len(stores) == 1 else ResolutionError(stores)
    (first, *_) = sorted(failures, key=is_unknown)
    if is_unknown(first):
        return CheckUnknown(report)
    return CheckFailed(report) if isinstance(first, StageFailed) else first


def _walk(
    check: Checked,
    others: list[Credentials],
    deadline: Deadline,
    trust: Callable[[], str | None],
    reader: Reader,
    *,
    verify: bool,
) -> None:
    credentials, report = check.credentials, check.report
    with recorded(report, Stage.CONFIGURED) as result:
        refusals = {item.system: why for item in others if (why := _refusal(item, others))}
        if credentials.system in refusals:
            raise InvalidCredentials(refusals[credentials.system])
        result.warnings += credentials.configured(environment())
        if credentials.ca(environment()):
            check.certificates = trust()
    if refusals:
        return  # no system reads a secret if one of them is refused
    with recorded(report, Stage.RESOLVED) as result:
        secrets = reader.read_all(credentials.references().values())
        result.detail, result.warnings, values = _resolved(credentials, secrets)
    with recorded(report, Stage.WELL_FORMED):
        problem = credentials.malformed(values)
        if problem:
            raise InvalidCredentials(problem)
    check.values = values
    if verify:
        check.proof = credentials.prove(
            values, Stages(report, deadline, trust, insecure=credentials.insecure)
        )


def _refusal(credentials: Credentials, others: Iterable[Credentials]) -> str | None:
    """Say why credentials may not be used with the others or with their hosts, or return None."""
    read_from = (host for ref in credentials.references().values() for host in hosts_of(ref))
    return trespass(credentials, others) or hosts.refusal([*credentials.hosts(), *read_from])


def _resolved(
    credentials: Credentials, secrets: Resolved
) -> tuple[str, list[str], dict[str, SecretStr]]:
    references = credentials.references()
    details = [
        f"{name} from {reference}"
        + (f" (version {version})" if (version := secrets[reference].version) else "")
        for name, reference in references.items()
    ]
    warnings = [
        f"{ref} is used though {why}" for ref, secret in secrets.items() if (why := secret.outdated)
    ]
    values = {name: secrets[ref].value for name, ref in references.items()}
    return ", ".join(details), warnings, values

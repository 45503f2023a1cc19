"""Walks credentials through the stages of a check: for `check`, and before every activation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, TypeAlias

from pydantic import SecretStr

from mlauth import hosts, masking
from mlauth.deadline import Deadline
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
from mlauth.net.route import is_loopback
from mlauth.never_pickled import NeverPickled
from mlauth.owners import trespass, two_values
from mlauth.references import SecretReference
from mlauth.report import (
    CheckReport,
    Stage,
    StageResult,
    Status,
    SystemReport,
)
from mlauth.resolving import Expired, all_or_errors, try_all
from mlauth.stages import Stages, recorded
from mlauth.stores import StoredSecret
from mlauth.storing import hosts_of
from mlauth.systems import Credentials, Exports, Proof
from mlauth.systems.zenml import (
    API_KEY,
    API_TOKEN,
    TYPE,
    URL,
    ca_of,
    host_of,
    is_off,
    key_problem,
    near_misses,
    refuse_ca,
    refuse_detour,
    refuse_netrc,
    refuse_password,
    url_problem,
)
from mlauth.systems.zenml.isolation import VERIFY_SSL
from mlauth.systems.zenml.server import prove_server
from mlauth.trust import certificates

if TYPE_CHECKING:
    from mlauth.profiles import Profile

Subject: TypeAlias = "str | Profile | Credentials"
DEFAULT_FILE = "mlauth.toml"


@dataclass
class Checked(NeverPickled):
    """What the check of one system brought.

    Attributes:
        credentials: what was checked.
        report: the stages.
        values: what was read and has the right shape, by field; None if it did not come to that.
        proof: what the service said that exports need, if it was asked and all passed.
        exports: what to set, also where it could not be found out if the service takes it.
        certificates: whom TLS is to trust, if the system has a CA bundle (`mlauth.trust`).
        error: what ended the check, if something did.
    """

    credentials: Credentials
    report: SystemReport
    values: dict[str, SecretStr] | None = None
    proof: Proof | None = None
    exports: Exports | None = None
    certificates: str | None = None
    error: MLAuthError | None = None


def check(
    subject: Subject | None = None, *, timeout: float = 30.0, config: str = DEFAULT_FILE
) -> CheckReport:
    """Find out, against the real services, whether credentials work. Exports nothing.

    Args:
        subject: a profile's name, a profile or credentials; None for what the environment of
            this process holds.
        timeout: seconds for everything together.
        config: the file of the profiles, for a name.

    Returns:
        The report; one that failed or is unknown is returned, not raised.

    Raises:
        InvalidProfile: the profile cannot be read.
    """
    deadline = Deadline(timeout)
    if subject is None:
        report = SystemReport("zenml", "ZenML")
        in_time(deadline, [report], [lambda: _check_environment(Stages(report, deadline.inner()))])
        return CheckReport("the environment of this process", [report])
    return check_all(subject, deadline, config=config)[0]


def check_all(
    subject: Subject, deadline: Deadline, *, config: str = DEFAULT_FILE, verify: bool = True
) -> tuple[CheckReport, list[Checked]]:
    """Check a profile or credentials inside the deadline; systems do not wait for each other.

    Args:
        subject: see `check`.
        deadline: bounds everything.
        config: the file of the profiles, for a name.
        verify: whether the services are asked.

    Raises:
        InvalidProfile: the profile cannot be read.
    """
    expired: Expired = "refuse"
    if isinstance(subject, Credentials):
        found, title = [subject], f"{subject.system} credentials"
    else:
        title = "the profile"
        if isinstance(subject, str):
            from mlauth.profiles import load_profile  # most steps have no profile

            title = f"profile {subject!r} of {config}"
            subject = load_profile(subject, config)
        found, expired = subject.credentials(), subject.expired
    checks = [Checked(item, SystemReport(item.system, item.title)) for item in found]
    bundles = [ca for each in found if (ca := each.ca(os.environ))]
    trust = cache(partial(certificates, bundles, os.environ))
    walks = [
        partial(_walk, check, found, deadline.inner(), trust, verify=verify, expired=expired)
        for check in checks
    ]
    reports = [each.report for each in checks]
    ended = in_time(deadline, reports, walks)
    checks = [
        replace(each, report=report, error=error)
        for each, report, error in zip(checks, reports, ended, strict=True)
    ]
    _add_exports(checks)
    return CheckReport(title, reports), checks


def _add_exports(checks: Iterable[Checked]) -> None:
    """Say what each wants to set, or why it cannot be: two may want one variable."""
    for each in checks:
        if each.values is None or (each.error and not is_unknown(each.error)):
            continue
        try:
            each.exports = each.credentials.exports(each.values, each.proof)
        except InvalidCredentials as error:
            each.error = each.error or error
    exports = {each.report.system: each.exports for each in checks if each.exports}
    refused = two_values(exports)
    for each in checks:
        why = refused.get(each.report.system)
        if why:
            each.exports, each.error = None, InvalidCredentials(why)
            result = StageResult(each.report.system, Stage.CONFIGURED, Status.FAILED, why)
            each.report.results.append(result)


def in_time(
    deadline: Deadline, reports: list[SystemReport], walks: Sequence[Callable[[], None]]
) -> list[MLAuthError | None]:
    """Run the check of each system at the same time.

    Args:
        deadline: where it is over, the stage that a system is in is unknown.
        reports: where the walks write; one that is overdue goes on writing, so its report is
            replaced here by a copy.
        walks: the checks.

    Returns:
        What ended each walk, if something did.
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
    """Say in the stage that a walk is in what ended it, if no stage says it already."""
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
    """Return the error to raise for what a check found."""
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


def _walk(
    check: Checked,
    others: list[Credentials],
    deadline: Deadline,
    trust: Callable[[], str | None],
    *,
    verify: bool,
    expired: Expired,
) -> None:
    credentials, report = check.credentials, check.report
    with recorded(report, Stage.CONFIGURED) as result:
        refusals = {item.system: why for item in others if (why := _refusal(item, others))}
        if credentials.system in refusals:
            raise InvalidCredentials(refusals[credentials.system])
        result.warnings += credentials.configured(os.environ)
        if credentials.ca(os.environ):
            check.certificates = trust()
    if refusals:
        return  # before anything is read, also for the other systems
    with recorded(report, Stage.RESOLVED) as result:
        answers = try_all(credentials.references().values(), deadline, expired=expired)
        result.detail, result.warnings, values = _resolved(credentials, answers)
    with recorded(report, Stage.WELL_FORMED):
        credentials.well_formed(values)
    check.values = values
    if verify:
        check.proof = credentials.prove(values, Stages(report, deadline, trust))


def _refusal(credentials: Credentials, others: Iterable[Credentials]) -> str | None:
    """Say why credentials may not be used with the others or with their hosts, or return None."""
    read_from = (host for ref in credentials.references().values() for host in hosts_of(ref))
    return trespass(credentials, others) or hosts.refusal([*credentials.hosts(), *read_from])


def _resolved(
    credentials: Credentials, answers: Mapping[SecretReference, StoredSecret | StoreError]
) -> tuple[str, list[str], dict[str, SecretStr]]:
    references = credentials.references()
    secrets = all_or_errors({reference: answers[reference] for reference in references.values()})
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


def _check_environment(stages: Stages) -> None:
    """Check what ZenML's own client would find in the environment of this process."""
    with stages.stage(Stage.CONFIGURED) as result:
        result.warnings += near_misses(os.environ, wrong_if_missing=True)
        refuse_password(os.environ)
        url, key, token = (os.environ.get(name, "") for name in (URL, API_KEY, API_TOKEN))
        if not url:
            raise StageFailed(f"{URL} is not set: ZenML would run on a local store here")
        problem = url_problem(url)
        if not problem and url.startswith("http://") and not is_loopback(url):
            problem = "sends the key over the network in clear: use https"
        if problem:
            raise StageFailed(f"{URL} {problem}")
        refused = hosts.refusal([host_of(url)])
        if refused:
            raise StageFailed(refused)
        if not key and not token:
            raise StageFailed(f"neither {API_KEY} nor {API_TOKEN} is set")
        if os.environ.get(TYPE, "rest") != "rest":
            raise StageFailed(f"{TYPE} is not 'rest', so ZenML does not use {URL}: remove it")
        if key and token:
            result.warnings.append(
                f"{API_TOKEN} is set too: ZenML's client ignores it and logs in with the key"
            )
        refuse_ca(url, os.environ)
        refuse_netrc(url)
        refuse_detour(url)
        if is_off(os.environ.get(VERIFY_SSL, "")):
            result.warnings.append(f"{VERIFY_SSL} is off: ZenML's client does not verify TLS")
        result.detail = f"{URL} and {API_KEY if key else API_TOKEN} are set"
    masking.register([key or token])
    if key:
        with stages.stage(Stage.WELL_FORMED):
            problem = key_problem(key)
            if problem:
                raise StageFailed(f"the value of {API_KEY} {problem}")
    prove_server(
        url.rstrip("/"),
        stages,
        ca=ca_of(os.environ),
        key=SecretStr(key) if key else None,
        token=None if key else SecretStr(token),
    )

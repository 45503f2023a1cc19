"""Walks credentials through the stages of a check: for `check`, and before every activation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pydantic import SecretStr

from mlauth import hosts, masking
from mlauth.deadline import Deadline
from mlauth.errors import DeadlineExceeded, InvalidCredentials, MLAuthError, StoreError, bare
from mlauth.net.route import is_loopback
from mlauth.never_pickled import NeverPickled
from mlauth.references import SecretReference
from mlauth.report import CheckReport, Stage, StageFailed, StageResult, Status
from mlauth.resolving import Expired, all_or_errors, try_all
from mlauth.stores import StoredSecret
from mlauth.storing import hosts_of
from mlauth.systems import Credentials, Exports
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
from mlauth.systems.zenml.server import probe_server

if TYPE_CHECKING:
    from mlauth.profiles import Profile

Subject: TypeAlias = "str | Profile | Credentials"
DEFAULT_FILE = "mlauth.toml"


@dataclass
class Examination(NeverPickled):
    """What a walk through the stages brought.

    Attributes:
        report: the stages.
        credentials: what was walked through, by system.
        values: the values that were read and have the right shape, by system and field.
        exports: what to export, by system, for those systems that passed.
        errors: what ended the walk, by system, for those that did not.
    """

    report: CheckReport
    credentials: dict[str, Credentials] = field(default_factory=dict)
    values: dict[str, dict[str, SecretStr]] = field(default_factory=dict)
    exports: dict[str, Exports] = field(default_factory=dict)
    errors: dict[str, MLAuthError] = field(default_factory=dict)


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
        examination = Examination(CheckReport("the environment of this process"))

        def walk() -> None:
            with suppress(MLAuthError):  # the report has it
                _examine_environment(examination.report, deadline.inner())

        bounded(deadline, examination, walk)
        return examination.report
    return examine(subject, deadline, config=config).report


def examine(
    subject: Subject, deadline: Deadline, *, config: str = DEFAULT_FILE, verify: bool = True
) -> Examination:
    """Walk a profile or credentials through the stages, inside the deadline.

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
    examination = Examination(CheckReport(title), {item.system: item for item in found})
    bounded(deadline, examination, lambda: _walk(examination, deadline.inner(), verify, expired))
    return examination


def bounded(deadline: Deadline, examination: Examination, walk: Callable[[], None]) -> None:
    """Run a walk; where the time runs out, the stage that it is in is unknown."""
    try:
        deadline.run(walk, examination.report.subject)
    except DeadlineExceeded as error:
        # The overdue thread may still write into the report: what it does is not looked at.
        examination.report = deepcopy(examination.report)
        results = examination.report.results
        if all(result.status is Status.PASSED for result in results):  # it hung between stages
            results.append(StageResult("mlauth", Stage.RESOLVED, Status.UNKNOWN))
        for result in results:
            if result.status is Status.UNKNOWN and not result.detail:
                url = examination.report.facts.get("server_url", "")
                where = f"{url}: " if url and result.system == "zenml" else ""
                result.detail = (
                    f"{where}no answer within {deadline.seconds:g} s: is a firewall or proxy in "
                    "the way? a busy service needs a longer timeout"
                )
        for system in examination.credentials:
            if system not in examination.exports:
                examination.errors.setdefault(system, error)


def _walk(examination: Examination, deadline: Deadline, verify: bool, expired: Expired) -> None:
    report, errors = examination.report, examination.errors
    going = dict(examination.credentials)

    def stages(look: Callable[[str, Credentials], None]) -> None:
        for system, credentials in list(going.items()):
            try:
                look(system, credentials)
            except MLAuthError as error:
                errors[system] = bare(error)
                del going[system]

    refused = {system: why for system, item in going.items() if (why := _refusal(item))}

    def configured(system: str, credentials: Credentials) -> None:
        with report.stage(system, Stage.CONFIGURED) as result:
            if system in refused:
                raise InvalidCredentials(refused[system])
            result.warnings += credentials.configured(os.environ)

    stages(configured)
    if refused:
        return  # before anything is read, also for the other systems
    since = time.monotonic()
    answers = try_all(
        [ref for item in going.values() for ref in item.references().values()],
        deadline,
        expired=expired,
    )

    def resolved(system: str, credentials: Credentials) -> None:
        with report.stage(system, Stage.RESOLVED, since=since) as result:
            result.detail, result.warnings, values = _resolved(credentials, answers)
        with report.stage(system, Stage.WELL_FORMED):
            credentials.well_formed(values)
        examination.values[system] = values

    stages(resolved)

    def proven(system: str, credentials: Credentials) -> None:
        values = examination.values[system]
        examination.exports[system] = (
            credentials.probe(values, report, deadline) if verify else credentials.exports(values)
        )

    stages(proven)


def _refusal(credentials: Credentials) -> str | None:
    """Say why credentials may not go to the hosts that they name, or return None."""
    read_from = (host for ref in credentials.references().values() for host in hosts_of(ref))
    return hosts.refusal([*credentials.hosts(), *read_from])


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


def _examine_environment(report: CheckReport, deadline: Deadline) -> None:
    """Check what ZenML's own client would find in the environment of this process."""
    with report.stage("zenml", Stage.CONFIGURED) as result:
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
        with report.stage("zenml", Stage.WELL_FORMED):
            problem = key_problem(key)
            if problem:
                raise StageFailed(f"the value of {API_KEY} {problem}")
    probe_server(
        url.rstrip("/"),
        report,
        deadline,
        ca=ca_of(os.environ),
        key=SecretStr(key) if key else None,
        token=None if key else SecretStr(token),
    )

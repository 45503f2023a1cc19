"""Checks the connection of ZenML's own client, which the pipeline uses, with the client's token."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from copy import deepcopy
from typing import Any, Literal

from pydantic import SecretStr
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import StoreType
from zenml.exceptions import AuthorizationException
from zenml.utils import source_utils

from mlauth import hosts, masking
from mlauth.checking import check_all, in_time
from mlauth.deadline import THREAD, Deadline
from mlauth.errors import (
    CheckFailed,
    MLAuthError,
    StageFailed,
    StageUnknown,
)
from mlauth.forks import lock
from mlauth.profiles import DEFAULT_FILE, Profile, load_profile
from mlauth.record import environment
from mlauth.report import (
    CheckReport,
    Stage,
    Status,
    SystemReport,
)
from mlauth.shapes import address_problem, host_of
from mlauth.stages import Stages, recorded
from mlauth.systems.zenml import ZenMLCredentials, refuse_detour, refuse_netrc
from mlauth.systems.zenml.server import connect, prove_server, refusal, server_info

OnFailure = Literal["fail", "warn"]

logger = logging.getLogger("mlauth")

_FRESH = 60.0  # for so many seconds, a passed check is not repeated, and neither is a warning
_lock = lock()
_passed: dict[tuple[str | None, ...], tuple[float, bool, list[SystemReport]]] = {}
_warned: dict[str, float] = {}


def check(
    service_account: str | None = None,
    *,
    profile: str | None = None,
    config_file: str = DEFAULT_FILE,
    on_failure: OnFailure = "fail",
    timeout: float = 30.0,
) -> CheckReport:
    """Check the connection of ZenML's client in this process, with the client's own token.

    A check that passed is not repeated for a minute.

    Args:
        service_account: the name that the account must have; by default the name in the profile.
        profile: a profile whose other credentials are checked, too.
        config_file: the file with the profile, relative to ZenML's source root.
        on_failure: `warn` logs a failed check and goes on.
        timeout: seconds for everything together.

    Returns:
        The report. If it is unknown, that is logged as a warning.

    Raises:
        CheckFailed: the client uses the local store, a person's session, the wrong account, or a
            credential that does not work.
    """
    report = check_connection(
        service_account, profile, config_file, others=profile is not None, timeout=timeout
    )
    if failure(report, on_failure) is not None:
        raise CheckFailed(report)
    return report


def failure(report: CheckReport, on_failure: OnFailure) -> str | None:
    """Return the line that stops the pipeline, or None; other problems are logged as warnings."""
    for warning in report.warnings:
        _warn(warning)
    if report.status is Status.FAILED and on_failure == "fail":
        return report.summary()
    if report.status is not Status.PASSED:
        how = "failed" if report.status is Status.FAILED else "could not find out"
        _warn(f"the service account check {how}; going on all the same: {report.summary()}")
    return None


def _warn(line: str) -> None:
    now = time.monotonic()
    with _lock:
        if now < _warned.get(line, 0.0):
            return
        _warned[line] = now + _FRESH
    logger.warning("%s", line)


def check_connection(
    service_account: str | None,
    profile: str | None,
    config_file: str,
    *,
    others: bool,
    timeout: float,
) -> CheckReport:
    """Check, or return the passed check of the last minute; see `check`.

    Args:
        service_account: see `check`.
        profile: see `check`.
        config_file: see `check`.
        others: whether the profile's other credentials are checked.
        timeout: see `check`.
    """
    logging.getLogger("httpx").addFilter(_is_not_ours)
    deadline, reports = Deadline(timeout), [SystemReport("zenml", "ZenML")]

    def walk() -> None:
        _walk(reports, service_account, profile, config_file, others, deadline.inner())

    in_time(deadline, reports, [walk])
    return _report(reports)


def _report(reports: list[SystemReport]) -> CheckReport:
    return CheckReport("ZenML's client in this process", list(reports))


def _walk(
    reports: list[SystemReport],
    service_account: str | None,
    profile_name: str | None,
    config_file: str,
    others: bool,
    deadline: Deadline,
) -> None:
    (report,) = reports
    _refuse_host(report)
    _reach(report, deadline)
    with recorded(report, Stage.CONFIGURED) as result:
        store, token = _connection(service_account)
        result.detail = f"ZenML's client uses {store.url}"
    masking.register([token.get_secret_value()])
    fingerprint = hashlib.sha256(token.get_secret_value().encode()).hexdigest()
    key = (store.url, fingerprint, service_account, profile_name, config_file)
    with _lock:
        until, had_others, before = _passed.get(key, (0.0, False, []))
    if time.monotonic() < until and had_others >= others:
        reports[:] = deepcopy(before)
        return
    profile, rest = None, None
    if profile_name is not None:
        reports.append(SystemReport("mlauth"))
        with recorded(reports[-1], Stage.CONFIGURED) as result:
            profile = _profile(profile_name, config_file, others, result.warnings)
    if profile is not None:
        zenml = profile.systems.get("zenml")
        if service_account is None and isinstance(zenml, ZenMLCredentials):
            service_account = zenml.service_account
        others_of = {name: each for name, each in profile.systems.items() if name != "zenml"}
        rest = profile.model_copy(update={"systems": others_of})
    proven, found = deadline.run_all(
        [
            lambda: _prove(store, token, report, service_account, deadline),
            lambda: _others(rest if others else None, deadline),
        ],
        "the check",
    )
    if isinstance(found, list):
        reports += found
    for ended in (proven, found):
        if isinstance(ended, BaseException):
            raise ended
    checked = _report(reports)
    if checked.status is Status.PASSED:
        logger.info("%s, server %s", checked.summary(), store.url)
        with _lock:
            now = time.monotonic()
            for old in [each for each, (until, *_) in _passed.items() if until < now]:
                del _passed[old]
            _passed[key] = (now + _FRESH, others, deepcopy(reports))


def _others(rest: Profile | None, deadline: Deadline) -> list[SystemReport]:
    """Check the other systems of the profile; this runs at the same time as the check of ZenML."""
    return check_all(rest, deadline)[0].systems if rest and rest.credentials() else []


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Drop httpx's records of our requests, which ZenML would show in the pipeline's output."""
    return record.threadName != THREAD or record.levelno > logging.INFO


def _refuse_host(report: SystemReport) -> None:
    url = _server_url()
    with recorded(report, Stage.CONFIGURED):
        # With an odd URL, ZenML's client might ask another host than the one that is compared with
        # the allowed hosts.
        problem = None if url is None else address_problem(url)
        if problem:
            raise StageFailed(f"the URL of ZenML's client {problem}")
        refused = hosts.refusal([] if url is None else [host_of(url)])
        if refused:
            raise StageFailed(refused)
    report.results.pop()  # `_walk` records the same stage again


def _reach(report: SystemReport, deadline: Deadline) -> None:
    """Reach the server before ZenML's client tries to, which would take half a minute to fail."""
    url = _server_url()
    if url is None or GlobalConfiguration().is_initialized:
        return
    report.facts["server_url"] = url
    ca = _ca(GlobalConfiguration().store_configuration)
    # Whether http may go beyond this machine was decided where ZenML's client got its URL.
    asked = connect(url, deadline, ca, insecure=True)
    with recorded(report, Stage.REACHABLE), asked as service:
        server_info(service)
    report.results.pop()  # `prove_server` records the same stage again


def _connection(service_account: str | None) -> tuple[Any, SecretStr]:
    """Return the store of ZenML's client, and its token; the client may log in for that."""
    url = _server_url()
    if url is not None:
        refuse_netrc(url)
        refuse_detour(url)
        try:
            store: Any = Client().zen_store
            return store, SecretStr(store.get_or_generate_api_token())
        except AuthorizationException as error:
            said, name = str(error), type(error).__name__
            raise StageFailed(refusal(said, url, name)) from None
        except Exception as error:
            raise StageUnknown(
                f"ZenML's client has no connection to {url} "
                f"({type(error).__name__}): `zenml status` may say why; if that works, try again"
            ) from None
    wanted = "a service account" if service_account is None else repr(service_account)
    line = f"ZenML's client uses the local store of this machine, not a server as {wanted}"
    try:
        ZenMLCredentials.refuse_near_misses(environment())
    except MLAuthError as error:
        raise StageFailed(f"{line}: {error}") from None
    raise StageFailed(
        f"{line}: set ZENML_STORE_URL and ZENML_STORE_API_KEY, as the step zenml_login does"
    )


def _prove(
    store: Any,
    token: SecretStr,
    report: SystemReport,
    service_account: str | None,
    deadline: Deadline,
) -> None:
    stages = len(report.results)

    def prove(token: SecretStr) -> None:
        prove_server(
            store.url,
            Stages(report, deadline, insecure=True),  # as above
            ca=_ca(store.config),
            token=token,
            service_account=service_account,
        )

    try:
        prove(token)
    except StageFailed:
        if report.results[-1].stage is not Stage.AUTHENTICATED:
            raise
        # An expired or revoked token is no failure if the client can get a new one: it would do so
        # at the pipeline's next request.
        with suppress(Exception):
            store.get_user(hydrate=False)
        try:
            new = SecretStr(store.get_or_generate_api_token())
        except Exception:
            new = token
        if new == token:
            raise
        del report.results[stages:]
        prove(new)


def _server_url() -> str | None:
    """Return the server of ZenML's client. No local variable keeps its configuration and key."""
    is_server = GlobalConfiguration().store_configuration.type == StoreType.REST
    return GlobalConfiguration().store_configuration.url if is_server else None


def _ca(configuration: Any) -> str | None:
    verify = getattr(configuration, "verify_ssl", None)
    return verify if isinstance(verify, str) else None


def _profile(name: str, config_file: str, others: bool, warnings: list[str]) -> Profile | None:
    root = source_utils.get_source_root()
    path = os.path.join(root, config_file)
    if os.path.isfile(path):
        return load_profile(name, path)
    line = (
        f"config_file {config_file} of profile {name!r} is not in the source root {root}: "
        "put it there, so that ZenML copies it into the steps' containers"
    )
    if others:
        raise StageFailed(line)
    warnings.append(f"{line}; the account's name is not compared here")
    return None

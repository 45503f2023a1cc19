"""The command line: `mlauth check | exec | explain | rotate`."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar

import click

from mlauth import rotating
from mlauth.activation import prepare
from mlauth.checking import check
from mlauth.deadline import Deadline
from mlauth.environment import Activation
from mlauth.errors import (
    InvalidCredentials,
    InvalidProfile,
    InvalidReference,
    MLAuthError,
    RotationIncomplete,
    UnknownSystem,
    is_unknown,
)
from mlauth.profiles import Settings, settings
from mlauth.references import SecretReference
from mlauth.report import (
    CheckReport,
    Status,
)
from mlauth.resolving import read_all
from mlauth.signals import as_python_found_them, uninterrupted
from mlauth.storing import SecretStore

PASSED, FAILED, WRONG_USE, UNKNOWN, INCOMPLETE = 0, 1, 2, 3, 4
INTERRUPTED = 130  # as shells say of a program that Ctrl-C ended
# As of env(1): https://www.gnu.org/software/coreutils/manual/html_node/env-invocation.html
CANNOT_PREPARE, CANNOT_INVOKE, NOT_FOUND = 125, 126, 127
_CODES = {Status.PASSED: PASSED, Status.FAILED: FAILED, Status.UNKNOWN: UNKNOWN}

F = TypeVar("F", bound=Callable[..., Any])


def _one_line_errors(code: int) -> Callable[[F], F]:
    """Turn an error of mlauth into its one line on stderr and an exit code."""

    def decorate(function: F) -> F:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except MLAuthError as error:
                _fail(str(error), code)
            except KeyboardInterrupt:
                _fail("interrupted", INTERRUPTED)

        return run  # type: ignore[return-value]

    return decorate


def _fail(message: str, code: int) -> NoReturn:
    _say(f"mlauth: {message}", err=True)
    raise SystemExit(code)


def _say(line: str, *, err: bool = False) -> bool:
    """Print a line, and return whether that was possible: a closed output changes no exit code.

    An output that is full or closed is replaced by the null device, as
    https://docs.python.org/3/library/signal.html advises (note on SIGPIPE). Otherwise Python would
    fail to flush it at the end, with exit code 120.
    """
    stream = sys.stderr if err else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # its encoding may lack characters
    try:
        click.echo(line, err=err)
    except OSError:
        with suppress(OSError, ValueError):  # the stream has no file, as in click's test runner
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def _with_profile(function: F) -> F:
    for decorator in (
        click.option("--config", "-f", metavar="F", help="The file with the profiles."),
        click.option("--profile", "-p", metavar="P", help="The profile (or MLAUTH_PROFILE)."),
    ):
        function = decorator(function)
    return function


def _settings(profile: str | None, config: str | None) -> Settings:
    """Return the settings of the environment, overridden by options.

    An empty option (`-p "$UNSET"`) overrides too: it is a mistake that the command must report.
    """
    found = settings()
    return found.model_copy(
        update={
            "profile": (found.profile or None) if profile is None else profile,
            "config": found.config if config is None else config,
        }
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mlauth"), prog_name="mlauth")
def main() -> None:
    """Service accounts for the flows of an ML platform."""


@main.command("check")
@_with_profile
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.argument("systems", nargs=-1, metavar="[SYSTEM]...")
@_one_line_errors(WRONG_USE)
def check_command(
    profile: str | None, config: str | None, as_json: bool, systems: tuple[str, ...]
) -> None:
    """Find out if the credentials of a profile work.

    Without a profile, the credentials in the environment are checked. If you name
    a SYSTEM, it must be there, and no other system is checked.

    Exit code: 0 passed, 1 failed, 3 unknown (a service gave no answer; the credentials may be
    fine), 2 wrong use or configuration.
    """
    chosen = _settings(profile, config)
    report = check(chosen.profile, systems=systems, timeout=chosen.timeout, config=chosen.config)
    for line in report.unusable:
        _say(f"mlauth: warning: {line}", err=True)
    if as_json:
        _say(json.dumps(report.to_dict(), indent=2))
    else:
        _print_report(report, chosen.profile)
    raise SystemExit(_CODES[report.status])


def _print_report(report: CheckReport, profile: str | None) -> None:
    hint = "" if profile is not None else " (no profile was named: --profile or MLAUTH_PROFILE)"
    _say(f"Checking {report.subject}{hint}")
    print_stages(report)
    _say(f"{report.status.value}: {report.summary()}")


def print_stages(report: CheckReport) -> None:
    """Print a report's stages as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("system", "stage", "status"):
        table.add_column(heading, no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("detail", overflow="fold")
    colours = {Status.PASSED: "green", Status.FAILED: "red", Status.UNKNOWN: "yellow"}
    for result in report.results:
        status = Text(result.status.value, style=colours[result.status])
        taken = f"{result.seconds * 1000:,.0f} ms"
        table.add_row(result.system, result.stage.value, status, taken, Text(result.detail))
        for warning in result.warnings:
            table.add_row("", "", Text("warning", style="yellow"), "", Text(warning))
    console = Console()
    with console.capture() as printed:
        console.print(table)
    _say(printed.get().removesuffix("\n"))


# Options after the command's name belong to that command: in `exec -p prod ls -p`, the second `-p`
# is an option of `ls`.
@main.command("exec", context_settings={"allow_interspersed_args": False})
@_with_profile
@click.option("--no-verify", is_flag=True, help="Do not ask the services first.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_one_line_errors(CANNOT_PREPARE)
def exec_command(
    profile: str | None, config: str | None, no_verify: bool, command: tuple[str, ...]
) -> None:
    """Run a command with the credentials of a profile.

    For instance: mlauth exec --profile prod -- python train.py

    The command replaces mlauth: signals and exit code are its own. Exit codes of
    mlauth are those of env(1): 125 it could not prepare the environment, 126 the
    command cannot be run, 127 it was not found.
    """
    chosen = _settings(profile, config)
    if chosen.profile is None:
        _fail("name the profile: --profile or MLAUTH_PROFILE", CANNOT_PREPARE)
    program = shutil.which(command[0])
    if program is None:
        if os.path.exists(command[0]):
            _fail(f"{command[0]} cannot be run: it is not an executable file", CANNOT_INVOKE)
        _fail(f"{command[0]} was not found: is it installed and in PATH?", NOT_FOUND)
    deadline = Deadline(chosen.timeout)
    activating = prepare(chosen.profile, deadline, verify=not no_verify, config=chosen.config)
    # The command keeps this process id, so it owns the private folder. It will not remove the
    # folder at its end; the next activation does.
    activating.activate(_warn, owner=os.getpid())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as with `>&-`
            stream.flush()
    try:
        if os.name == "nt":  # on Windows, execv returns to the shell before the command ends
            raise SystemExit(subprocess.call([program, *command[1:]]))
        with as_python_found_them():
            os.execv(program, command)
    except OSError as error:
        activating.undo()
        _fail(f"{command[0]} cannot be run: {error.strerror}", CANNOT_INVOKE)


def _warn(activation: Activation) -> None:
    for warning in activation.warnings:
        _say(f"mlauth: warning: {warning}", err=True)


@main.command()
@click.argument("reference")
@_one_line_errors(FAILED)
def explain(reference: str) -> None:
    """Say where a reference points, as whom it is read, and if it can be read.

    The value is read and thrown away, never shown. Exit code: 0 it can be read,
    1 it cannot, 3 unknown, 2 wrong use.
    """
    try:
        parsed = SecretReference.parse(reference)
        deadline = Deadline(settings().timeout)
    except (InvalidReference, InvalidProfile, InvalidCredentials) as error:
        _fail(str(error), WRONG_USE)
    access = SecretStore(parsed.scheme).describe(parsed)
    _say(f"reference  {parsed}")
    # A control character could forge lines of this output.
    place = "".join(each if each.isprintable() else repr(each)[1:-1] for each in access.place)
    _say(f"points to  {place}" + (f", key {parsed.key!r}" if parsed.key else ""))
    _say(f"read as    {access.identity}")
    for note in access.notes:
        _say(f"note       {note}")
    try:
        secret = read_all([parsed], deadline)[parsed]
    except MLAuthError as error:
        _say(f"readable   {'unknown' if is_unknown(error) else 'no'}: {error}")
        raise SystemExit(UNKNOWN if is_unknown(error) else FAILED) from None
    version_read = f" (version {secret.version})" if secret.version else ""
    _say(f"readable   yes{version_read}")


@main.command()
@click.argument("system")
@_with_profile
@click.option(
    "--retain",
    type=int,
    default=rotating.DAY,
    show_default=True,
    metavar="MINUTES",
    help="How long the old key works beside the new one. Choose more than your longest run needs.",
)
@click.option("--new-key", is_flag=True, help="Make a second key instead; the old one stays valid.")
@_one_line_errors(WRONG_USE)
def rotate(
    system: str, profile: str | None, config: str | None, retain: int, new_key: bool
) -> None:
    """Give the service account of a SYSTEM in a profile a new key, and store it.

    The new key is written to the place that the profile names, and proven. It is
    shown to nobody. Exit code: 0 rotated, 1 not rotated, 2 wrong use or
    configuration, 3 not rotated (a service gave no answer), 4 rotated, but the new
    key is not stored or not proven (the old one works for the retain period), 130
    not rotated (Ctrl-C).
    """
    chosen = _settings(profile, config)
    if chosen.profile is None:
        _fail("name the profile: --profile or MLAUTH_PROFILE", WRONG_USE)
    try:
        ready = rotating.prepare(
            system,
            chosen.profile,
            retain_minutes=retain,
            new_key=new_key,
            timeout=chosen.timeout,
            config=chosen.config,
        )
        with uninterrupted() as came:
            try:
                line = f"rotated: {ready.rotate()}"
                if not _say(line):
                    _say(f"mlauth: standard output cannot be written to; {line}", err=True)
            finally:
                # A signal that came would end mlauth, which ends here anyway. Without the signal,
                # its exit code says what happened.
                came.clear()
    except RotationIncomplete as error:
        _fail(str(error), INCOMPLETE)
    except (InvalidProfile, InvalidCredentials, UnknownSystem):
        raise
    except MLAuthError as error:
        _fail(f"nothing was rotated: {error}", UNKNOWN if is_unknown(error) else FAILED)


if __name__ == "__main__":
    main()

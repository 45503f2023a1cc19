"""The command line, run as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.accounts import Account
from tests.support.faults import answer, faulty
from tests.support.profiles import write_profile

pytestmark = pytest.mark.process


@pytest.fixture
def folder(clean_environment: Path, account: Account, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a mlauth.toml, as the working directory."""
    folder = clean_environment / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write(account)
    return folder


def write(account: Account, **fields: str) -> None:
    values = {
        "store_url": account.url,
        "api_key": account.reference,
        "service_account": account.name,
        **fields,
    }
    write_profile(Path(), "prod", zenml=values)


def mlauth(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlauth.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=100,
    )


@pytest.mark.usefixtures("folder")
class TestCheck:
    def test_a_profile_that_works(self, account: Account) -> None:
        done = mlauth("check", "--profile", "prod")
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "Checking profile 'prod' of mlauth.toml"
        assert lines[-1] == f"passed: profile 'prod' of mlauth.toml: passed as {account.name!r}"
        for stage in ("configured", "well-formed", "authenticated", "authorized"):
            assert f" {stage} " in done.stdout
        assert account.key not in done.stdout + done.stderr

    def test_the_profile_and_its_file_may_come_from_the_environment(self) -> None:
        os.rename("mlauth.toml", "other.toml")
        done = mlauth("check", MLAUTH_PROFILE="prod", MLAUTH_CONFIG="other.toml")
        assert done.returncode == 0
        assert done.stdout.startswith("Checking profile 'prod' of other.toml\n")

    def test_one_that_fails_says_what_to_change(self, account: Account) -> None:
        write(account, service_account="other")
        done = mlauth("check", "-p", "prod")
        assert done.returncode == 1
        last = done.stdout.splitlines()[-1]
        assert last.startswith("failed: zenml, authorized: ")
        assert "not as 'other': correct the reference or service_account" in last

    def test_one_that_is_unknown(self, account: Account) -> None:
        with faulty(answer(503)) as server:
            write(account, store_url=server.url)
            done = mlauth("check", "-p", "prod", MLAUTH_TIMEOUT="2")
        assert done.returncode == 3
        assert done.stdout.splitlines()[-1].startswith("unknown: zenml, reachable: ")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-p", "nope"], "mlauth: mlauth.toml has no profile 'nope' (it has: prod)"),
            (["-p", "prod", "-f", "nope.toml"], "mlauth: there is no file nope.toml in "),
            (["-p", ""], "mlauth: mlauth.toml has no profile '' (it has: prod)"),
            (["-p", "prod", "-f", ""], "mlauth: there is no file  in "),
            (["--nope"], "No such option"),
            (["prod"], "mlauth: no system is called 'prod'; mlauth knows "),
        ],
    )
    def test_wrong_use(self, arguments: list[str], said: str) -> None:
        done = mlauth("check", *arguments, MLAUTH_PROFILE="prod", MLAUTH_CONFIG="mlauth.toml")
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_setting_that_cannot_be_used(self) -> None:
        for value in ("soon", "0", "1e10"):
            done = mlauth("check", "-p", "prod", MLAUTH_TIMEOUT=value)
            assert done.returncode == 2
            assert "imeout" in done.stderr.lower()
            assert len(done.stderr.splitlines()) == 1

    def test_a_literal_in_the_file_is_not_echoed(self, account: Account) -> None:
        write(account, api_key=account.key)
        done = mlauth("check", "-p", "prod")
        assert done.returncode == 2
        assert "profiles.prod.zenml.api_key: a literal stands where" in done.stderr
        assert account.key not in done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_without_a_profile_the_environment_is_checked(self, account: Account) -> None:
        done = mlauth(
            "check",
            ZENML_STORE_URL=account.url,
            ZENML_STORE_API_KEY=account.key,
            ZENML_URL="https://zenml.example.com",
        )
        assert done.returncode == 0, done.stdout
        assert done.stdout.splitlines()[0] == (
            "Checking the environment of this process "
            "(no profile was named: --profile or MLAUTH_PROFILE)"
        )
        assert "warning" in done.stdout
        assert account.key not in done.stdout + done.stderr
        assert mlauth("check").returncode == 1

    def test_json(self, account: Account) -> None:
        report = json.loads(mlauth("check", "-p", "prod", "--json").stdout)
        assert report["status"] == "passed"
        (zenml,) = report["systems"]
        assert (zenml["system"], zenml["status"]) == ("zenml", "passed")
        assert zenml["account"] == account.name
        assert zenml["facts"]["server_url"] == account.url
        assert zenml["stages"][0]["stage"] == "configured"


@pytest.mark.usefixtures("folder")
class TestExec:
    def test_the_command_has_the_credentials(self, account: Account) -> None:
        code = "from zenml.client import Client; print(Client().active_user.name)"
        done = mlauth("exec", "-p", "prod", "--", sys.executable, "-c", code)
        assert done.stdout.splitlines()[-1] == account.name, done.stderr

    def test_it_replaces_mlauth_so_that_its_exit_code_and_signals_are_its_own(self) -> None:
        done = mlauth("exec", "-p", "prod", "--no-verify", "sh", "-c", "echo $$ $PPID; exit 7")
        assert done.returncode == 7
        pid, parent = done.stdout.split()
        assert int(parent) == os.getpid()
        assert pid != parent
        done = mlauth("exec", "-p", "prod", "--no-verify", "sh", "-c", "kill -TERM $$")
        assert done.returncode == -signal.SIGTERM

    def test_options_behind_the_command_are_the_commands(self) -> None:
        done = mlauth("exec", "-p", "prod", "--no-verify", "echo", "-p", "other", "--no-verify")
        assert done.stdout == "-p other --no-verify\n"

    def test_the_key_is_in_no_argument(self, account: Account) -> None:
        code = "print(open('/proc/self/cmdline').read())"
        done = mlauth("exec", "-p", "prod", "--no-verify", sys.executable, "-c", code)
        assert account.key not in done.stdout
        assert account.key not in done.stderr

    @pytest.mark.load
    def test_its_own_exit_codes_are_those_of_env(self, account: Account) -> None:
        Path("plain").write_text("")
        Path("broken").write_text("#!/nowhere/interpreter\n")
        Path("broken").chmod(0o755)
        for arguments, code, said in (
            (["-p", "prod", "nosuchcommand"], 127, "was not found"),
            (["-p", "prod", "./plain"], 126, "is not an executable file"),
            (["-p", "prod", "--no-verify", "./broken"], 126, "cannot be run"),
            (["-p", "nope", "true"], 125, "has no profile 'nope'"),
            (["true"], 125, "name the profile"),
        ):
            done = mlauth("exec", *arguments)
            assert (done.returncode, said in done.stderr) == (code, True), done.stderr
            assert len(done.stderr.splitlines()) == 1
        write(account, service_account="other")
        assert mlauth("exec", "-p", "prod", "true").returncode == 125

    def test_replaced_variables_are_named_in_a_warning(self) -> None:
        done = mlauth(
            "exec", "-p", "prod", "--no-verify", "true", ZENML_STORE_API_TOKEN="canary-token"
        )
        assert "mlauth: warning: replaced earlier values in the environment" in done.stderr
        assert "canary" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestSignalsOfTheCommand:
    @pytest.fixture(autouse=True)
    def _profile(self, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (clean_environment / "key").write_text("canary")
        write_profile(clean_environment, "p", env={"TOKEN": f"file://{clean_environment}/key"})
        monkeypatch.chdir(clean_environment)

    @staticmethod
    def ignored(*before: str) -> set[int]:
        """Return the signals that a command ignores."""
        command = [sys.executable, "-m", "mlauth.cli", "exec", "-p", "p", "--", "grep", "SigIgn"]
        done = subprocess.run(
            [*before, *command, "/proc/self/status"], capture_output=True, text=True
        )
        mask = int(done.stdout.split()[1], 16)
        return {number for number in range(1, 65) if mask >> (number - 1) & 1}

    def test_it_ignores_none_that_python_ignores_for_itself(self) -> None:
        assert not self.ignored() & {signal.SIGPIPE, signal.SIGXFSZ}

    def test_it_ignores_what_its_caller_ignores(self) -> None:
        hangup = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]  # nohup does the same
        assert self.ignored(*hangup) == {*self.ignored(), signal.SIGHUP}

    def test_it_ends_when_nobody_reads_its_output_any_more(self) -> None:
        command = f"{sys.executable} -m mlauth.cli exec -p p yes"
        done = subprocess.run(
            ["sh", "-c", f"{{ {command}; echo $? >code; }} | head -1"],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.stdout, done.stderr) == ("y\n", "")
        assert int(Path("code").read_text()) == 128 + signal.SIGPIPE


@pytest.mark.usefixtures("clean_environment")
class TestExplain:
    def test_a_reference_that_can_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text('{"a": "canary"}')
        done = mlauth("explain", f"file://{tmp_path}/key#a")
        assert done.returncode == 0
        assert f"points to  {tmp_path}/key, key 'a'\n" in done.stdout
        assert "read as    user " in done.stdout
        assert "note       mode 0" in done.stdout
        assert done.stdout.endswith("readable   yes\n")
        assert "canary" not in done.stdout + done.stderr

    def test_one_that_cannot(self, tmp_path: Path) -> None:
        done = mlauth("explain", f"file://{tmp_path}/key")
        assert done.returncode == 1
        assert "readable   no: file://" in done.stdout

    def test_a_reference_writes_no_lines_of_its_own(self) -> None:
        done = mlauth("explain", "file:///nope%0Areadable%20%20%20yes%1B[2J")
        assert done.returncode == 1
        assert r"points to  /nope\nreadable   yes\x1b[2J" in done.stdout.splitlines()
        assert len(done.stdout.splitlines()) == 4

    def test_what_is_no_reference(self) -> None:
        done = mlauth("explain", "ZENKEY_canary")
        assert done.returncode == 2
        assert "canary" not in done.stdout + done.stderr


def test_the_version_is_shown() -> None:
    assert mlauth("--version").stdout.startswith("mlauth, version ")

"""Activation in plain Python, against a real ZenML server and its real client."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlauth
from mlauth import EnvironmentSecrets, Profile, ZenMLCredentials, folders
from mlauth.errors import (
    CheckFailed,
    CheckUnknown,
    InvalidCredentials,
    ResolutionError,
    SecretNotFound,
    StoreUnavailable,
)
from mlauth.masking import mask
from mlauth.record import RECORD, own_environment, read_record, resume
from mlauth.stores import memory
from tests.support.accounts import Account, new_account
from tests.support.faults import answer, faulty, silent
from tests.support.search import search

pytestmark = pytest.mark.usefixtures("clean_environment")


def credentials(account: Account, **fields: object) -> ZenMLCredentials:
    start = {"store_url": account.url, "api_key": account.reference}
    return ZenMLCredentials.of("test", {**start, **fields})


def who() -> str:
    """Return the account with which ZenML's own client works in this process."""
    from zenml.client import Client

    return Client().active_user.name


def test_zenmls_client_works_as_the_account_and_writes_no_key(
    account: Account, clean_environment: Path, tmp_path: Path
) -> None:
    with mlauth.activate(credentials(account, service_account=account.name)) as activation:
        assert activation.account == account.name
        assert who() == account.name
        assert os.environ["ZENML_STORE_API_KEY"] == account.key
        folder = Path(os.environ["ZENML_CONFIG_PATH"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "config.yaml").exists()
        for place in (folder, clean_environment, tmp_path / "tmp"):
            assert search([account.key], place).found == []
        assert account.key not in repr(activation)
    assert not folder.exists()


def test_the_environment_is_put_back_exactly(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", "https://before.example.com")
    monkeypatch.setenv("ZENML_STORE_API_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN", "before")
    memory.put("hf", "canary-hf")
    profile = Profile.model_validate(
        {
            "zenml": {"store_url": account.url, "api_key": account.reference},
            "env": {"HF_TOKEN": "memory://hf"},
        }
    )
    before = dict(os.environ)

    def flow(activation: mlauth.Activation) -> None:
        assert os.environ["HF_TOKEN"] == "canary-hf"
        assert set(activation.variables) > {"HF_TOKEN", "ZENML_STORE_URL", "ZENML_STORE_API_KEY"}
        os.environ["OF_THE_FLOW"] = "stays"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), mlauth.activate(profile) as activation:
        flow(activation)
    assert dict(os.environ) == {**before, "OF_THE_FLOW": "stays"}
    monkeypatch.delenv("OF_THE_FLOW")


def test_a_zenml_that_is_already_imported_is_switched_and_put_back(
    account: Account, tmp_path: Path
) -> None:
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration
    from zenml.login.credentials_store import CredentialsStore

    assert who() == "default"  # a local store
    singletons = Client(), GlobalConfiguration(), CredentialsStore()
    other = new_account(account.server, tmp_path, "other")
    with mlauth.activate(credentials(account)):
        assert who() == account.name
        with mlauth.activate(credentials(other)):
            assert who() == other.name
        assert who() == account.name
    assert (Client(), GlobalConfiguration(), CredentialsStore()) == singletons
    assert Client() is singletons[0]
    assert who() == "default"


def test_the_users_own_credentials_file_is_neither_used_nor_touched(
    account: Account, clean_environment: Path
) -> None:
    config = clean_environment / ".config" / "zenml"
    config.mkdir(parents=True)
    theirs = config / "credentials.yaml"
    theirs.write_text(f"{account.url}:\n  url: {account.url}\n  api_key: stale\n")
    before = theirs.read_bytes(), theirs.stat().st_mtime_ns
    with mlauth.activate(credentials(account)):
        assert who() == account.name
    assert (theirs.read_bytes(), theirs.stat().st_mtime_ns) == before


def test_artifacts_stay_where_they_were_and_choices_are_kept(
    account: Account, clean_environment: Path
) -> None:
    config = clean_environment / ".config" / "zenml"
    config.mkdir(parents=True)
    stack = "11111111-2222-3333-4444-555555555555"
    (config / "config.yaml").write_text(
        f"analytics_opt_in: false\nuser_id: {stack}\nactive_stack_id: {stack}\n"
        "store:\n  type: mysql\n  url: mysql://canary:canary@host/db\n"
    )
    with mlauth.activate(credentials(account), verify=False):
        assert os.environ["ZENML_LOCAL_STORES_PATH"] == str(config / "local_stores")
        kept = json.loads(Path(os.environ["ZENML_CONFIG_PATH"], "config.yaml").read_text())
    assert kept == {"analytics_opt_in": False, "user_id": stack}
    (config / "config.yaml").write_text(
        f"active_stack_id: {stack}\nstore: {{type: rest, url: '{account.url}/'}}\n"
    )
    with mlauth.activate(credentials(account), verify=False):
        kept = json.loads(Path(os.environ["ZENML_CONFIG_PATH"], "config.yaml").read_text())
    assert kept == {"active_stack_id": stack}
    for broken in ("[1]", "a: b: c", "\x00"):
        (config / "config.yaml").write_text(broken)
        with mlauth.activate(credentials(account), verify=False):
            assert not Path(os.environ["ZENML_CONFIG_PATH"], "config.yaml").exists()


def test_the_users_own_places_are_kept(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "config"))
    with mlauth.activate(credentials(account), verify=False):
        assert os.environ["ZENML_LOCAL_STORES_PATH"] == str(tmp_path / "config" / "local_stores")
    monkeypatch.setenv("ZENML_LOCAL_STORES_PATH", str(tmp_path / "stores"))
    with mlauth.activate(credentials(account), verify=False):
        assert os.environ["ZENML_LOCAL_STORES_PATH"] == str(tmp_path / "stores")


def test_a_relative_temporary_directory_still_works_after_the_working_directory_changes(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", ".")  # as Python reads TMPDIR=.
    with mlauth.activate(credentials(account), verify=False):
        folder = Path(os.environ["ZENML_CONFIG_PATH"])
        monkeypatch.chdir("/")
        assert folder.is_dir()
    assert list(tmp_path.glob("mlauth-*")) == []


def test_stack_and_project_are_exported_as_ids(account: Account) -> None:
    with mlauth.activate(credentials(account, stack="default", project="default")):
        from zenml.client import Client

        assert os.environ["ZENML_ACTIVE_STACK_ID"] == str(Client().active_stack_model.id)
        assert os.environ["ZENML_ACTIVE_PROJECT_ID"] == str(Client().active_project.id)


@pytest.mark.usefixtures("counted")
def test_a_token_in_place_of_the_key_costs_one_login_in_all(account: Account) -> None:
    before = account.logins()
    with mlauth.activate(credentials(account, credential="api_token")):
        assert who() == account.name
        assert "ZENML_STORE_API_KEY" not in os.environ
        assert account.key not in "".join(os.environ.values())
    assert account.logins() == before + 1


def test_left_over_variables_of_another_account_are_emptied(
    account: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ZENML_STORE_API_TOKEN", "canary-left-over")
    monkeypatch.setenv("ZENML_STORE_URL", account.url)
    with caplog.at_level(logging.WARNING), mlauth.activate(credentials(account)) as activation:
        assert os.environ["ZENML_STORE_API_TOKEN"] == ""
        assert who() == account.name
    (warning,) = activation.warnings
    assert warning == "replaced earlier values in the environment: ZENML_STORE_API_TOKEN"
    assert warning in caplog.text
    assert os.environ["ZENML_STORE_API_TOKEN"] == "canary-left-over"


class TestNothingIsExported:
    def refused(self, error: type[Exception], subject: mlauth.activation.Subject) -> str:
        before = dict(os.environ)
        with pytest.raises(error) as caught, mlauth.activate(subject, timeout=2):
            raise AssertionError
        assert dict(os.environ) == before
        assert "\n" not in str(caught.value)
        assert list(Path(os.environ["TMPDIR"]).glob("mlauth-*")) == []
        return str(caught.value)

    def test_where_the_check_fails(self, account: Account) -> None:
        message = self.refused(CheckFailed, credentials(account, service_account="other"))
        assert message.startswith("zenml, authorized: ")

    def test_where_a_secret_is_not_there(self, account: Account) -> None:
        account.file.unlink()
        self.refused(SecretNotFound, credentials(account))

    def test_where_several_secrets_are_not_there(self, account: Account) -> None:
        account.file.unlink()
        profile = {
            "zenml": {"store_url": account.url, "api_key": account.reference},
            "env": {"A": "memory://a", "B": "memory://b"},
        }
        message = self.refused(ResolutionError, Profile.model_validate(profile))
        assert message.startswith("3 secrets could not be read: ")

    def test_where_a_value_has_the_wrong_shape(self, account: Account) -> None:
        account.file.write_text("canary")
        assert "canary" not in self.refused(InvalidCredentials, credentials(account))

    def test_where_a_value_cannot_be_a_variable(self) -> None:
        memory.put("nul", "a\0b")
        subject = EnvironmentSecrets.of("test", {"env": {"A": "memory://nul"}})
        self.refused(InvalidCredentials, subject)

    def test_where_a_password_is_left_over(
        self, account: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ZENML_STORE_PASSWORD", "canary")
        assert "canary" not in self.refused(InvalidCredentials, credentials(account))

    @pytest.mark.parametrize("fields", [{"credential": "api_token"}, {"stack": "default"}])
    def test_where_an_unknown_check_leaves_open_what_to_export(
        self, account: Account, fields: dict[str, str]
    ) -> None:
        with faulty(answer(503)) as server:
            subject = credentials(account, store_url=server.url, **fields)
            assert "HTTP 503" in self.refused(CheckUnknown, subject)

    def test_where_a_store_hangs(self, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        hang = threading.Event()
        monkeypatch.setattr(memory.Store, "read", lambda *_, **__: hang.wait(30))
        self.refused(StoreUnavailable, credentials(account, api_key="memory://x"))
        hang.set()


@pytest.mark.parametrize("fault", [answer(503), answer(429, Retry_After="3600"), silent])
def test_an_unknown_check_is_a_warning_with_the_key(account: Account, fault: object) -> None:
    memory.put("hf", "canary-hf")
    with faulty(fault) as server:  # type: ignore[arg-type]
        profile = Profile.model_validate(
            {
                "zenml": {"store_url": server.url, "api_key": account.reference},
                "env": {"HF_TOKEN": "memory://hf"},
            }
        )
        start = time.monotonic()
        with mlauth.activate(profile, timeout=2) as activation:
            assert os.environ["ZENML_STORE_API_KEY"] == account.key
            assert os.environ["HF_TOKEN"] == "canary-hf"
        assert time.monotonic() - start < 5
    assert activation.account is None
    assert any(text.startswith("not proven: zenml, reachable: ") for text in activation.warnings)


def test_exported_values_are_masked_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    memory.put("secret", "canary-in-logs")
    with mlauth.activate(EnvironmentSecrets.of("test", {"env": {"A": "memory://secret"}})):
        logging.getLogger("of.the.flow").warning("it is %s", os.environ["A"])
    assert "it is ***" in caplog.text
    assert "canary-in-logs" not in caplog.text


class TestFolders:
    """Private folders of dead owners are removed, and those of living owners stay."""

    CODE = (
        "import os, sys, time; from mlauth.activation import activate\n"
        "from mlauth import ZenMLCredentials\n"
        "fields = {'store_url': 'http://127.0.0.1:9', 'api_key': 'env://KEY'}\n"
        "with activate(ZenMLCredentials.of('test', fields), verify=False):\n"
        "    print(os.environ['ZENML_CONFIG_PATH'], flush=True)\n"
        "    sys.stdin.read()\n"
    )

    def start(self, key: str, before: str = "") -> tuple[subprocess.Popen[str], Path]:
        environment = {**os.environ, "KEY": key}
        process = subprocess.Popen(
            [sys.executable, "-c", before + self.CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip()).parent

    def test_a_killed_process_leaves_no_secret_and_is_swept_after(self, account: Account) -> None:
        process, folder = self.start(account.key)
        folders.sweep()
        assert folder.is_dir()  # its owner is alive
        process.kill()
        process.communicate()
        assert folder.is_dir()
        assert search([account.key], folder).found == []
        folders.sweep()
        assert not folder.exists()

    def test_a_process_that_ends_removes_its_own(self, account: Account) -> None:
        process, folder = self.start(account.key)
        process.communicate("")
        assert not folder.exists()

    @pytest.mark.parametrize("hours", [-3, 3])
    def test_a_clock_that_steps_ends_nothing(self, account: Account, hours: int) -> None:
        """The clock was wrong when the folder was made, and is corrected while the run goes on."""
        wrong = f"import time\nnow = time.time\ntime.time = lambda: now() + {hours} * 3600\n"
        process, folder = self.start(account.key, before=wrong)
        folders.sweep()
        assert folder.is_dir()
        process.communicate("")

    def test_a_later_process_with_the_same_number_is_not_the_owner(
        self, account: Account, tmp_path: Path
    ) -> None:
        process, folder = self.start(account.key)
        place, pid, began, _ = folder.name.removeprefix("mlauth-").split(".")
        earlier = folder.with_name(f"mlauth-{place}.{pid}.{int(began) - 1}.earlier")
        earlier.mkdir()
        folders.sweep()
        assert folder.is_dir()
        assert not earlier.exists()
        process.communicate("")

    def test_the_owner_may_be_another_process_than_the_one_that_makes_it(self) -> None:
        """As in the first of Prefect's two ways, where the one that makes it ends at once."""
        code = "import os\nfrom mlauth import folders\nprint(folders.make(os.getppid()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        folder = Path(done.stdout.strip())
        folders.sweep()
        assert folder.is_dir(), done.stderr
        folders.remove(str(folder))

    def test_a_process_that_has_ended_unnoticed_is_swept_after(self, account: Account) -> None:
        process, folder = self.start(account.key)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # from here on, it is a zombie
        folders.sweep()
        assert not folder.exists()
        process.communicate()

    def test_what_is_not_ours_is_left(self, tmp_path: Path) -> None:
        temporary = tmp_path / "tmp"
        place = folders._place()
        elsewhere = temporary / "mlauth-00000000.999999999.1.abc"  # of another container
        file = temporary / f"mlauth-{place}.999999999.1.file"
        target, link = tmp_path / "target", temporary / f"mlauth-{place}.999999999.1.link"
        dead = temporary / f"mlauth-{place}.999999999.1.dead"
        for folder in (elsewhere, target, dead):
            folder.mkdir()
        file.touch()
        link.symlink_to(target)
        folders.sweep()
        assert [path.exists() for path in (elsewhere, file, link, target)] == [True] * 4
        assert not dead.exists()

    def test_a_record_can_only_remove_private_folders(self, tmp_path: Path) -> None:
        """The record is in the environment, where others may have written it."""
        place = tmp_path / "place"
        private, theirs, target = (
            place / name for name in ("mlauth-0a1b2c3d.1.2.abc", "theirs", "target")
        )
        for folder in (private, theirs, target):
            folder.mkdir(parents=True)
        link = place / "mlauth-0a1b2c3d.1.2.link"
        link.symlink_to(target)
        named = [f"{folder}{end}" for folder in (private, theirs, link) for end in ("", "/", "/..")]
        code = (
            "import sys\nfrom mlauth.folders import remove_at_exit\n"
            "remove_at_exit(sys.argv[1:], lambda: True)"
        )
        subprocess.run([sys.executable, "-c", code, *named], check=True)
        assert sorted(place.iterdir()) == [link, target, theirs]


class TestRecord:
    """A process starts with the record of another process's activation."""

    def test_it_has_names_and_no_values(self) -> None:
        memory.put("secret", "canary-of-record")
        with mlauth.activate(EnvironmentSecrets.of("test", {"env": {"A": "memory://secret"}})):
            assert read_record()["secrets"] == ["A"]
            assert "canary" not in os.environ[RECORD]
        assert RECORD not in os.environ

    def test_it_is_taken_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OF_PARENT", "canary-of-parent")
        monkeypatch.setenv("ZENML_STORE_API_TOKEN", "")
        record = {"secrets": ["OF_PARENT", "GONE"], "emptied": ["ZENML_STORE_API_TOKEN"]}
        monkeypatch.setenv(RECORD, json.dumps(record))
        resume()
        assert mask("canary-of-parent") == "***"
        assert "ZENML_STORE_API_TOKEN" not in os.environ

    @pytest.mark.parametrize(
        "wrong", [5, None, "HOME", {"HOME": 1}, [1, None], [["A"], {"A": 1}], ["\ud800", "A\0"]]
    )
    @pytest.mark.parametrize("kind", ["secrets", "emptied", "folders", "owner", "handed_on"])
    def test_parts_of_a_record_with_a_wrong_type_are_left_out(
        self, kind: str, wrong: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever sets variables for a run can write the record; that breaks no login or child."""
        owner = 0 if kind == "owner" else os.getpid()
        monkeypatch.setenv(RECORD, json.dumps({"owner": owner, "folders": [], kind: wrong}))
        memory.put("secret", "canary-of-record")
        before = dict(os.environ)
        resume()
        own_environment()
        with mlauth.activate(EnvironmentSecrets.of("test", {"env": {"A": "memory://secret"}})):
            assert read_record()["secrets"] == ["A"]
        assert dict(os.environ) == before

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "3", '"x"', "[" * 100_000, '{"secrets":' + "[" * 100_000]
    )
    def test_one_that_cannot_be_read_counts_as_none(
        self, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(RECORD, text)
        resume()
        assert read_record() == {}

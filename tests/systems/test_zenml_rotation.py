"""A service account's key is rotated on a real server, and no failure loses a key."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

import mlauth
from mlauth import Profile, ZenMLCredentials, rotating
from mlauth.azure import tokens as azure_tokens
from mlauth.cli import main
from mlauth.errors import (
    CheckFailed,
    InvalidCredentials,
    RotationFailed,
    RotationIncomplete,
    SecretDenied,
)
from mlauth.stores import memory
from mlauth.systems.zenml.rotation import writable
from tests.support.accounts import Account
from tests.support.azure import Azure, become
from tests.support.faults import answer, faulty
from tests.support.faults import silent as never
from tests.support.key_vault import Vault
from tests.support.profiles import write_profile
from tests.support.reverse_proxy import Proxy, Replaced, Request, proxy
from tests.support.search import search
from tests.support.servers import ZenMLServer
from tests.support.waiting import until


@dataclass
class Setting:
    """An account, the administrator of its server, and a profile for both."""

    account: Account
    folder: Path
    fields: dict[str, str] = field(default_factory=dict)
    admin: dict[str, str] | None = None

    def __post_init__(self) -> None:
        password = self.folder / "admin-password"
        password.touch(0o600)
        password.write_text(self.account.server.admin_password.get_secret_value())
        if self.admin is None:
            name = self.account.server.admin_name
            self.admin = {"user": name, "password": f"file://{password}"}
        self.fields = {
            "store_url": self.account.url,
            "api_key": self.account.reference,
            "service_account": self.account.name,
            **self.fields,
        }

    @property
    def profile(self) -> Profile:
        return Profile.model_validate({"zenml": self.fields, "zenml_admin": self.admin})

    def rotate(self, **arguments: bool | float) -> mlauth.Rotation:
        return mlauth.rotate_zenml(self.profile, **{"timeout": 60.0, **arguments})  # type: ignore[arg-type]

    def takes(self, key: str) -> bool:
        """Say whether the server takes a key."""
        file = self.folder / "a-key"
        file.touch(0o600)
        file.write_text(key)
        url, reference = self.account.url, f"file://{file}"
        report = mlauth.check(ZenMLCredentials.of("test", {"store_url": url, "api_key": reference}))
        return report.status is mlauth.Status.PASSED

    def rotated(self) -> str | None:
        """Return when the server says that the key was rotated."""
        account, key = self.account.id, self.account.key_id
        path = f"/service_accounts/{account}/api_keys/{key}"
        found = self.account.server.request("GET", path)["metadata"]["last_rotated"]
        assert found is None or isinstance(found, str)
        return found

    def keys(self) -> int:
        path = f"/service_accounts/{self.account.id}/api_keys"
        return int(self.account.server.request("GET", path)["total"])

    def command(
        self, *arguments: str, out: int = subprocess.PIPE, err: int = subprocess.PIPE, **env: str
    ) -> subprocess.CompletedProcess[str]:
        with self.started(*arguments, out=out, err=err, **env) as process:
            said, told = process.communicate(timeout=100)
        return subprocess.CompletedProcess([], process.returncode, said, told)

    def started(
        self,
        *arguments: str,
        out: int = subprocess.PIPE,
        err: int = subprocess.PIPE,
        **environment: str,
    ) -> subprocess.Popen[str]:
        admin = {"zenml_admin": self.admin} if self.admin else {}
        write_profile(self.folder, "p", zenml=self.fields, **admin)
        return subprocess.Popen(
            [sys.executable, "-m", "mlauth.cli", "rotate", "zenml", "--profile", "p", *arguments],
            cwd=self.folder,
            env={**os.environ, "MLAUTH_TIMEOUT": "60", **environment},
            stdout=out,
            stderr=err,
            text=True,
        )


@pytest.fixture
def setting(clean_environment: Path, account: Account) -> Setting:
    folder = clean_environment / "project"
    folder.mkdir()
    return Setting(account, folder)


@pytest.fixture
def front(setting: Setting) -> Iterator[Proxy]:
    """A proxy in front of the server, in the profile."""
    with proxy(setting.account.url) as front:
        setting.fields["store_url"] = front.url
        yield front


@pytest.fixture
def vault(setting: Setting, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A vault with the key, in the profile, and an identity that may write to it."""
    vault = azure.vault()
    vault.put("zenml-api-key", setting.account.key)
    setting.fields["api_key"] = f"azurekv://{vault.name}/zenml-api-key"
    become(monkeypatch, azure.environment(azure.identity("get", "set", "update")))
    yield vault
    azure_tokens.tokens.cache_clear()


def is_rotation(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith("/rotate")


def lost_answer(request: Request) -> tuple[int, bytes] | None:
    return (503, b"{}") if is_rotation(request) else None


def versions(vault: Vault) -> list[str]:
    return vault.values("zenml-api-key")


@pytest.mark.usefixtures("counted")
def test_the_command_stores_a_new_key_and_the_old_one_works_for_a_while(setting: Setting) -> None:
    account, old = setting.account, setting.account.key
    before = account.logins()
    done = setting.command("--retain", "30")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(
        f"rotated: service account {account.name!r} on {account.url} has a new value of its "
        f"API key 'test', stored in {account.reference} and proven; the old key works until "
    )
    until = datetime.strptime(line[-23:], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=timezone.utc)
    assert timedelta(minutes=29) < until - datetime.now(timezone.utc) <= timedelta(minutes=30)
    assert account.logins() == before + 3  # the old key, the administrator, the new key
    assert account.key != old
    assert account.file.stat().st_mode & 0o777 == 0o600
    assert setting.takes(account.key)
    assert setting.takes(old)
    for value in (old, account.key):
        assert value not in done.stdout + done.stderr
        assert (
            search([value], setting.folder).found == [str(setting.folder / "a-key")][: value == old]
        )
        assert search([value], setting.account.server.folder).found == []


def test_secrets_that_are_parts_of_names_change_no_name(setting: Setting) -> None:
    del setting.fields["service_account"]
    for name in (
        "flows",
        "test",
    ):  # the account's name begins with the first, and the key has the second
        memory.put(name, name)
        mlauth.resolve(f"memory://{name}")
    rotation = setting.rotate(new_key=True)
    assert rotation.account == setting.account.name.replace("flows", "***")
    path = f"/service_accounts/{setting.account.id}/api_keys"
    names = [item["name"] for item in setting.account.server.request("GET", path)["items"]]
    assert sorted(names) == ["test", rotation.key_name.replace("***", "test")]


def test_a_key_in_key_vault_gets_a_new_version(setting: Setting, vault: Vault) -> None:
    old = setting.account.key
    rotation = setting.rotate()
    first, new = versions(vault)
    assert first == old  # the proof that it can be written made no version
    assert setting.takes(new)
    assert rotation.version
    assert f"(version {rotation.version})" in str(rotation)
    assert rotation.old_key_until
    day = rotation.old_key_until - datetime.now(timezone.utc)
    assert timedelta(hours=23, minutes=58) < day <= timedelta(days=1)


@pytest.fixture(params=["full", pytest.param("closed", marks=pytest.mark.load)])
def output(request: pytest.FixtureRequest) -> Iterator[int]:
    """An output that cannot be written to: a disk that is full, a pipe that nobody reads."""
    if request.param == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
    yield descriptor
    os.close(descriptor)


class TestExitCode:
    """The exit code says what happened to the key, even if nothing can be printed."""

    def test_a_rotation_that_cannot_be_told_is_one(self, setting: Setting, output: int) -> None:
        old = setting.account.key
        done = setting.command(out=output)
        assert done.returncode == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("mlauth: standard output cannot be written to; rotated: service ")
        assert setting.takes(setting.account.key)
        assert setting.account.key != old

    def test_a_rotation_that_nothing_can_be_told_of_is_one(
        self, setting: Setting, output: int
    ) -> None:
        done = setting.command(out=output, err=output)
        assert done.returncode == 0
        assert setting.rotated()

    def test_an_incomplete_one_is_incomplete(
        self, setting: Setting, front: Proxy, output: int
    ) -> None:
        front.replaces = lost_answer
        assert setting.command(err=output).returncode == 4
        assert setting.rotated()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env://KEY", "mlauth writes to azurekv and file only; keep the key there, or rotate it"),
        (
            "file:///run/secrets/all#key",
            "the secret holds more than the key; give it",
        ),
        ("azurekv://acme/key?version=" + "0" * 32, "it names one version for good"),
    ],
)
def test_a_reference_that_cannot_be_written_is_refused_before_anybody_is_asked(
    setting: Setting, reference: str, said: str
) -> None:
    with faulty(answer(200)) as server:
        setting.fields |= {"store_url": server.url, "api_key": reference}
        done = setting.command()
        assert done.returncode == 2
        assert done.stderr.startswith(f"mlauth: {reference} cannot be rotated: {said}")
        assert done.stderr.count("\n") == 1
        assert server.requests == []


@pytest.mark.parametrize("minutes", [0, -1, 525_601])
def test_a_retain_period_that_keeps_no_key_is_refused(setting: Setting, minutes: int) -> None:
    with pytest.raises(InvalidCredentials, match=f"retain: {minutes} is not 1 to 525,600 minutes"):
        setting.rotate(retain_minutes=minutes)
    assert setting.rotated() is None


def test_a_profile_without_a_zenml_account_and_a_missing_name_are_wrong_use(
    setting: Setting,
) -> None:
    with pytest.raises(
        mlauth.MLAuthError, match=r"the profile has no \[zenml\], so there is no key to rotate"
    ):
        mlauth.rotate_zenml(Profile.model_validate({"env": {"A": "env://B"}}))
    done = subprocess.run(
        [sys.executable, "-m", "mlauth.cli", "rotate", "zenml"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "mlauth: name the profile: --profile or MLAUTH_PROFILE\n",
    )


class TestWhoMayRotate:
    def test_an_account_that_may_not_is_told_who_may(self, setting: Setting) -> None:
        setting.admin, old = None, setting.account.key
        done = setting.command()
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"mlauth: nothing was rotated: {setting.account.url} does not let its caller "
            f"rotate API keys of {setting.account.name!r} (HTTP 403): where roles do not allow "
            "that, only an administrator may; give the profile [zenml_admin] with user and password"
        )
        assert setting.account.key == old
        assert setting.rotated() is None

    def test_a_wrong_password_names_the_administrator(self, setting: Setting) -> None:
        (setting.folder / "admin-password").write_text("canary-wrong")
        with pytest.raises(RotationFailed, match=r"^administrator 'admin' \(zenml_admin\) cannot"):
            setting.rotate()
        assert setting.rotated() is None

    def test_a_person_who_is_no_administrator_may_not(
        self, setting: Setting, zenml_server: ZenMLServer
    ) -> None:
        name = f"person-{setting.account.name}"
        zenml_server.create_user(name, SecretStr("canary-password"))
        (setting.folder / "admin-password").write_text("canary-password")
        assert setting.admin
        setting.admin["user"] = name
        with pytest.raises(RotationFailed, match="only an administrator may"):
            setting.rotate()
        assert setting.rotated() is None

    def test_flows_never_read_the_administrators_password(self, setting: Setting) -> None:
        assert setting.admin
        setting.admin["password"] = "env://NOT_THERE"
        with mlauth.activate(setting.profile) as active:
            assert "NOT_THERE" not in str(active)


class TestNothingIsRotated:
    """A failure before the rotation leaves everything as it was."""

    def test_when_the_stored_key_does_not_work(self, setting: Setting) -> None:
        account = setting.account
        account.server.rotate_api_key(account.id, account.key_id)
        seen = setting.rotated()
        with pytest.raises(CheckFailed, match="the key was rotated: put the new one into the"):
            setting.rotate()
        assert setting.rotated() == seen

    @pytest.mark.parametrize("rights", [["get"], ["get", "set"]])
    def test_when_the_store_cannot_be_proven_writable(
        self,
        setting: Setting,
        vault: Vault,
        azure: Azure,
        monkeypatch: pytest.MonkeyPatch,
        rights: list[str],
    ) -> None:
        become(monkeypatch, azure.environment(azure.identity(*rights)))
        said = r"cannot be written: .*Secrets Officer.*a custom role needs secrets/update"
        with pytest.raises(SecretDenied, match=said):
            setting.rotate()
        assert setting.rotated() is None
        assert versions(vault) == [setting.account.key]

    def test_when_the_server_has_a_fault(self, setting: Setting, front: Proxy) -> None:
        front.fails = is_rotation
        done = setting.command()
        assert done.returncode == 3
        assert done.stderr.startswith("mlauth: nothing was rotated: ")
        assert "(HTTP 503); the credential may be fine: try again later" in done.stderr
        assert (
            sum(map(is_rotation, front.requests)) == 1
        )  # a request that changes something is sent only once
        assert setting.rotated() is None

    def test_when_something_in_the_way_refuses_the_request(
        self, setting: Setting, front: Proxy
    ) -> None:
        front.stands_in = lambda request: (
            (403, b"<html>", {"content-type": "text/html"}) if is_rotation(request) else None
        )
        done = setting.command()
        assert done.returncode == 1
        assert "answers 403 with text/html without a key" in done.stderr
        assert setting.rotated() is None

    def test_when_zenml_itself_refuses_nothing_more_is_asked(
        self, setting: Setting, front: Proxy
    ) -> None:
        front.stands_in = lambda request: (
            (409, b'{"detail": ["IllegalOperationError", "no"]}') if is_rotation(request) else None
        )
        with pytest.raises(RotationFailed, match="answers 409 to the rotation of"):
            setting.rotate()
        assert is_rotation(front.requests[-1])

    def test_when_somebody_else_has_stored_another_key_meanwhile(
        self, setting: Setting, front: Proxy
    ) -> None:
        """A rotation that has read the old key before writes nothing."""
        old = setting.account.key

        def rotate_first(request: Request) -> Replaced | None:
            if "/api_keys/" in request.path:  # the last request before the write
                front.replaces = lambda request: None
                Setting(setting.account, setting.folder).rotate()
            return None

        front.replaces = rotate_first
        with pytest.raises(RotationFailed, match="holds another value than a moment ago"):
            setting.rotate()
        new = setting.account.key
        assert new != old
        assert setting.takes(new)
        assert sum(map(is_rotation, front.requests)) == 0

    def test_when_somebody_else_has_rotated_and_not_stored_it_yet(self, setting: Setting) -> None:
        ready = rotating.prepare("zenml", setting.profile, timeout=60)
        account = setting.account
        account.server.rotate_api_key(account.id, account.key_id, retain_minutes=5)
        before, old = setting.rotated(), account.key
        with pytest.raises(RotationFailed, match="somebody else rotated API key 'test' of"):
            ready.rotate()
        assert (setting.rotated(), account.key) == (before, old)

    def test_within_the_retain_period_of_another(self, setting: Setting) -> None:
        """The server keeps one old value: a second rotation would end the first at once."""
        first = setting.account.key
        setting.rotate()
        second = setting.account.key
        with pytest.raises(RotationFailed, match="which a second rotation would end at once"):
            setting.rotate()
        assert setting.account.key == second
        assert setting.takes(first)


def test_of_two_who_rotate_at_once_the_newer_value_is_stored(
    setting: Setting, front: Proxy
) -> None:
    """Both have rotated before either stores its value, and the first value is older."""
    account, first = setting.account, rotating.prepare("zenml", setting.profile, timeout=60)

    def rotate_and_store_first(request: Request) -> bool:
        if is_rotation(request):  # now the second rotation's last look is out of date
            front.fails = lambda request: False
            first.rotate()
        return False

    second = rotating.prepare("zenml", setting.profile, timeout=60)
    front.fails = rotate_and_store_first
    second.rotate()
    assert setting.takes(account.key)
    assert sum(map(is_rotation, front.requests)) == 2
    end = account.server.request(
        "GET", f"/service_accounts/{account.id}/api_keys/{account.key_id}"
    )["metadata"]
    assert end["retain_period_minutes"] == 24 * 60


class TestRotatedButNotFinished:
    """The new value is lost or not proven: the old one works, and one line says what to do."""

    def lost(self, setting: Setting, said: str, **arguments: float) -> RotationIncomplete:
        with pytest.raises(RotationIncomplete, match=said) as raised:
            setting.rotate(**arguments)
        message = str(raised.value)
        assert "\n" not in message
        until = raised.value.old_key_until
        assert until
        assert f"The old value works until {until:%Y-%m-%d %H:%M:%S} UTC: put that right" in message
        assert "rotate once more with --new-key (new_key=True), which ends no key" in message
        assert setting.rotated()
        return raised.value

    def overtaken(self, setting: Setting, said: str) -> None:
        with pytest.raises(RotationIncomplete, match=said) as raised:
            setting.rotate()
        assert "The old value has ended: put that right" in str(raised.value)

    def test_when_the_store_refuses_the_new_key(
        self, setting: Setting, front: Proxy, vault: Vault
    ) -> None:
        old = setting.account.key

        def deny(request: Request) -> bool:
            if is_rotation(request):
                vault.deny("ForbiddenByPolicy")
            return False

        front.fails = deny
        done = setting.command("--retain", "60")
        assert done.returncode == 4
        assert "was rotated, but the new value is not stored: azurekv://" in done.stderr
        assert done.stderr.count("\n") == 1
        assert {*versions(vault)} == {old}
        assert setting.takes(old)

        # The line names the way out. It ends no key, although the store still has the old one.
        vault.allow()
        front.fails = lambda request: False
        rotation = setting.rotate(new_key=True)
        assert rotation.key_name.startswith("test-2")
        assert "no key was ended: delete the old one when nothing uses it" in str(rotation)
        assert setting.takes(old)
        assert setting.takes(versions(vault)[-1])
        assert setting.keys() == 2

    def test_when_the_answer_with_the_new_key_is_lost(self, setting: Setting, front: Proxy) -> None:
        old, front.replaces = setting.account.key, lost_answer
        self.lost(setting, "was rotated, but the answer with the new value was lost: .*HTTP 503")
        assert sum(map(is_rotation, front.requests)) == 1
        assert setting.account.key == old
        assert setting.takes(old)

    def test_when_it_is_not_even_known_if_it_was_rotated(
        self, setting: Setting, front: Proxy
    ) -> None:
        front.replaces = lost_answer
        front.fails = lambda request: any(map(is_rotation, front.requests[:-1]))
        self.lost(setting, "may have been rotated, but the answer with the new value was lost")

    @pytest.mark.parametrize(
        "answered",
        [
            (200, b"no gzip", {"content-encoding": "gzip"}),
            (200, b" " * (1024 * 1024 + 1)),
            (303, b"", {"location": "/elsewhere"}),
            (403, b"<html>", {"content-type": "text/html"}),
            (408, b'{"detail": "too late"}'),
            (499, b'{"detail": "closed"}'),
            (501, b""),
            (524, b"<html>", {"content-type": "text/html"}),
            (0, b""),
        ],
        ids=["damaged", "large", "303", "403 of a proxy", "408", "499", "501", "524", "broken off"],
    )
    def test_when_what_is_answered_says_nothing_of_the_rotation(
        self, setting: Setting, front: Proxy, answered: Replaced
    ) -> None:
        front.replaces = lambda request: answered if is_rotation(request) else None
        self.lost(setting, "was rotated, but the answer with the new value was lost: ")
        assert sum(map(is_rotation, front.requests)) == 1

    def test_when_the_time_ends_while_it_is_under_way(self, setting: Setting, front: Proxy) -> None:
        """The server has not rotated when mlauth asks, and does so later."""
        goes_on = threading.Event()
        front.fails = lambda request: is_rotation(request) and not goes_on.wait(60)
        with pytest.raises(RotationIncomplete, match="may have been rotated, but the answer with"):
            setting.rotate(timeout=3)
        assert not setting.rotated()
        goes_on.set()
        until(setting.rotated)
        assert setting.takes(setting.account.key)  # as the error says, the old one works

    def test_when_the_server_does_not_take_the_new_key_yet(
        self, setting: Setting, front: Proxy
    ) -> None:
        front.fails = lambda request: (
            request.path.endswith("/login") and any(map(is_rotation, front.requests))
        )
        old = setting.account.key
        self.lost(setting, "was rotated and the new value is stored, but not proven: .*HTTP 503")
        assert setting.account.key != old
        assert setting.takes(setting.account.key)

    def test_when_somebody_else_rotates_it_meanwhile(self, setting: Setting, front: Proxy) -> None:
        account = setting.account

        def rotate_too(request: Request) -> bool:
            if request.path.endswith("/login") and any(map(is_rotation, front.requests)):
                account.server.rotate_api_key(account.id, account.key_id, retain_minutes=5)
            return False

        front.fails = rotate_too
        self.overtaken(setting, "is stored, but not proven: somebody else rotated it at the same")

    def test_when_somebody_else_rotates_it_before_it_is_stored(
        self, setting: Setting, front: Proxy
    ) -> None:
        """Their value is newer and must stay in the store, so ours is not written."""
        account, old = setting.account, setting.account.key

        def rotate_too(request: Request) -> bool:
            if is_rotation(front.requests[-2]):
                account.server.rotate_api_key(account.id, account.key_id, retain_minutes=5)
            return False

        front.fails = rotate_too
        self.overtaken(setting, "value is not stored: somebody else rotated it at the same time")
        assert account.key == old

    def test_when_somebody_else_writes_to_the_store(
        self, setting: Setting, front: Proxy, vault: Vault
    ) -> None:
        def put() -> None:
            until(lambda: len(versions(vault)) == 2)
            vault.put("zenml-api-key", "canary-of-somebody")

        def watch(request: Request) -> bool:
            if is_rotation(request):
                vault.troubles.done_late(0.5, method="PUT")
                threading.Thread(target=put, daemon=True).start()
            return False

        front.fails = watch
        self.lost(setting, "is not stored: azurekv://.* holds another value: does somebody else")

    def test_a_second_key_whose_answer_is_lost_is_named(
        self, setting: Setting, front: Proxy
    ) -> None:
        front.replaces = lambda request: (
            (502, b"{}") if request.method == "POST" and "api_keys" in request.path else None
        )
        old = setting.account.key
        with pytest.raises(mlauth.MLAuthError, match=r"there may be an API key 'test-2.*delete it"):
            setting.rotate(new_key=True)
        assert setting.account.key == old
        assert setting.keys() == 2


def test_a_write_without_an_answer_that_was_made_is_found_out(
    setting: Setting, front: Proxy, vault: Vault
) -> None:
    """Key Vault has stored the new version, but its answer comes too late."""

    def slow(request: Request) -> bool:
        if is_rotation(request):
            vault.troubles.done_late(6, method="PUT")
        return False

    front.fails = slow
    rotation = setting.rotate(timeout=5)
    assert setting.takes(versions(vault)[-1])
    assert rotation.version


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.load),
    ],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_a_signal_after_the_rotation_changes_neither_its_end_nor_the_exit_code(
    setting: Setting, front: Proxy, vault: Vault, number: int, stored: bool
) -> None:
    process: list[subprocess.Popen[str]] = []

    def interrupt(request: Request) -> bool:
        if is_rotation(request):
            vault.late(1)
            if not stored:
                vault.deny("ForbiddenByPolicy")
            process[0].send_signal(number)
        return False

    front.fails = interrupt
    process.append(setting.started())
    with process[0]:
        out, err = process[0].communicate(timeout=100)
    assert process[0].returncode == (0 if stored else 4), err
    if stored:
        assert "rotated: " in out
        assert setting.takes(versions(vault)[-1])
    else:
        assert "was rotated, but the new value is not stored: " in err


def test_a_signal_before_the_rotation_ends_it_at_once(setting: Setting) -> None:
    with faulty(never) as server:
        setting.fields["store_url"] = server.url
        with setting.started() as process:
            until(lambda: server.requests)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "mlauth: interrupted\n")


def test_a_server_that_does_not_answer_is_waited_for_until_the_deadline(setting: Setting) -> None:
    with faulty(never) as server:
        setting.fields["store_url"] = server.url
        done = setting.command(MLAUTH_TIMEOUT="1")
    assert done.returncode == 3
    assert done.stderr.startswith("mlauth: nothing was rotated: ")


def test_an_answer_without_a_key_is_an_answer_that_was_lost(setting: Setting, front: Proxy) -> None:
    front.replaces = lambda request: (200, b'{"body": null}') if is_rotation(request) else None
    with pytest.raises(RotationIncomplete, match="answers 200 with application/json without a"):
        setting.rotate()


def test_a_server_that_does_not_show_the_key_is_not_asked_to_rotate_it(
    setting: Setting, front: Proxy
) -> None:
    for body in (b"[]", b"{}", b'{"name": "n", "metadata": {"last_rotated": 1}}'):
        front.replaces = lambda request, body=body: (
            (200, body) if "/api_keys/" in request.path else None
        )
        with pytest.raises(RotationFailed, match="does not show the API key of"):
            setting.rotate()
    assert setting.rotated() is None


def test_the_documents_profile_can_be_rotated_and_its_options_exist(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "rotation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "mlauth.toml").write_text(example)
    profile = mlauth.load_profile("prod", str(tmp_path / "mlauth.toml"))
    shown = Path(__file__).parents[2] / "deployments" / "rotate-zenml-key" / "mlauth.toml"
    assert profile == mlauth.load_profile("prod", str(shown))
    zenml = profile.systems["zenml"]
    assert writable(zenml.references()["api_key"])
    (command,) = re.findall(r"^\$ mlauth (rotate .*)$", text, re.MULTILINE)
    options = CliRunner().invoke(main, ["rotate", "zenml", "--help"]).output
    for option in {*re.findall(r"--[a-z-]+", command), "--new-key"}:
        assert f"{option} " in options

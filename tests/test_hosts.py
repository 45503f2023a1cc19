"""The hosts that credentials may go to."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlauth
from mlauth import hosts
from mlauth.cli import main
from mlauth.errors import MLAuthError
from mlauth.stores import memory
from mlauth.systems.zenml import ZenMLCredentials
from prefect_mlauth import AzureKeyVaultSecret, MLAuthProfile, ReferencedSecret, steps
from prefect_mlauth import ZenMLCredentials as ZenMLBlock
from prefect_mlauth.blocks.active import Active
from tests.support.accounts import Account
from tests.support.hub import TOKEN, HubCredentials, hub
from tests.support.web import Answer, Call, serve
from tests.support.zenml_keys import api_key

_watching: list[list[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and (event.startswith("socket.") or event == "open"):
        _watching[-1].append(f"{event} {arguments}")


sys.addaudithook(_note)  # cannot be removed


@contextmanager
def nothing_read_or_asked(folder: Path) -> Iterator[None]:
    """Watch what Python opens and connects to."""
    events: list[str] = []
    _watching.append(events)
    try:
        yield
    finally:
        _watching.remove(events)
    found = [
        event
        for event in events
        if event.startswith(("socket.getaddrinfo", "socket.connect", "socket.gethostby"))
        or f"{folder}/key" in event
    ]
    assert found == []


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, at another place."""
    file = tmp_path / "allowed-hosts"
    monkeypatch.setattr(hosts, "FILE", str(file))
    return file


@pytest.mark.parametrize(
    ("content", "host", "is_allowed"),
    [
        ("zenml.example.com", "zenml.example.com", True),
        ("zenml.example.com", "ZenML.Example.Com.", True),
        ("  ZENML.example.com.  # ours\n", "zenml.example.com", True),
        ("# ours\n\nzenml.example.com\r\nother", "other", True),
        ("zenml.example.com", "azenml.example.com", False),
        ("zenml.example.com", "a.zenml.example.com", False),
        ("zenml.example.com", "zenml.example.com.evil.example", False),
        ("", "zenml.example.com", False),
        ("# none\n", "localhost", False),
        ("*.vault.azure.net", "acme.vault.azure.net", True),
        ("*.vault.azure.net", "A.b.VAULT.azure.net.", True),
        ("*.vault.azure.net", "vault.azure.net", False),
        ("*.vault.azure.net", ".vault.azure.net", False),
        ("*.vault.azure.net", "evilvault.azure.net", False),
        ("*.vault.azure.net", "acme.vault.azure.net.evil.example", False),
        ("*.example", "a\\.example", False),
        ("*.example", "a..example", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.1", False),
        ("*.1", "127.0.0.1", False),
        ("[::1]", "0:0:0:0:0:0:0:1", True),
        ("::1", "[::1]", True),
        ("::1", "::2", False),
        ("xn--mnchen-3ya.example", "XN--mnchen-3ya.example", True),
        ("xn--mnchen-3ya.example", "münchen.example", False),
    ],
)
def test_which_hosts_a_file_allows(
    allowed: Path, content: str, host: str, is_allowed: bool
) -> None:
    allowed.write_text(content)
    refusal = hosts.refusal([host])
    assert (refusal is None) is is_allowed
    if refusal is not None:
        assert refusal.isprintable()
        assert str(allowed) in refusal


@pytest.mark.parametrize(
    "line",
    [
        "*",
        "*.",
        "*.*.example.com",
        "zenml.*.com",
        "https://zenml.example.com",
        "zenml.example.com:443",
        "zenml.example.com/path",
        "a b",
        "a,b",
        "münchen.example",
        "*.127.0.0.1",
        ".example.com",
        "a..b",
    ],
)
def test_a_file_with_a_line_that_is_no_host_refuses_everything(allowed: Path, line: str) -> None:
    allowed.write_text(f"zenml.example.com\n{line}\n")
    for names in (["zenml.example.com"], []):
        assert f"{allowed} has no host in line 2: write" in (hosts.refusal(names) or "")


def test_a_missing_file_allows_every_host_and_an_unreadable_file_allows_none(
    allowed: Path,
) -> None:
    assert hosts.refusal(["zenml.example.com"]) is None
    allowed.symlink_to("gone")
    assert "is a broken link" in (hosts.refusal([]) or "")
    allowed.unlink()
    allowed.mkdir()
    assert "cannot be read (Is a directory)" in (hosts.refusal([]) or "")
    allowed.rmdir()
    allowed.write_bytes(b"\xff")
    assert "is not UTF-8" in (hosts.refusal([]) or "")


def test_a_folder_that_is_a_broken_link_refuses_everything(
    allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance, a volume was not mounted."""
    folder = allowed.parent / "etc"
    folder.symlink_to("gone")
    monkeypatch.setattr(hosts, "FILE", str(folder / "allowed-hosts"))
    assert "is a broken link" in (hosts.refusal([]) or "")
    (allowed.parent / "gone").mkdir()
    assert hosts.refusal(["zenml.example.com"]) is None
    (allowed.parent / "gone" / "allowed-hosts").write_text("other.example.com\n")
    assert "is not in" in (hosts.refusal(["zenml.example.com"]) or "")


@pytest.fixture
def folder(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a key and profiles that name servers that the file does not allow."""
    folder = clean_environment / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "key").write_text(api_key("canary"))
    key = f"file://{folder}/key"
    (folder / "mlauth.toml").write_text(
        f"""
        [profiles.zenml]
        zenml = {{ store_url = "https://evil.example", api_key = "{key}" }}
        env = {{ TOKEN = "{key}" }}

        [profiles.vault]
        env = {{ TOKEN = "azurekv://evil.example:8443/token", OTHER = "{key}" }}

        [profiles.short]
        env = {{ TOKEN = "azurekv://evil/token" }}

        [profiles.admin.zenml]
        store_url = "https://zenml.example.com"
        api_key = "{key}"
        [profiles.admin.zenml_admin]
        user = "admin"
        password = "azurekv://evil.example/password"

        [profiles.none]
        env = {{ OTHER = "{key}" }}
        """
    )
    # Microsoft Entra is asked with the secret of this identity.
    for name, value in {
        "AZURE_TENANT_ID": "tenant",
        "AZURE_CLIENT_ID": "client",
        "AZURE_CLIENT_SECRET": "canary-of-the-identity",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def refused(host: str) -> str:
    return f"no credential goes to {host}, which is not in {hosts.FILE}: correct the host, or let"


def calls(folder: Path) -> dict[str, tuple[str, object]]:
    """Return every way to use a credential: the refused host, and a call."""
    key = f"file://{folder}/key"
    zenml = {"store_url": "https://evil.example:8443", "api_key": key}
    vault, at_vault = {"vault": "evil.example", "name": "token"}, "azurekv://evil.example/token"

    def activate(profile: str) -> None:
        with mlauth.activate(profile):
            pass

    def with_block(entered: Active) -> None:
        with entered:
            pass

    async def with_async_block() -> None:
        async with ZenMLBlock(**zenml).login():
            pass

    return {
        "activate": ("evil.example", lambda: activate("zenml")),
        "activate, unproven": (
            "evil.example",
            lambda: mlauth.activate("zenml", verify=False).__enter__(),
        ),
        "activate, a vault": ("evil.example", lambda: activate("vault")),
        "activate, a vault's short name": ("evil.vault.azure.net", lambda: activate("short")),
        "resolve": (
            "evil.example",
            lambda: mlauth.resolve({"a": key, "b": "azurekv://evil.example/token"}),
        ),
        "zenml_login": ("evil.example", lambda: steps.zenml_login(**zenml)),
        "export_secrets": (
            "evil.vault.azure.net",
            lambda: steps.export_secrets({"A": key, "B": "azurekv://evil/token"}),
        ),
        "activate_profile": ("evil.example", lambda: steps.activate_profile("zenml")),
        "block ZenMLCredentials": ("evil.example", lambda: with_block(ZenMLBlock(**zenml).login())),
        "async": ("evil.example", lambda: asyncio.run(with_async_block())),
        "block MLAuthProfile": (
            "evil.example",
            lambda: with_block(MLAuthProfile(content={"zenml": zenml}).activate()),
        ),
        "block AzureKeyVaultSecret": (
            "evil.example",
            lambda: AzureKeyVaultSecret(**vault).read_secret(),
        ),
        "it writes": (
            "evil.example",
            lambda: AzureKeyVaultSecret(**vault).write_secret(b"canary"),
        ),
        "block ReferencedSecret": (
            "evil.example",
            lambda: ReferencedSecret(reference=at_vault).read_secret(),
        ),
        "that writes": (
            "evil.example",
            lambda: ReferencedSecret(reference=at_vault).write_secret(b"canary"),
        ),
        "rotate": ("evil.example", lambda: mlauth.rotate_zenml("zenml")),
        "rotate, the administrator's vault": ("evil.example", lambda: mlauth.rotate_zenml("admin")),
    }


NAMES = list(calls(Path("/nowhere")))


@pytest.mark.parametrize("name", NAMES)
def test_a_host_that_is_not_allowed_is_refused_before_anything_is_read(
    allowed: Path, folder: Path, name: str
) -> None:
    allowed.write_text("zenml.example.com\nlogin.microsoftonline.com\n")
    host, call = calls(folder)[name]
    with (
        nothing_read_or_asked(folder),
        pytest.raises(MLAuthError, match=refused(host)) as caught,
    ):
        call()  # type: ignore[operator]
    assert str(caught.value).isprintable()
    assert "canary" not in str(caught.value)
    assert "ZENML_STORE_URL" not in os.environ


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_cannot_be_used_refuses_them_all(
    allowed: Path, folder: Path, name: str
) -> None:
    allowed.write_text("*\n")
    with (
        nothing_read_or_asked(folder),
        pytest.raises(MLAuthError, match="has no host in line 1"),
    ):
        calls(folder)[name][1]()  # type: ignore[operator]


@pytest.mark.parametrize(
    "named", [None, "https://login.evil.example/", "login.evil.example", "LOGIN.EVIL.example:443"]
)
def test_the_authority_of_an_identity_is_one_of_the_hosts(
    allowed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    vault = "acme.vault.azure.net" if named is None else "vault.acme.example"
    authority = "login.microsoftonline.com" if named is None else "login.evil.example"
    if named is not None:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", named)
    allowed.write_text(vault)
    with nothing_read_or_asked(folder), pytest.raises(MLAuthError, match=refused(authority)):
        mlauth.resolve(f"azurekv://{vault}/token")


@pytest.mark.parametrize("name", ["AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION"])
@pytest.mark.parametrize(
    ("vault", "authority", "of_region"),
    [
        ("net", "login.microsoftonline.com", "westus.login.microsoft.com"),
        ("cn", "login.chinacloudapi.cn", "westus.login.chinacloudapi.cn"),
    ],
)
def test_the_authority_of_a_region_is_one_of_the_hosts(
    allowed: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    vault: str,
    authority: str,
    of_region: str,
) -> None:
    monkeypatch.setenv(name, "westus")
    allowed.write_text(f"acme.vault.azure.{vault}\n{authority}\n")
    with nothing_read_or_asked(folder), pytest.raises(MLAuthError, match=refused(of_region)):
        mlauth.resolve(f"azurekv://acme.vault.azure.{vault}/token")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "-p", "zenml"), 1),
        (("check",), 1),
        (("exec", "-p", "zenml", "true"), 125),
        (("explain", "azurekv://evil.example/token"), 1),
        (("rotate", "zenml", "-p", "zenml"), 2),
    ],
)
def test_the_command_line_refuses_it_too(
    allowed: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
) -> None:
    monkeypatch.setenv("ZENML_STORE_URL", "https://evil.example")
    monkeypatch.setenv("ZENML_STORE_API_KEY", api_key("canary"))
    allowed.write_text("")
    with nothing_read_or_asked(folder):
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    assert refused("evil.example") in " ".join(done.output.split())
    assert "canary" not in done.output


def test_a_vault_is_refused_also_where_there_is_no_identity_to_ask_it_as(
    allowed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_TENANT_ID")
    allowed.write_text("login.microsoftonline.com")
    with nothing_read_or_asked(folder), pytest.raises(MLAuthError, match=refused("evil.example")):
        mlauth.activate("vault").__enter__()


def test_a_host_that_a_system_does_not_name_is_refused_all_the_same(
    allowed: Path, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put("hub", TOKEN)
    monkeypatch.setattr(HubCredentials, "hosts", lambda _: ())
    allowed.write_text("hub.example.com\n")
    asked: list[Call] = []

    def listen(call: Call) -> Answer:
        asked.append(call)
        return hub(call)

    with serve(listen) as port:
        fields = {"url": f"http://127.0.0.1:{port}", "token": "memory://hub"}
        summary = mlauth.check(HubCredentials.of("test", fields)).summary()
    assert summary.startswith("hub, reachable: no credential goes to 127.0.0.1, which is not in")
    assert asked == []


def test_a_profile_without_hosts_is_not_limited(allowed: Path, folder: Path) -> None:
    allowed.write_text("")
    with mlauth.activate("none") as activation:
        assert activation.variables == ("OTHER",)


def test_an_allowed_server_is_used(allowed: Path, account: Account) -> None:
    credentials = ZenMLCredentials.of(
        "test", {"store_url": account.url, "api_key": account.reference}
    )
    allowed.write_text("127.0.0.1\nlocalhost\n")
    assert mlauth.check(credentials).summary().endswith(f"passed as {account.name!r}")


@pytest.mark.load
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs Linux's namespaces")
def test_the_file_is_the_one_in_etc(tmp_path: Path, folder: Path) -> None:
    """In a mount namespace of its own, a worker's image has the file."""
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (tmp_path / "etc" / "mlauth").mkdir()
    (tmp_path / "etc" / "mlauth" / "allowed-hosts").write_text("zenml.example.com\n")
    script = f'mount --bind {tmp_path}/etc /etc && exec "$@"'
    command = [sys.executable, "-m", "mlauth.cli", "exec", "-p", "zenml", "true"]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "MLAUTH_ALLOWED_HOSTS": str(tmp_path / "gone")},
    )
    assert done.returncode == 125, done.stderr
    assert "evil.example, which is not in /etc/mlauth/allowed-hosts" in done.stderr

"""What can be wrong on this machine: a profile, variables, files, values, and an activation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.forks import Job, alone
from tests.support.zenml_keys import api_key

KEY = api_key("canary-key")
URL = "https://zenml.example.com"


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong.

    Attributes:
        stage: the heading of its table.
        name: what a reader calls it.
        profile: the tables of `mlauth.toml` below `profiles.p`, or the file as it is.
        files: name and content, in the working directory.
        environment: variables.
        uses: how mlauth meets it.
        prepare: what else is done in the folder.
    """

    stage: str
    name: str
    profile: Mapping[str, Mapping[str, str]] | bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] = ("check", "activate")
    prepare: Callable[[Path], None] = lambda folder: None

    def job(self, use: str, folder: Path) -> Job:
        """Make the folder, and return what to run there."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        self.prepare(folder)
        if self.profile is not None:
            text = self.profile if isinstance(self.profile, bytes) else _toml(self.profile)
            (folder / "mlauth.toml").write_bytes(text.replace(b"FOLDER", str(folder).encode()))
        return Job(use, str(folder), {**alone(folder), **self.environment}, 20.0)


def _toml(tables: Mapping[str, Mapping[str, str]]) -> bytes:
    lines = []
    for name, table in tables.items():
        lines.append(f"[profiles.p.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines).encode()


def _zenml(**fields: str) -> dict[str, dict[str, str]]:
    return {"zenml": {"store_url": URL, "api_key": "file://FOLDER/key", **fields}}


def _env(reference: str, name: str = "ACME_TOKEN") -> dict[str, dict[str, str]]:
    return {"env": {name: reference}}


def _key(content: bytes) -> dict[str, bytes]:
    return {"key": content}


FILE, GOOD = _env("file://FOLDER/key"), _key(KEY.encode())
VAULT = _env("azurekv://acme-prod/token")
ENVIRONMENT, COMPONENT = ("environment",), ("component",)


def _profile(name: str, profile: Mapping[str, Mapping[str, str]] | bytes | None) -> Wrong:
    return Wrong("Profiles", name, profile)


def _variable(
    name: str,
    profile: Mapping[str, Mapping[str, str]] | None,
    uses: tuple[str, ...] = ("check", "activate"),
    files: Mapping[str, bytes] = GOOD,
    **environment: str,
) -> Wrong:
    return Wrong("Environment variables", name, profile, files, environment, uses)


def _file(
    name: str,
    reference: str = "file://FOLDER/key",
    content: bytes | None = None,
    prepare: Callable[[Path], None] = lambda folder: None,
) -> Wrong:
    files = {} if content is None else _key(content)
    return Wrong("Secrets in files", name, _env(reference), files, prepare=prepare)


CELLS = [
    _profile("there is no mlauth.toml", None),
    _profile("it is not TOML", b"[profiles.p\nkey = canary"),
    _profile("it is not UTF-8", b"[profiles.p.zenml]\nname = 'canary\xff'"),
    _profile("it has no such profile", b"[profiles.q.env]\nA = 'env://B'"),
    _profile("the profile is empty", b"[profiles.p]"),
    _profile("a setting is misspelt", _zenml(api_kye="file:///canary")),
    _profile("a setting is missing", {"zenml": {"store_url": URL}}),
    _profile("a key where its reference belongs", _zenml(api_key=KEY)),
    _profile("a secret where its reference belongs", _env("canary-hunter2")),
    _profile("a store that does not exist", _env("azurevk://acme/token")),
    _profile("an option that the store has not", _env("env://A?version=1")),
    _profile("a vault's name that no vault has", _env("azurekv://acme_prod/token")),
    _profile("a server without TLS", _zenml(store_url="http://zenml.example.com")),
    _profile("a password in the URL", _zenml(store_url="https://me:canary@zenml.example.com")),
    _profile("white space in the URL", _zenml(store_url=f"{URL} ")),
    _profile("a template that nothing replaced", _zenml(stack="{{ stack }}")),
    _profile("an empty name", _zenml(service_account="")),
    _profile("a variable that changes how programs start", _env("env://A", "LD_PRELOAD")),
    _variable("ca_bundle is not there", _zenml(ca_bundle="FOLDER/ca.pem")),
    _variable(
        "ca_bundle is no certificate",
        _zenml(ca_bundle="FOLDER/ca.pem"),
        files={**GOOD, "ca.pem": b"canary"},
    ),
    _variable("REQUESTS_CA_BUNDLE is not there", _zenml(), REQUESTS_CA_BUNDLE="/not/there.pem"),
    _variable("`env://` names one that is not set", _env("env://NOT_THERE")),
    _variable("`env://` names an empty one", _env("env://A"), A=""),
    _variable("a time limit that is none", _env("env://A"), ("check",), MLAUTH_TIMEOUT="canary"),
    _variable("a time limit over a day", _env("env://A"), ("check",), MLAUTH_TIMEOUT="1e10"),
    _variable(
        "a password of ZenML is left over",
        _zenml(),
        ZENML_STORE_USERNAME="me",
        ZENML_STORE_PASSWORD="canary",
    ),
    _variable("ZENML_STORE_URL is not set", None, ENVIRONMENT),
    _variable("a name that ZenML ignores", None, ENVIRONMENT, ZENML_URL=URL),
    _variable("ZENML_STORE_API_KEY is not set", None, ENVIRONMENT, ZENML_STORE_URL=URL),
    _variable(
        "a reference where ZenML's client needs the key",
        None,
        ENVIRONMENT,
        ZENML_STORE_URL=URL,
        ZENML_STORE_API_KEY="azurekv://acme/key",
    ),
    _variable(
        "another type of store",
        None,
        ENVIRONMENT,
        ZENML_STORE_URL=URL,
        ZENML_STORE_API_KEY=KEY,
        ZENML_STORE_TYPE="sql",
    ),
    _variable(
        "half an identity of Azure", VAULT, AZURE_CLIENT_SECRET="canary", AZURE_CLIENT_ID="id"
    ),
    _variable(
        "an identity of Azure that mlauth does not use", VAULT, AZURE_TOKEN_CREDENTIALS="vscode"
    ),
    _variable(
        "an Azure cloud that is not known",
        VAULT,
        AZURE_AUTHORITY_HOST="https://login.example.com",
        IDENTITY_ENDPOINT="http://127.0.0.1:9/",
        IDENTITY_HEADER="canary",
    ),
    _file("it is not there"),
    _file("it is a directory", "file://FOLDER/d", prepare=lambda folder: (folder / "d").mkdir()),
    _file("it is a pipe", prepare=lambda folder: os.mkfifo(folder / "key")),
    _file(
        "its links lead in a circle",
        prepare=lambda folder: (folder / "key").symlink_to("key"),
    ),
    _file("it is empty", content=b"\n"),
    _file("it is not UTF-8", content=b"canary\xff"),
    _file("it is larger than a secret", content=b"canary" * 200_000),
    _file("`#key` of what is no JSON", "file://FOLDER/key#a", b"canary"),
    _file("`#key` that is not in it", "file://FOLDER/key#a", b'{"b": "canary"}'),
    _file("`#key` that is no text", "file://FOLDER/key#a", b'{"a": ["canary"]}'),
    Wrong(
        "Secrets in files",
        "two of them",
        {"env": {"A": "file://FOLDER/a", "B": "file://FOLDER/b"}},
    ),
    *(
        Wrong("The shape of a ZenML key", name, _zenml(), _key(content))
        for name, content in {
            "white space (echo instead of printf)": f" {KEY}".encode(),
            "quotes": f'"{KEY}"'.encode(),
            "a byte order mark": f"\ufeff{KEY}".encode(),
            "a placeholder": b"<your-api-key>",
            "a reference": b"azurekv://acme/key",
            "a login token": b"eyJhbGciOi.canary",
            "something else": b"canary-key",
            "cut short": KEY[:-9].encode(),
        }.items()
    ),
    Wrong("Activation", "a value with a NUL", FILE, _key(b"canary\0canary")),
    Wrong("Activation", "a value that no environment takes", FILE, _key(b"canary" * 22_000)),
    Wrong("ZenML component, in a process", "the local store", uses=COMPONENT),
    Wrong(
        "ZenML component, in a process",
        "the local store, for a name that ZenML ignores",
        environment={"ZENML_API_KEY": KEY},
        uses=COMPONENT,
    ),
]

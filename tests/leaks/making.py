"""Makes an object of every public class, with a secret at hand wherever there can be one."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timezone
from importlib import import_module, metadata
from inspect import isclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

import mlauth
from mlauth import errors, report, stores, systems
from mlauth.azure import identity as azure_identity
from mlauth.azure.clouds import PUBLIC
from mlauth.azure.tokens import Tokens
from mlauth.checking import Checked, check_all
from mlauth.connection import Connection
from mlauth.deadline import Deadline
from mlauth.environment import Activating
from mlauth.masking import MaskingFormatter
from mlauth.net import faults
from mlauth.net.http import Answer, Basic, Bearer, Service
from mlauth.net.route import Client
from mlauth.never_pickled import NeverPickled
from mlauth.profiles import Settings, load_profile
from mlauth.references import SecretReference
from mlauth.resolving import Reader
from mlauth.stages import Stages
from mlauth.stores import StoredSecret, memory
from mlauth.storing import SecretStore
from mlauth.systems import Exports
from mlauth.systems.zenml import Administrator, ZenMLCredentials
from mlauth.systems.zenml.isolation import Isolation
from mlauth.systems.zenml.rotation import Ready, Rotation, _Key, _Server
from mlauth.testing.systems import SystemContract
from prefect_mlauth import logins
from tests.support.azure import Azure, become
from tests.support.canaries import canary, token, zenml_key
from tests.support.faults import FaultyServer, Reply, answer, faulty
from tests.support.profiles import write_profile
from tests.support.zenml_server import ZenMLServer


class Here:
    """The parts from which objects are made, and the values that they must not show."""

    def __init__(
        self, folder: Path, azure: Azure, patch: pytest.MonkeyPatch, stack: ExitStack
    ) -> None:
        self.folder, self.azure, self.patch, self.stack = folder, azure, patch, stack
        self.key, self.other = zenml_key("key"), canary("other")
        self.token = token("token")
        self.cookie = token("cookie")
        self.values = [self.key, self.other, self.token, self.cookie]
        (folder / "key").write_text(self.key)
        (folder / "other").write_text(self.other)
        self.profile: dict[str, dict[str, str]] = {
            "zenml": self.zenml(),
            "env": {"OTHER": self.reference("other")},
        }

    def reference(self, name: str) -> str:
        return f"file://{self.folder}/{name}"

    def zenml(self, url: str = "https://zenml.example.com") -> dict[str, str]:
        return {"store_url": url, "api_key": self.reference("key")}

    def config(self, url: str = "https://zenml.example.com") -> str:
        return str(write_profile(self.folder, "p", **self.profile | {"zenml": self.zenml(url)}))

    def good(self) -> Reply:
        """Answer every request to ZenML with success, and echo the request."""
        body = {
            "version": metadata.version("zenml"),
            "deployment_type": "other",
            "database_type": "sqlite",
            "secrets_store_type": "sql",
            "auth_scheme": "OAUTH2_PASSWORD_BEARER",
            "access_token": self.token,
            "name": self.key,
            "body": {"is_service_account": True, "key": self.key, "token": self.token},
        }
        return answer(200, json.dumps(body).encode(), Set_Cookie=f"t={self.cookie}")

    def server(self) -> AbstractContextManager[FaultyServer]:
        return faulty(self.good())

    def checked(self) -> Checked:
        with self.server() as server:
            credentials = ZenMLCredentials.of("test", self.zenml(server.url))
            (checked,) = check_all(credentials, Deadline(10))[1]
            assert checked.error is None
            return checked

    def exports(self) -> Exports:
        checked = self.checked()
        assert checked.values
        return checked.credentials.exports(checked.values, checked.proof)

    def secret(self, name: str = "key") -> StoredSecret:
        reference = SecretReference.parse(self.reference(name))
        return SecretStore("file").read(reference, timeout=5)

    def wrapper(self) -> SecretStore:
        store = SecretStore("file")
        assert store.read(SecretReference.parse(self.reference("key")), timeout=5).value
        return store

    def as_application(self) -> azure_identity.ServicePrincipal:
        become(self.patch, self.azure.service_principal())
        self.values.append(self.azure.reader.secret)
        identity = azure_identity.choose(os.environ)
        assert isinstance(identity, azure_identity.ServicePrincipal)
        return identity

    def tokens(self) -> Tokens:
        tokens = Tokens(self.as_application(), PUBLIC, "azurekv")
        given = tokens.get("https://vault.azure.net", deadline=Deadline(20))
        self.values.append(given.token)
        return tokens

    def error(self, kind: type[BaseException]) -> BaseException:
        """Return an error that was raised near a value, with a cause that shows the value."""
        key = self.key
        try:
            try:
                raise ValueError(key)
            except ValueError:
                raise kind(f"a line of {len(key)} characters") from None
        except kind as error:
            return error


def activation(here: Here) -> mlauth.Activation:
    with (
        here.server() as server,
        mlauth.activate(ZenMLCredentials.of("test", here.zenml(server.url)), timeout=10) as active,
    ):
        return active


def activating(here: Here) -> Activating:
    """Return an activation that will restore an earlier secret."""
    here.patch.setenv("OTHER", here.token)
    credentials = ZenMLCredentials.of("test", here.zenml())
    exports = [
        credentials.exports({"api_key": here.secret().value}, None),
        mlauth.EnvironmentSecrets.of("test", {"env": here.profile["env"]}).exports(
            {"OTHER": here.secret("other").value}, None
        ),
    ]
    result = Activating(exports, check_report(here))
    here.stack.callback(result.undo)
    result.activate(lambda _: None, owner=os.getpid())
    return result


def active(here: Here) -> Any:
    from prefect_mlauth import MLAuthProfile

    here.patch.setenv("OTHER", here.token)
    result = MLAuthProfile(content={"env": here.profile["env"]}).activate()
    here.stack.enter_context(result)
    return result


def vault(here: Here) -> Any:
    here.as_application()
    vault = here.azure.vault()
    vault.put("name", here.other)
    store = stores.new_store("azurekv")
    read = store.read(stores.Place((vault.name, "name")), timeout=10)
    assert read.value.get_secret_value() == here.other
    return store


def store(scheme: str, location: Callable[[Here], str]) -> Callable[[Here], Any]:
    def make(here: Here) -> Any:
        here.patch.setenv("OTHER", here.other)
        memory.put("other", here.other)
        here.stack.callback(memory.clear)
        made = stores.new_store(scheme)
        assert made.read(SecretReference.parse(location(here)).place, timeout=5).value
        return made

    return make


def component(here: Here) -> Any:
    from zenml.enums import StackComponentType

    from zenml_mlauth.alerter import ServiceAccountCheck
    from zenml_mlauth.flavor import ServiceAccountCheckConfig

    now = datetime.now(timezone.utc)
    return ServiceAccountCheck(
        name="check",
        id=uuid4(),
        config=ServiceAccountCheckConfig(profile="p", config_file=here.config()),
        flavor="mlauth",
        type=StackComponentType.ALERTER,
        user=None,
        created=now,
        updated=now,
    )


def asked(here: Here) -> tuple[Service, Answer]:
    with here.server() as server, Service(server.url, Deadline(5)) as service:
        form, auth = {"password": here.key}, Bearer(SecretStr(here.token))
        answer = service.request("POST", "/", data=form, auth=auth, keep=["content-type"])
        assert isinstance(answer, Answer)
        return service, answer


def literal(here: Here) -> Any:
    """Return a block's error for a key in the place of a reference."""
    from prefect_mlauth import ZenMLCredentials as Block

    with pytest.raises(errors.InvalidBlock) as raised:
        Block(store_url="https://zenml.example.com", api_key=here.key)
    return raised.value


def block(name: str, fields: Callable[[Here], Mapping[str, Any]]) -> Callable[[Here], Any]:
    return lambda here: getattr(import_module("prefect_mlauth"), name)(**fields(here))


def suite(system: str, here: Here) -> SystemContract:
    """Return the contract suite of one of our systems, which knows its fields and secrets."""
    found = vars(import_module(f"tests.systems.test_{system}")).values()
    classes = [each for each in found if isclass(each) and issubclass(each, SystemContract)]
    made: SystemContract = next(each for each in classes if vars(each).get("system") == system)()
    made.url = "https://service.example.com"  # type: ignore[attr-defined]  # of a `ServiceContract`
    here.values += made.secrets.values()
    here.stack.callback(memory.clear)
    return made


def login(system: str) -> Callable[[Here], Any]:
    def make(here: Here) -> Any:
        tests = suite(system, here)
        cls = getattr(import_module("prefect_mlauth"), logins.block_name(system))
        return cls(**tests.fields(tests.references()))

    return make


def flavor(here: Here) -> Any:
    from zenml_mlauth import ServiceAccountCheckFlavor

    return ServiceAccountCheckFlavor()


def reader(here: Here) -> Reader:
    made = Reader(Deadline(5))
    made.read_all([SecretReference.parse(here.reference("key"))])
    return made


def check_report(here: Here) -> report.CheckReport:
    return report.CheckReport("test", [here.checked().report])


def zenml_server(here: Here) -> ZenMLServer:
    server = ZenMLServer(here.folder, env={"ZENML_SERVER_PRO_OAUTH2_CLIENT_SECRET": here.other})
    here.values.append(server.admin_password.get_secret_value())
    return server


def ready(here: Here) -> Ready:
    """Return a prepared rotation, which holds the stored key and a token that may rotate it."""
    credentials = ZenMLCredentials.of("test", here.zenml())
    flows = SecretStr("flows")
    server = _Server(credentials, "flows", "/keys", "/keys/1", SecretStr(here.token), flows)
    store = SecretStore("file")
    key, proven = _Key("key", None, None, SecretStr("key")), SecretStr(here.key)
    return Ready(server, store, key, proven, 60, new_key=False, seconds=5)


def refused(*names: str) -> Callable[[Here], Any]:
    def make(here: Here) -> Any:
        with pytest.raises(errors.ResolutionError) as raised:
            mlauth.resolve({name: here.reference(name) for name in names})
        return raised.value

    return make


BUILDERS: dict[str, Callable[[Here], Any]] = {
    "mlauth.azure.identity.ManagedIdentity": lambda here: azure_identity.choose(
        here.azure.environment() | {"AZURE_CLIENT_SECRET": ""}
    ),
    "mlauth.azure.identity.ServicePrincipal": Here.as_application,
    "mlauth.azure.identity.ThisMachine": lambda here: azure_identity.choose({}),
    "mlauth.azure.tokens.Tokens": Here.tokens,
    "mlauth.azure.identity.WorkloadIdentity": lambda here: azure_identity.choose(
        here.azure.workload_identity(here.folder)
    ),
    "mlauth.checking.Checked": Here.checked,
    "mlauth.report.CheckReport": check_report,
    "mlauth.report.Stage": lambda here: check_report(here).results[0].stage,
    "mlauth.report.StageResult": lambda here: check_report(here).results[-1],
    "mlauth.report.Status": lambda here: check_report(here).status,
    "mlauth.report.SystemReport": lambda here: here.checked().report,
    "mlauth.connection.Connection": lambda here: Connection("http://127.0.0.1:9", Deadline(5)),
    "mlauth.stages.Stages": lambda here: Stages(here.checked().report, Deadline(5)),
    "mlauth.systems.Exports": Here.exports,
    "mlauth.systems.Proof": lambda here: here.checked().proof,
    "mlauth.systems.zenml.isolation.Isolation": lambda here: Isolation("https://zenml.example.com"),
    "mlauth.systems.zenml.Administrator": lambda here: Administrator(
        user="admin", password=SecretReference.parse(here.reference("other"))
    ),
    "mlauth.environment.Activating": activating,
    "mlauth.environment.Activation": activation,
    "mlauth.deadline.Deadline": lambda here: Deadline(5),
    "mlauth.errors.CheckFailed": lambda here: errors.CheckFailed(check_report(here)),
    "mlauth.errors.CheckUnknown": lambda here: errors.CheckUnknown(check_report(here)),
    "mlauth.errors.InvalidBlock": literal,
    "mlauth.errors.ResolutionError": refused("absent", "missing"),
    "mlauth.errors.RotationIncomplete": lambda here: errors.RotationIncomplete(
        "a line", datetime.now(timezone.utc)
    ),
    "mlauth.net.faults.Fault": lambda here: faults.connection_fault(
        here.error(socket.gaierror), "host", trust="trust"
    ),
    "mlauth.net.faults.FaultError": lambda here: faults.FaultError(faults.Fault("a line")),
    "mlauth.net.http.Answer": lambda here: asked(here)[1],
    "mlauth.net.http.Basic": lambda here: Basic("user", SecretStr(here.key)),
    "mlauth.net.http.Bearer": lambda here: Bearer(SecretStr(here.token)),
    "mlauth.net.http.Service": lambda here: asked(here)[0],
    "mlauth.never_pickled.NeverPickled": lambda here: NeverPickled(),
    "mlauth.profiles.Profile": lambda here: load_profile("p", here.config()),
    "mlauth.profiles.Settings": lambda here: Settings(profile="p"),
    "mlauth.record.Record": lambda here: activating(here).record,
    "mlauth.masking.MaskingFormatter": lambda here: MaskingFormatter(logging.Formatter()),
    "mlauth.references.SecretReference": lambda here: SecretReference.parse(here.reference("key")),
    "mlauth.resolving.Reader": reader,
    "mlauth.resolving.ResolvedSecret": lambda here: mlauth.resolve(here.reference("key")),
    "mlauth.net.route.Client": lambda here: Client(),
    "mlauth.systems.zenml.rotation.Ready": ready,
    "mlauth.systems.zenml.rotation.Rotation": lambda here: Rotation(
        "flows", "https://url", "key", SecretReference.parse(here.reference("key")), None, None
    ),
    "mlauth.stores.Access": lambda here: SecretStore("file").describe(
        SecretReference.parse(here.reference("key"))
    ),
    "mlauth.storing.SecretStore": lambda here: here.wrapper(),
    "mlauth.stores.Place": lambda here: SecretReference.parse(here.reference("key")).place,
    "mlauth.stores.Grammar": lambda here: stores.grammar("azurekv"),
    "mlauth.stores.StoredSecret": Here.secret,
    "mlauth.stores.azurekv.Store": vault,
    "mlauth.stores.env.Store": store("env", lambda here: "env://OTHER"),
    "mlauth.stores.file.Store": store("file", lambda here: here.reference("other")),
    "mlauth.stores.memory.Store": store("memory", lambda here: "memory://other"),
    "prefect_mlauth.blocks.active.Active": active,
    "prefect_mlauth.blocks.referenced_secret.ReferencedSecret": block(
        "ReferencedSecret", lambda here: {"reference": here.reference("key")}
    ),
    "prefect_mlauth.blocks.azure_key_vault_secret.AzureKeyVaultSecret": block(
        "AzureKeyVaultSecret", lambda here: {"vault": "acme-prod", "name": "token"}
    ),
    "prefect_mlauth.blocks.profile.MLAuthProfile": block(
        "MLAuthProfile", lambda here: {"content": here.profile}
    ),
    "zenml_mlauth.alerter.ServiceAccountCheck": component,
    "zenml_mlauth.flavor.ServiceAccountCheckConfig": lambda here: component(here).config,
    "zenml_mlauth.flavor.ServiceAccountCheckFlavor": flavor,
}
for _system in systems._OURS:
    _cls = systems.load(_system)
    BUILDERS[f"{_cls.__module__}.{_cls.__name__}"] = lambda here, system=_system: suite(
        system, here
    ).make()
for _system in set(systems._OURS) & set(logins.names()):
    BUILDERS[f"prefect_mlauth.blocks.{logins.block_name(_system)}"] = login(_system)

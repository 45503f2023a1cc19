"""Keeps one run of ZenML's client apart from every other on the machine.

ZenML's client writes keys and tokens to `credentials.yaml` and the server's URL to `config.yaml`
in a directory that all processes of a user share, so that two accounts swap identities. Here it
gets a private directory, which never holds a secret, and is told to write no credentials.
Facts: sources of ZenML 0.80.2 and 0.98.0 (`login/credentials_store.py`, `config/global_config.py`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlauth.net.route import Client

CONFIG_PATH = "ZENML_CONFIG_PATH"
LOCAL_STORES_PATH = "ZENML_LOCAL_STORES_PATH"
# Without the ZENML_ prefix; the prefixed name has no effect.
NO_DISK = "DISABLE_CREDENTIALS_DISK_CACHING"
VERIFY_SSL = "ZENML_STORE_VERIFY_SSL"
CLIENT = Client(
    "ZenML's client",
    "ca_bundle or ZENML_STORE_VERIFY_SSL",
    "give the CA as ca_bundle (ZENML_STORE_VERIFY_SSL=false is not honoured)",
)

# Of the user's configuration what is no secret and not about another server.
_KEPT = ("user_id", "analytics_opt_in", "user_email_opt_in", "container_engine", "version")
_KEPT_FOR_SAME_SERVER = ("active_stack_id", "active_project_id")


@dataclass(frozen=True)
class Isolation:
    """The scope of ZenML's client; see `mlauth.systems.Scope`.

    Attributes:
        store_url: the server that the client will use.
        trusts_run: whether it is to trust what the run trusts (`mlauth.trust`), and not what
            `ZENML_STORE_VERIFY_SSL` says: a bundle that is named there is copied to one file, which
            so becomes the trust of every other run.
    """

    store_url: str
    trusts_run: bool = False

    def enter(self, folder: str) -> dict[str, str]:
        """Make a configuration directory in the run's folder; see `Scope.enter`."""
        before = _config_directory()
        kept = _kept_settings(before, self.store_url)
        stores = os.environ.get(LOCAL_STORES_PATH) or str(before / "local_stores")
        private = Path(folder, "zenml")
        private.mkdir(mode=0o700)
        if kept:
            # JSON is YAML.
            (private / "config.yaml").write_text(json.dumps(kept), encoding="utf-8")
        variables = {CONFIG_PATH: str(private), LOCAL_STORES_PATH: stores, NO_DISK: "true"}
        if self.trusts_run and VERIFY_SSL in os.environ:
            variables[VERIFY_SSL] = "true"
        return variables

    def keep(self) -> Callable[[], None]:
        """Keep what ZenML, where it is imported, has of its configuration and its client.

        Returns:
            See `Scope.keep`; a client that was made meanwhile is forgotten.
        """
        before = {name: get() for name, (get, _) in _singletons().items()}
        return lambda: _set_client(before)

    def swap(self) -> None:
        """Make ZenML, where it is imported already, read its configuration anew."""
        _set_client({})


def _config_directory() -> Path:
    configured = os.environ.get(CONFIG_PATH)
    if configured:
        try:
            return Path(configured).resolve()
        except (OSError, RuntimeError):  # the working directory was deleted; links in a circle
            return Path(configured)
    from click import get_app_dir  # what ZenML itself calls

    return Path(get_app_dir("zenml"))


def _kept_settings(directory: Path, store_url: str) -> dict[str, Any]:
    """Return what the user chose in the shared configuration, such as to send no analytics."""
    try:
        import yaml  # comes with ZenML, which wrote the file
    except ImportError:
        return {}
    try:
        content = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(content, dict):
        return {}
    store = content.get("store")
    same = isinstance(store, dict) and str(store.get("url", "")).rstrip("/") == store_url
    names = _KEPT + (_KEPT_FOR_SAME_SERVER if same else ())
    kept = {name: content[name] for name in names if name in content}
    return {name: value for name, value in kept.items() if isinstance(value, (str, bool))}


def _set_client(instances: dict[str, Any]) -> None:
    for name, (_, put) in _singletons().items():
        put(instances.get(name))


def _singletons() -> dict[str, tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Return what reads and what sets each singleton of ZenML's client.

    `CredentialsStore.reset_instance` would delete the user's file, and
    `GlobalConfiguration._reset_instance` write it: so the instances are only swapped.
    """
    found: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}
    for module, name, attribute in (
        ("zenml.config.global_config", "GlobalConfiguration", "_global_config"),
        ("zenml.client", "Client", "_global_client"),
    ):
        cls = getattr(sys.modules.get(module), name, None)
        if cls is not None:
            found[name] = partial(getattr, cls, attribute), partial(setattr, cls, attribute)
    store = getattr(sys.modules.get("zenml.login.credentials_store"), "CredentialsStore", None)
    if store is not None:
        found["CredentialsStore"] = store._instance, store._clear  # noqa: SLF001 - no public way
    return found

"""Keeps ZenML's client in one run apart from every other run on the machine.

ZenML's client writes keys and tokens to `credentials.yaml` and the server's URL to `config.yaml`.
All processes of a user share the directory of these files, so two accounts can swap identities.
Here the client gets a private directory, which never holds a secret, and writes no credentials.
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
# This variable has no ZENML_ prefix; with the prefix, it would have no effect.
NO_DISK = "DISABLE_CREDENTIALS_DISK_CACHING"
VERIFY_SSL = "ZENML_STORE_VERIFY_SSL"
CLIENT = Client(
    "ZenML's client",
    "ca_bundle or ZENML_STORE_VERIFY_SSL",
    "give the CA as ca_bundle (ZENML_STORE_VERIFY_SSL=false is not honoured)",
)

# These settings of the user's configuration are copied: no secrets, and nothing of other servers.
_KEPT = ("user_id", "analytics_opt_in", "user_email_opt_in", "container_engine", "version")
_KEPT_FOR_SAME_SERVER = ("active_stack_id", "active_project_id")


@dataclass(frozen=True)
class Isolation:
    """The scope of ZenML's client; see `mlauth.systems.Scope`.

    Attributes:
        store_url: the server that the client will use.
        trusts_run: whether the client trusts the CAs of the run (`mlauth.trust`) and ignores
            `ZENML_STORE_VERIFY_SSL`. The client would copy a CA bundle from that variable into a
            file that all runs share.
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
        """Remember the configuration and client objects of ZenML, if it is imported.

        Returns:
            See `Scope.keep`; it forgets a client that was made later.
        """
        before = {name: get() for name, (get, _) in _singletons().items()}
        return lambda: _set_client(before)

    def swap(self) -> None:
        """Make ZenML, if it is imported already, read its configuration again."""
        _set_client({})


def _config_directory() -> Path:
    configured = os.environ.get(CONFIG_PATH)
    if configured:
        try:
            return Path(configured).resolve()
        except (OSError, RuntimeError):  # a deleted working directory, or links in a circle
            return Path(configured)
    from click import get_app_dir  # ZenML calls it, too

    return Path(get_app_dir("zenml"))


def _kept_settings(directory: Path, store_url: str) -> dict[str, Any]:
    """Return the user's choices in the shared configuration, such as no analytics."""
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
    """Return, for each singleton of ZenML's client, a function that reads and one that sets it.

    The instances are only swapped: `CredentialsStore.reset_instance` would delete the user's file,
    and `GlobalConfiguration._reset_instance` would write it.
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

"""Keeps one run of ZenML's client apart from every other on the machine.

ZenML's client writes keys and tokens to `credentials.yaml` and the server's URL to `config.yaml`
in a directory that all processes of a user share, so that two accounts swap identities. Here it
gets a private directory, which never holds a secret, and is told to write no credentials.
Facts: sources of ZenML 0.80.2 and 0.98.0 (`login/credentials_store.py`, `config/global_config.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlauth.errors import ActivationError

CONFIG_PATH = "ZENML_CONFIG_PATH"
LOCAL_STORES_PATH = "ZENML_LOCAL_STORES_PATH"
# Without the ZENML_ prefix; the prefixed name has no effect.
NO_DISK = "DISABLE_CREDENTIALS_DISK_CACHING"
VERIFY_SSL = "ZENML_STORE_VERIFY_SSL"

_FOLDER = re.compile(r"mlauth-(?P<place>\w+)\.(?P<pid>\d+)\.(?P<began>\d+)\.\w+\Z")
_KIND = rb"(?:TRUSTED |X509 )?CERTIFICATE-----"
_CERTIFICATE = re.compile(rb"-----BEGIN %b.+?-----END %b" % (_KIND, _KIND), re.DOTALL)
# Of the user's configuration what is no secret and not about another server.
_KEPT = ("user_id", "analytics_opt_in", "user_email_opt_in", "container_engine", "version")
_KEPT_FOR_SAME_SERVER = ("active_stack_id", "active_project_id")


def isolate(store_url: str, owner: int, ca: str | None = None) -> tuple[str, dict[str, str]]:
    """Make a private directory for ZenML's client.

    Args:
        store_url: the server that the client will use.
        owner: the process that lives as long as the directory is needed.
        ca: the CA bundle, path or PEM text, that the client is to trust, if it is not the usual.

    Returns:
        The directory, and the variables that make the client use it.

    Raises:
        ActivationError: there is no place for it.
    """
    before = _config_directory()
    kept = _kept_settings(before, store_url)
    stores = os.environ.get(LOCAL_STORES_PATH) or str(before / "local_stores")
    variables = {LOCAL_STORES_PATH: stores, NO_DISK: "true"}
    if ca is not None:
        variables[VERIFY_SSL] = _keep_certificates(ca, stores)
    try:
        sweep()
        # Python before 3.12 leaves it relative where TMPDIR is "."; Prefect changes the directory.
        folder = os.path.abspath(
            tempfile.mkdtemp(prefix=f"mlauth-{_place()}.{owner}.{_began(owner) or 0}.")
        )
        if kept:
            # JSON is YAML.
            Path(folder, "config.yaml").write_text(json.dumps(kept), encoding="utf-8")
    except OSError as error:
        raise ActivationError(
            f"no private directory can be made for ZenML's client: {error.strerror}: give the "
            "worker or the container a directory that this user may write to, and name it in TMPDIR"
        ) from None
    return folder, {CONFIG_PATH: folder, **variables}


def _keep_certificates(ca: str, stores: str) -> str:
    """Keep a CA bundle where ZenML's client takes it as it is, in a file named after its content.

    Any other bundle the client copies to one file, which so becomes the trust of every other run.
    """
    folder = Path(stores, "certificates")
    try:
        bundle = ca.encode() if "-----BEGIN" in ca else Path(ca).read_bytes()
        # Nothing else: somebody may keep a private key in the same file.
        content = b"\n".join([*_CERTIFICATE.findall(bundle), b""])
        file = folder / f"mlauth-{hashlib.sha256(content).hexdigest()[:32]}.pem"
        if not file.is_file() or file.read_bytes() != content:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(content)
                os.replace(temporary, file)  # whole, for a client that reads it meanwhile
            finally:
                Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise ActivationError(
            f"the CA bundle cannot be kept for ZenML's client in {folder}: {error.strerror}: give "
            f"the run a directory that this user may write to, and name it in {LOCAL_STORES_PATH}"
        ) from None
    return str(file)


def remove(folder: str) -> None:
    """Remove a private directory, if it is one and still there: a record may name anything."""
    if _FOLDER.match(os.path.basename(folder)):
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove the private directories of this user whose owners are dead (after a kill)."""
    try:
        with os.scandir(tempfile.gettempdir()) as entries:
            # Another container that shares the temporary directory has process ids of its own.
            found = [
                (entry, match)
                for entry in entries
                if (match := _FOLDER.match(entry.name)) and match["place"] == _place()
            ]
    except PermissionError:
        return  # what may not be listed may still be written to
    for entry, match in found:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # swept by another process meanwhile
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        # A process that began at another time only has the owner's number.
        alive = _began(int(match["pid"])) in (match["began"], None)
        if stat.S_ISDIR(status.st_mode) and ours and not alive:
            remove(entry.path)


def _began(pid: int) -> str | None:
    """Return when a process began, in units of the system that no step of the clock changes.

    Returns:
        Digits, the same for as long as the process lives; an empty text if it has ended, even if
        its parent has not noticed; None if this user may not know.
    """
    try:
        # proc(5): after the name in brackets the third field, the state, and the 22nd, the time
        # in ticks since the machine started.
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):
            return ""
    except PermissionError:
        return None
    import psutil  # where there is no /proc

    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return "" if ended else str(int(process.create_time() * 1000))
    except psutil.NoSuchProcess:
        return ""
    except psutil.AccessDenied:
        return None


def _place() -> str:
    """Return what tells this machine's (or container's) process ids and times from another's."""
    names = [socket.gethostname()]
    for kind in ("pid", "time"):
        try:
            names.append(os.readlink(f"/proc/self/ns/{kind}"))
        except OSError:
            names.append("")
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]


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


def keep_client() -> Callable[[], None]:
    """Keep what ZenML, where it is imported, has of its configuration and its client.

    Returns:
        Puts everything back as it was; a client that was made meanwhile is forgotten. May be
        called again.
    """
    before = {name: get() for name, (get, _) in _singletons().items()}

    def put_back() -> None:
        _set_client(before)

    return put_back


def forget_client() -> Callable[[], None]:
    """Make ZenML, where it is imported already, read its configuration anew.

    Returns:
        As `keep_client`.
    """
    put_back = keep_client()
    _set_client({})
    return put_back


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

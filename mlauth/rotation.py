"""Gives the service account of a profile a new API key, in an order in which no key is lost.

The stored key is proven, and the store is proven writable: that key is written to it once more.
Then the server rotates the key and keeps the old value for a while, the new value is stored, read
back, and proven. ZenML's part is `PUT /api/v1/service_accounts/{id}/api_keys/{id}/rotate` (0.80.2
to 0.98.0), which keeps one old value: a second rotation ends it at once.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from mlauth import redaction
from mlauth.activation import as_one
from mlauth.checking import DEFAULT_FILE, examine
from mlauth.checks import CheckReport, StageFailed, is_unknown
from mlauth.credentials.zenml import (
    API_TOKEN,
    Administrator,
    ZenMLCredentials,
    ca_of,
    current_user,
    key_problem,
    log_in,
    probe_server,
)
from mlauth.deadline import Deadline
from mlauth.errors import (
    InvalidCredentials,
    InvalidProfile,
    MLAuthError,
    RotationFailed,
    RotationIncomplete,
)
from mlauth.faults import plain
from mlauth.http import Answer, Service
from mlauth.never_pickled import NeverPickled
from mlauth.profiles import Profile, load_profile
from mlauth.references import SecretReference
from mlauth.resolving import read_all
from mlauth.signals import uninterrupted
from mlauth.stores import WritableStore, new_store, schemes

DAY = 24 * 60
_MOST_MINUTES = 365 * DAY


@dataclass(frozen=True)
class Rotation:
    """What a rotation did.

    Attributes:
        account: the service account.
        server_url: the ZenML server.
        key_name: the name of the API key that is stored now.
        reference: where it is stored.
        version: the store's name for the new version, where it has versions.
        old_key_until: until when the old value works (UTC); None where nothing ended.
    """

    account: str
    server_url: str
    key_name: str
    reference: SecretReference
    version: str | None
    old_key_until: datetime | None

    def __str__(self) -> str:
        version = f" (version {self.version})" if self.version else ""
        old = (
            f"the old key works until {_utc(self.old_key_until)}"
            if self.old_key_until
            else "no key was ended: delete the old one when nothing uses it any more"
        )
        return (
            f"service account {self.account!r} on {self.server_url} has a new value of its API "
            f"key {self.key_name!r}, stored in {self.reference}{version} and proven; {old}"
        )


def rotate_zenml(
    profile: str | Profile,
    *,
    retain_minutes: int = DAY,
    new_key: bool = False,
    timeout: float = 30.0,
    config: str = DEFAULT_FILE,
) -> Rotation:
    """Rotate the API key of a profile's ZenML service account.

    Whatever goes wrong, no key is lost: the new value is shown to nobody, and until it is stored
    the old one works. Ctrl-C and SIGTERM are held back from the rotation to the end (in other
    threads than the main one Python cannot do that).

    Args:
        profile: its name, or the profile. Its key must be in a store that mlauth can write to.
        retain_minutes: how long the old value works beside the new one: longer than runs last.
        new_key: make a second API key in place of rotating the one that is stored; ends nothing.
        timeout: seconds for everything up to the rotation, and again for everything after it.
        config: the file of the profiles, for a name.

    Returns:
        What was done, without secrets.

    Raises:
        RotationIncomplete: the key was rotated, but the new value is not stored or not proven;
            the message says until when the old one works, and what to do.
        MLAuthError: nothing was rotated; as for `mlauth.check` and `mlauth.resolve`.
    """
    ready = prepare_zenml(
        profile, retain_minutes=retain_minutes, new_key=new_key, timeout=timeout, config=config
    )
    with uninterrupted():
        return ready.rotate()


def prepare_zenml(
    profile: str | Profile,
    *,
    retain_minutes: int = DAY,
    new_key: bool = False,
    timeout: float = 30.0,
    config: str = DEFAULT_FILE,
) -> Ready:
    """Prove that a rotation can be made; see `rotate_zenml`."""
    if not 1 <= retain_minutes <= _MOST_MINUTES:
        raise InvalidCredentials(
            f"retain: {retain_minutes} is not 1 to {_MOST_MINUTES:,} minutes; the old key must "
            "work until the new one is stored, and for as long as runs that have it may log in"
        )
    title = f"profile {profile!r} of {config}" if isinstance(profile, str) else "the profile"
    loaded = load_profile(profile, config) if isinstance(profile, str) else profile
    if loaded.zenml is None:
        raise InvalidProfile(f"{title} has no [zenml], so no key to rotate")
    deadline = Deadline(timeout)
    return deadline.run(
        lambda: _prepare(loaded, retain_minutes, new_key, timeout, deadline.inner()),
        f"the rotation of the key of {title} was not begun",
    )


@dataclass(frozen=True)
class _Key:
    """What the server says of an API key."""

    name: str
    last_rotated: str | None
    old_value_until: datetime | None
    real_name: SecretStr  # unmasked and whole, where another key is named after it


@dataclass(frozen=True)
class _Server:
    """The server, as somebody who may rotate the account's keys."""

    credentials: ZenMLCredentials
    account: str
    keys: str  # the path of the account's API keys
    key: str  # and of the one that is stored
    token: SecretStr
    real_name: SecretStr  # the account's name unmasked, for comparisons

    def ask(
        self, method: str, path: str, deadline: Deadline, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Ask; what changes something is never asked twice."""
        url = self.credentials.store_url
        with Service(url, deadline, ca=_ca(self.credentials)) as service:
            token = self.token.get_secret_value()
            return service.request(method, path, json=body, token=token, once=body is not None)

    def look(self, deadline: Deadline) -> _Key:
        answer = self.ask("GET", self.key, deadline)
        content = answer.body if isinstance(answer.body, dict) else {}
        try:
            metadata = content["metadata"]
            rotated, minutes = metadata["last_rotated"], metadata["retain_period_minutes"]
            until = _after(rotated, minutes) if rotated else None
            name = SecretStr(content["name"])
            return _Key(plain(content["name"]), rotated, until, name)
        except (TypeError, KeyError, ValueError, OverflowError):
            raise RotationFailed(
                f"{self.credentials.store_url} does not show the API key of {self.account!r} "
                f"(HTTP {answer.status}): whoever rotates it must be allowed to see it"
            ) from None


@dataclass(frozen=True)
class Ready(NeverPickled):
    """A rotation that nothing is known to stand in the way of."""

    server: _Server
    store: WritableStore
    key: _Key
    minutes: int
    new_key: bool
    seconds: float

    def rotate(self) -> Rotation:
        """Rotate, store the new value, and prove it; see `rotate_zenml`. Not to be interrupted."""
        asked = datetime.now(timezone.utc)
        if self.new_key:
            name, until = f"{self.key.name}-{asked:%Y%m%d-%H%M%S}", self.key.old_value_until
        else:
            name, until = self.key.name, asked + timedelta(minutes=self.minutes)
        value, changed = self._new_value(name, until)
        redaction.register([value.get_secret_value()])
        version = self._stored(value, until)
        self._proven(value, changed, until)
        credentials = self.server.credentials
        return Rotation(
            self.server.account,
            credentials.store_url,
            name,
            credentials.api_key,
            version,
            None if self.new_key else until,
        )

    def _new_value(self, name: str, until: datetime | None) -> tuple[SecretStr, object]:
        """Return the new value, and when the server says that it was made."""
        method, path = "PUT", f"{self.server.key}/rotate"
        body: dict[str, Any] = {"retain_period_minutes": self.minutes}
        if self.new_key:
            method, path = "POST", self.server.keys
            real_name = self.key.real_name.get_secret_value() + name.removeprefix(self.key.name)
            body = {"name": real_name, "description": "made by mlauth"}
        deadline = Deadline(self.seconds)
        url, account = self.server.credentials.store_url, self.server.account
        try:
            answer = deadline.run(
                lambda: self.server.ask(method, path, deadline.inner(), body), f"{url}{path}"
            )
        except MLAuthError as error:
            if not is_unknown(error):
                raise RotationFailed(str(error)) from None  # it never reached the server
            raise self._without_answer(error, name, until) from None
        content = answer.body.get("body") if isinstance(answer.body, dict) else None
        content = content if isinstance(content, dict) else {}
        value = content.get("key")
        if answer.status == 200 and isinstance(value, str) and key_problem(value) is None:
            return SecretStr(value), content.get("updated")
        if answer.status in (401, 403):
            raise RotationFailed(
                f"{url} does not let its caller rotate API keys of {account!r} (HTTP "
                f"{answer.status}): where roles do not allow that, only an administrator may; "
                "give the profile [zenml_admin] with user and password (a reference)"
            )
        if answer.status >= 400:
            raise RotationFailed(
                f"{url} answers {answer.status} to the rotation of {account!r}'s API key {name!r}"
            )
        raise self._without_answer(
            RotationFailed(f"{url} answers with {answer.content_type} without a key"), name, until
        )

    def _without_answer(self, error: MLAuthError, name: str, until: datetime | None) -> MLAuthError:
        """Find out what a request did whose answer did not come."""
        if self.new_key:
            return type(error)(
                f"{error}; the stored key is as before, but there may be an API key {name!r} now, "
                "which nobody knows: delete it"
            )
        try:
            if self.server.look(Deadline(self.seconds)).last_rotated == self.key.last_rotated:
                return error
        except MLAuthError:
            may = "may have been rotated"
        else:
            may = "was rotated"
        return self._incomplete(
            f"{may}, but the answer with the new value was lost: {error}", until
        )

    def _stored(self, value: SecretStr, until: datetime | None) -> str | None:
        """Store the value and read it back: a write without an answer may have been made."""
        reference, deadline = self.server.credentials.api_key, Deadline(self.seconds)
        why: MLAuthError | None = None
        try:
            deadline.run(
                lambda: self.store.write(reference, value, timeout=deadline.remaining()),
                f"{reference} cannot be written",
            )
        except MLAuthError as error:
            why = error
        try:
            found = read_all([reference], Deadline(self.seconds))[reference]
        except MLAuthError as error:
            why = why or error
        else:
            if found.value == value:
                return found.version
            why = why or RotationFailed(
                f"{reference} holds another value: does somebody else write to it?"
            )
        raise self._incomplete(f"{self._done}, but the new value is not stored: {why}", until)

    def _proven(self, value: SecretStr, changed: object, until: datetime | None) -> None:
        credentials, deadline = self.server.credentials, Deadline(self.seconds)

        def prove() -> None:
            probe_server(
                credentials.store_url,
                CheckReport("the new key"),
                deadline.inner(),
                ca=_ca(credentials),
                key=value,
                service_account=self.server.real_name.get_secret_value(),
            )
            if not self.new_key and self.server.look(deadline.inner()).last_rotated != changed:
                raise RotationFailed("somebody else rotated it at the same time")

        try:
            deadline.run(prove, f"{credentials.store_url} with the new value")
        except MLAuthError as error:
            raise self._incomplete(
                f"{self._done} and the new value is stored, but not proven: {error}", until
            ) from None

    @property
    def _done(self) -> str:
        return "has a second one beside it" if self.new_key else "was rotated"

    def _incomplete(self, what: str, until: datetime | None) -> RotationIncomplete:
        reference = self.server.credentials.api_key
        end = f"works until {_utc(until)}" if until else "goes on working"
        return RotationIncomplete(
            f"API key {self.key.name!r} of service account {self.server.account!r} {what}. The old "
            f"value {end}: put that right, see with `mlauth check` whether {reference} works, and "
            "if in doubt rotate once more with --new-key (new_key=True), which ends no key",
            until,
        )


def _prepare(
    profile: Profile, minutes: int, new_key: bool, seconds: float, deadline: Deadline
) -> Ready:
    credentials = profile.zenml
    assert credentials is not None
    store = writable(credentials.api_key)
    bare = {"credential": "api_token", "stack": None, "project": None}
    examination = examine(credentials.model_copy(update=bare), deadline)
    if examination.errors:
        raise as_one(list(examination.errors.values()), examination.report)
    value = examination.values["zenml"]["api_key"]
    token = examination.exports["zenml"].secrets[API_TOKEN]
    content = json.loads(base64.b64decode(value.get_secret_value().partition("_")[2]))
    with Service(credentials.store_url, deadline, ca=_ca(credentials)) as service:
        account = current_user(service, token, credentials.service_account)
        if profile.zenml_admin:
            token = _administrator(service, profile.zenml_admin, deadline)
    keys = f"/api/v1/service_accounts/{quote(str(account['id']), safe='')}/api_keys"
    path = f"{keys}/{quote(str(content['id']), safe='')}"
    server = _Server(credentials, account["name"], keys, path, token, account["real_name"])
    key = server.look(deadline)
    if key.old_value_until and not new_key:
        raise RotationFailed(
            f"API key {key.name!r} of service account {account['name']!r} was rotated before, and "
            f"its old value works until {_utc(key.old_value_until)}, which a second rotation would "
            "end at once: wait until then, or, if that rotation could not store the new value, "
            "rotate with --new-key (new_key=True), which ends no key"
        )
    store.write(credentials.api_key, value, timeout=deadline.remaining())
    return Ready(server, store, key, minutes, new_key, seconds)


def _administrator(service: Service, who: Administrator, deadline: Deadline) -> SecretStr:
    password = read_all([who.password], deadline)[who.password].value
    try:
        return log_in(service, who.user, password)
    except StageFailed as error:
        raise RotationFailed(
            f"administrator {who.user!r} (zenml_admin) cannot log in: {error}"
        ) from None


def writable(reference: SecretReference) -> WritableStore:
    """Return the store to write a reference to, or refuse what cannot be written."""
    store = new_store(reference.scheme)
    if not isinstance(store, WritableStore):
        known = [scheme for scheme in schemes() if isinstance(new_store(scheme), WritableStore)]
        raise InvalidCredentials(
            f"{reference} cannot be rotated: mlauth writes to {' and '.join(known)} only; keep the "
            "key there, or rotate it by hand (zenml service-account api-key … rotate --retain …)"
        )
    if reference.key is not None:
        raise InvalidCredentials(
            f"{reference} cannot be rotated: the secret holds more than the key; give it a secret "
            "of its own"
        )
    if reference.query:
        raise InvalidCredentials(
            f"{reference} cannot be rotated: it names one version for good; leave '?' and what "
            "follows away"
        )
    return store


def _ca(credentials: ZenMLCredentials) -> str | None:
    return credentials.ca_bundle or ca_of(os.environ)


def _after(rotated: str, minutes: int) -> datetime | None:
    """Return when an old value ends, if it has not; ZenML's times are UTC without saying so."""
    end = datetime.fromisoformat(rotated).replace(tzinfo=timezone.utc) + timedelta(minutes=minutes)
    return end if end > datetime.now(timezone.utc) else None


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"

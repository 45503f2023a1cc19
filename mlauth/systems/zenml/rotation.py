"""Gives the service account of a profile a new API key, in an order in which no key is lost.

First the stored key is proven, and the store is proven writable; neither changes a value. Then the
server rotates the key, and keeps the old value for a while. The new value is stored, read back, and
proven. ZenML's request is `PUT /api/v1/service_accounts/{id}/api_keys/{id}/rotate` (0.80.2 to
0.98.0). ZenML keeps only one old value, so a second rotation ends it at once. Therefore a rotation
looks again right before this request and before each write, and if two rotations run at the same
time, only the one with the newer value writes.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, SecretStr

from mlauth import masking
from mlauth.connection import Connection
from mlauth.deadline import Deadline
from mlauth.errors import (
    InvalidCredentials,
    MLAuthError,
    RotationFailed,
    RotationIncomplete,
    StageFailed,
    is_unknown,
)
from mlauth.net.http import Answer, Bearer
from mlauth.never_pickled import NeverPickled
from mlauth.record import environment
from mlauth.references import SecretReference
from mlauth.report import SystemReport
from mlauth.resolving import read_all, refuse_hosts
from mlauth.stages import Stages
from mlauth.stores import usable
from mlauth.storing import SecretStore
from mlauth.systems import Proof
from mlauth.systems.zenml import Administrator, ZenMLCredentials, key_problem
from mlauth.systems.zenml.server import connect, current_user, log_in, prove_server
from mlauth.text import plain
from mlauth.trust import certificates

_MOST_MINUTES = 365 * 24 * 60
_SETTLING = 2.0  # seconds that a server gets to finish a request whose answer was lost
# With these statuses, a server or proxy gave up waiting. The request may have been done or not.
_GAVE_UP = (408, 499)


@dataclass(frozen=True)
class Rotation:
    """The result of a rotation.

    Attributes:
        account: the service account.
        server_url: the ZenML server.
        key_name: the name of the API key that is stored now.
        reference: where it is stored.
        version: the store's name for the new version, if it has versions.
        old_key_until: when the old value ends (UTC); None if it does not end.
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


class _Overtaken(RotationFailed):
    """Somebody else rotated the key after us, and that ended the value that was stored before."""


@dataclass(frozen=True)
class _Key:
    """An API key as the server describes it."""

    name: str
    last_rotated: str | None
    old_value_until: datetime | None
    real_name: SecretStr  # unmasked and whole; a second key is named after it


@dataclass(frozen=True)
class _Server:
    """The server, asked with a token that may rotate the account's keys."""

    credentials: ZenMLCredentials
    account: str
    keys: str  # the path of the account's API keys
    key: str  # the path of the stored API key
    token: SecretStr
    real_name: SecretStr  # the account's name unmasked, for comparisons

    def ask(
        self, method: str, path: str, deadline: Deadline, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Send a request. A request that changes something is never sent again."""
        with _connect(self.credentials, deadline) as service:
            auth = Bearer(self.token)
            return service.request(method, path, json=body, auth=auth, once=body is not None)

    def look(self, deadline: Deadline) -> _Key:
        answer = self.ask("GET", self.key, deadline)
        content = answer.json if isinstance(answer.json, dict) else {}
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
    """A rotation that is prepared: as far as anyone can know before, it will work."""

    server: _Server
    store: SecretStore
    key: _Key
    proven: SecretStr
    minutes: int
    new_key: bool
    seconds: float

    def rotate(self) -> Rotation:
        """Rotate, store the new value, and prove it; see `mlauth.rotating.Ready`."""
        asked = _now()
        if self.new_key:
            name, until = f"{self.key.name}-{asked:%Y%m%d-%H%M%S}", self.key.old_value_until
        else:
            name, until = self.key.name, asked + timedelta(minutes=self.minutes)
        value, changed = self._new_value(name, until)
        masking.register([value.get_secret_value()])
        version = self._stored(value, changed, until)
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
        """Make the new value; return it, and when the server made it."""
        method, path = "PUT", f"{self.server.key}/rotate"
        body: dict[str, Any] = {"retain_period_minutes": self.minutes}
        if self.new_key:
            method, path = "POST", self.server.keys
            real_name = self.key.real_name.get_secret_value() + name.removeprefix(self.key.name)
            body = {"name": real_name, "description": "made by mlauth"}
        deadline = Deadline(self.seconds)
        url, account = self.server.credentials.store_url, self.server.account
        where = f"{url}{path}"
        deadline.run(lambda: self._as_it_was(deadline.inner()), where)
        try:
            answer = deadline.run(
                lambda: self.server.ask(method, path, deadline.inner(), body), where
            )
        except MLAuthError as error:
            if not getattr(error, "sent", True):
                # The request never reached the server.
                raise error if is_unknown(error) else RotationFailed(str(error)) from None
            lost = error
        else:
            made = _made(answer)
            if made is not None:
                return made
            lost = RotationFailed(
                f"{url} answers {answer.status} with {answer.content_type} without a key"
            )
            if _is_refusal(answer):
                if answer.status not in (401, 403):
                    raise RotationFailed(
                        f"{url} answers {answer.status} to the rotation of {account!r}'s API key "
                        f"{name!r}"
                    )
                raise RotationFailed(
                    f"{url} does not let its caller rotate API keys of {account!r} (HTTP "
                    f"{answer.status}): where roles do not allow that, only an administrator may; "
                    "give the profile [zenml_admin] with user and password (a reference)"
                )
        raise self._without_answer(
            lost, name, until, under_way=not deadline.inner().remaining()
        ) from None

    def _as_it_was(self, deadline: Deadline) -> None:
        """Raise an error if somebody else has changed the key or the store meanwhile."""
        reference = self.server.credentials.api_key
        if read_all([reference], deadline)[reference].value != self.proven:
            raise RotationFailed(
                f"{reference} holds another value than a moment ago: does somebody else rotate "
                "it? If not, try again"
            )
        if self.server.look(deadline).last_rotated != self.key.last_rotated:
            raise RotationFailed(
                f"somebody else rotated API key {self.key.name!r} of service account "
                f"{self.server.account!r} a moment ago: see with `mlauth check` whether "
                f"{reference} works"
            )

    def _without_answer(
        self, error: MLAuthError, name: str, until: datetime | None, *, under_way: bool
    ) -> MLAuthError:
        """Find out if a request without an answer rotated the key; return the error to raise."""
        if self.new_key:
            return type(error)(
                f"{error}; the stored key is as before, but there may be an API key {name!r} now, "
                "which nobody knows: delete it"
            )
        deadline = Deadline(self.seconds)

        def rotated() -> bool:
            before = self.key.last_rotated
            if self.server.look(deadline.inner()).last_rotated != before:
                return True
            time.sleep(min(_SETTLING, deadline.remaining() / 2))
            return self.server.look(deadline.inner()).last_rotated != before

        try:
            if deadline.run(rotated, self.server.credentials.store_url):
                may = "was rotated"
            elif under_way:  # the server may still do it
                may = "may have been rotated"
            else:
                return error
        except MLAuthError:
            may = "may have been rotated"
        return self._incomplete(
            f"{may}, but the answer with the new value was lost: {error}", until
        )

    def _stored(self, value: SecretStr, changed: object, until: datetime | None) -> str | None:
        """Store the value and read it back: a write without an answer may still have worked."""
        reference, deadline = self.server.credentials.api_key, Deadline(self.seconds)

        def write() -> None:
            self.store.write(
                reference,
                value,
                timeout=deadline.inner().remaining(),
                before=lambda: self._may_write(changed, deadline.inner()),
            )

        why: MLAuthError | None = None
        try:
            deadline.run(write, f"{reference} cannot be written")
        except _Overtaken as error:
            raise self._incomplete(
                f"{self._done}, but the new value is not stored: {error}", _now()
            ) from None
        except MLAuthError as error:
            why = error
        under_way = why is not None and is_unknown(why)
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
        yet = "; that write may still be made" if under_way else ""
        raise self._incomplete(f"{self._done}, but the new value is not stored: {why}{yet}", until)

    def _may_write(self, changed: object, deadline: Deadline) -> None:
        """Raise an error unless the stored value is older than the new one, before a write."""
        reference, newest = self.server.credentials.api_key, False
        if not self.new_key:
            try:
                rotated = self.server.look(deadline).last_rotated
            except MLAuthError as error:
                if not is_unknown(error):
                    raise
            else:
                if rotated != changed:
                    raise _Overtaken("somebody else rotated it at the same time")
                newest = True
        stored = self.store.read(reference, timeout=deadline.remaining()).value
        if stored != self.proven and not (newest and _id_of(stored) == _id_of(self.proven)):
            raise RotationFailed(
                f"{reference} holds another value: does somebody else write to it?"
            )

    def _proven(self, value: SecretStr, changed: object, until: datetime | None) -> None:
        credentials, deadline = self.server.credentials, Deadline(self.seconds)

        def prove() -> None:
            prove_server(
                credentials.store_url,
                Stages(
                    SystemReport("zenml", "ZenML"),
                    deadline.inner(),
                    insecure=credentials.insecure,
                ),
                ca=_ca(credentials),
                key=value,
                service_account=self.server.real_name.get_secret_value(),
            )
            if not self.new_key and self.server.look(deadline.inner()).last_rotated != changed:
                raise _Overtaken("somebody else rotated it at the same time")

        try:
            deadline.run(prove, f"{credentials.store_url} with the new value")
        except MLAuthError as error:
            raise self._incomplete(
                f"{self._done} and the new value is stored, but not proven: {error}",
                _now() if isinstance(error, _Overtaken) else until,
            ) from None

    @property
    def _done(self) -> str:
        return "has a second one beside it" if self.new_key else "was rotated"

    def _incomplete(self, what: str, until: datetime | None) -> RotationIncomplete:
        reference = self.server.credentials.api_key
        end = f"works until {_utc(until)}" if until else "goes on working"
        if until and until <= _now():
            end = "has ended"
        return RotationIncomplete(
            f"API key {self.key.name!r} of service account {self.server.account!r} {what}. The old "
            f"value {end}: put that right, see with `mlauth check` whether {reference} works, and "
            "if in doubt rotate once more with --new-key (new_key=True), which ends no key",
            until,
        )


def prepare(
    credentials: ZenMLCredentials,
    parts: Mapping[str, BaseModel],
    prove: Callable[[ZenMLCredentials], tuple[Mapping[str, SecretStr], Proof]],
    deadline: Deadline,
    *,
    retain_minutes: int,
    new_key: bool,
) -> Ready:
    """Prove that a rotation is possible, and prepare it; see `mlauth.rotating.prepare`.

    Args:
        credentials: the credentials whose key is rotated.
        parts: `admin`, if somebody else than the account itself rotates the key.
        prove: reads and proves credentials, and returns values and proof.
        deadline: the time limit of everything before the rotation. The rotation, and each step
            after it, gets the same number of seconds.
        retain_minutes: how long the old value works beside the new one.
        new_key: make a second API key instead of rotating the stored one.
    """
    if not 1 <= retain_minutes <= _MOST_MINUTES:
        raise InvalidCredentials(
            f"retain: {retain_minutes} is not 1 to {_MOST_MINUTES:,} minutes; the old key must "
            "work until the new one is stored, and for as long as runs that have it may log in"
        )
    store, admin = writable(credentials.api_key), parts.get("admin")
    if isinstance(admin, Administrator):
        refuse_hosts([admin.password])  # before the key is read
    values, proof = prove(credentials.model_copy(update={"stack": None, "project": None}))
    value, token = values["api_key"], proof.secrets["token"]
    with _connect(credentials, deadline) as service:
        account = current_user(service, token, credentials.service_account)
        if isinstance(admin, Administrator):
            token = _administrator(service, admin, deadline)
    keys = f"/api/v1/service_accounts/{quote(str(account['id']), safe='')}/api_keys"
    path = f"{keys}/{quote(_id_of(value), safe='')}"
    server = _Server(credentials, account["name"], keys, path, token, account["real_name"])
    key = server.look(deadline)
    if key.old_value_until and not new_key:
        raise RotationFailed(
            f"API key {key.name!r} of service account {account['name']!r} was rotated before, and "
            f"its old value works until {_utc(key.old_value_until)}, which a second rotation would "
            "end at once: wait until then, or, if that rotation could not store the new value, "
            "rotate with --new-key (new_key=True), which ends no key"
        )
    store.prove_writable(credentials.api_key, timeout=deadline.remaining())
    return Ready(server, store, key, value, retain_minutes, new_key, deadline.seconds)


def _administrator(service: Connection, who: Administrator, deadline: Deadline) -> SecretStr:
    password = read_all([who.password], deadline)[who.password].value
    try:
        return log_in(service, who.user, password)
    except StageFailed as error:
        raise RotationFailed(
            f"administrator {who.user!r} (zenml_admin) cannot log in: {error}"
        ) from None


def _made(answer: Answer) -> tuple[SecretStr, object] | None:
    """Return the new value in an answer, and when it was made; None if there is no value."""
    content = answer.json.get("body") if isinstance(answer.json, dict) else None
    content = content if isinstance(content, dict) else {}
    value = content.get("key")
    if answer.status == 200 and isinstance(value, str) and key_problem(value) is None:
        return SecretStr(value), content.get("updated")
    return None


def writable(reference: SecretReference) -> SecretStore:
    """Return the store of a reference, or refuse a reference that cannot be written."""
    store = SecretStore(reference.scheme)
    if not store.writable:
        known = [scheme for scheme in usable() if SecretStore(scheme).writable]
        raise InvalidCredentials(
            f"{reference} cannot be rotated: mlauth writes to {' and '.join(known)} only; keep the "
            "key there, or rotate it by hand (zenml service-account api-key … rotate --retain …)"
        )
    if reference.key is not None:
        raise InvalidCredentials(
            f"{reference} cannot be rotated: the secret holds more than the key; give it a secret "
            "of its own"
        )
    if "version" in reference.place.options:
        raise InvalidCredentials(
            f"{reference} cannot be rotated: it names one version for good; remove '?' and the "
            "text after it"
        )
    return store


def _id_of(key: SecretStr) -> str:
    """Return the id of an API key, which all its values hold; an empty text if it is no key."""
    value = key.get_secret_value()
    if key_problem(value) is not None or not value.startswith("ZENKEY_"):
        return ""
    return str(json.loads(base64.b64decode(value.partition("_")[2]))["id"])


def _is_refusal(answer: Answer) -> bool:
    """Say whether ZenML itself refused: its detail is a text, or an exception's name and a text."""
    detail = answer.json.get("detail") if isinstance(answer.json, dict) else None
    texts = detail if isinstance(detail, list) and len(detail) == 2 else [detail]
    return (
        400 <= answer.status < 500
        and answer.status not in _GAVE_UP
        and all(isinstance(text, str) for text in texts)
    )


def _connect(credentials: ZenMLCredentials, deadline: Deadline) -> Connection:
    url, insecure = credentials.store_url, credentials.insecure
    return connect(url, deadline, _ca(credentials), insecure=insecure)


def _ca(credentials: ZenMLCredentials) -> str | None:
    held = environment()
    ca = credentials.ca(held)
    return certificates({credentials.system: ca} if ca else {}, held)


def _after(rotated: str, minutes: int) -> datetime | None:
    """Return when an old value ends, or None if it has ended. ZenML's times are in UTC."""
    end = datetime.fromisoformat(rotated).replace(tzinfo=timezone.utc) + timedelta(minutes=minutes)
    return end if end > _now() else None


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"

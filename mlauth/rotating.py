"""Gives an account of a profile a new key, for every system that supports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import SecretStr

from mlauth.checking import as_one, check_all
from mlauth.deadline import Deadline
from mlauth.errors import InvalidCredentials, InvalidProfile
from mlauth.forks import load
from mlauth.profiles import DEFAULT_FILE, Profile, load_profile
from mlauth.signals import uninterrupted
from mlauth.systems import Credentials, Proof
from mlauth.systems import load as load_system

DAY = 24 * 60  # minutes


class Ready(Protocol):
    """A rotation that is prepared: as far as anyone can know before, it will work."""

    def rotate(self) -> Any:
        """Rotate, store the new value, and prove it. The caller holds interrupts back.

        Returns:
            What was done, without secrets; `str` of it is one line.
        """


def rotate(system: str, profile: str | Profile, **how: Any) -> Any:
    """Give the account of a system a new key, in an order in which no key is lost.

    Args:
        system: its name.
        profile: the profile's name, or the profile.
        how: see `prepare`.

    Returns:
        What was done, without secrets.

    Raises:
        RotationIncomplete: the key was rotated, but the new value is not stored or not proven.
        MLAuthError: nothing was rotated.
    """
    ready = prepare(system, profile, **how)
    with uninterrupted():
        return ready.rotate()


def prepare(
    system: str,
    profile: str | Profile,
    *,
    retain_minutes: int = DAY,
    new_key: bool = False,
    timeout: float = 30.0,
    config: str = DEFAULT_FILE,
) -> Ready:
    """Prove that a rotation is possible, and prepare it.

    Args:
        system: its name.
        profile: the profile's name, or the profile.
        retain_minutes: how long the old key works beside the new one.
        new_key: make a second key instead of rotating the stored one; the old key stays valid.
        timeout: seconds for everything before the rotation, and again for each of its steps.
        config: the file with the profiles, if `profile` is a name.

    Raises:
        MLAuthError: the rotation is not possible.
    """
    cls = load_system(system)
    if not cls.rotation:
        raise InvalidCredentials(f"mlauth cannot rotate a key of {cls.title}: do it by hand")
    title = f"profile {profile!r} of {config}" if isinstance(profile, str) else "the profile"
    loaded = load_profile(profile, config) if isinstance(profile, str) else profile
    credentials = loaded.systems.get(system)
    if credentials is None:
        raise InvalidProfile(f"{title} has no [{system}], so there is no key to rotate")
    head, deadline = f"{system}_", Deadline(timeout)
    parts = {
        name.removeprefix(head): part
        for name, part in loaded.parts.items()
        if name.startswith(head)
    }
    inner = deadline.inner()

    def prove(item: Credentials) -> tuple[Mapping[str, SecretStr], Proof]:
        report, (checked,) = check_all(item, inner)
        if checked.error:
            raise as_one([checked.error], report)
        assert checked.values is not None
        assert checked.proof is not None
        return checked.values, checked.proof

    ready: Ready = deadline.run(
        lambda: load(cls.rotation).prepare(
            credentials, parts, prove, inner, retain_minutes=retain_minutes, new_key=new_key
        ),
        f"the rotation of the key of {title} was not begun",
    )
    return ready

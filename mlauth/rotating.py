"""Gives an account of a profile a new key, for every system that can."""

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
    """A rotation that nothing is known to stand in the way of."""

    def rotate(self) -> Any:
        """Rotate, store the new value, and prove it; not to be interrupted.

        Returns:
            What was done, without secrets; as text, a line.
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
    """Prove that a rotation can be made.

    Args:
        system: its name.
        profile: the profile's name, or the profile.
        retain_minutes: how long the old key works beside the new one.
        new_key: make a second key in place of rotating the one that is stored; ends nothing.
        timeout: seconds for everything up to the rotation, and again for each step of that.
        config: the file of the profiles, for a name.

    Raises:
        MLAuthError: it cannot be made.
    """
    cls = load_system(system)
    if not cls.rotation:
        raise InvalidCredentials(f"mlauth cannot rotate a key of {cls.title}: do that by hand")
    title = f"profile {profile!r} of {config}" if isinstance(profile, str) else "the profile"
    loaded = load_profile(profile, config) if isinstance(profile, str) else profile
    credentials = loaded.systems.get(system)
    if credentials is None:
        raise InvalidProfile(f"{title} has no [{system}], so no key to rotate")
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

"""The hosts that credentials may be sent to: `/etc/mlauth/allowed-hosts`, if that file exists.

Whoever may edit a block or a profile could name a server of their own there. Those who build the
worker's image can limit that. No variable moves the file, because others may set variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from ipaddress import ip_address

from mlauth.text import plain

FILE = "/etc/mlauth/allowed-hosts"
_NAME = re.compile(r"(?!-)[a-z0-9-]+(\.[a-z0-9-]+)*\Z")


def refusal(hosts: Iterable[str]) -> str | None:
    """Say in one line why no credential may be sent to these hosts, or return None.

    Args:
        hosts: names or addresses, without ports.

    Returns:
        Which host is not in the file, or what is wrong with the file. A file that cannot be used
        refuses everything, even an empty list of hosts.
    """
    try:
        with open(FILE, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        links = filter(os.path.islink, (FILE, os.path.dirname(FILE)))
        if all(map(os.path.exists, links)):
            return None
        return _unusable("is a broken link")
    except OSError as error:
        return _unusable(f"cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        return _unusable("is not UTF-8 text")
    allowed = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        star = "*." * text.startswith("*.")
        host = _normal(text.removeprefix(star))
        if host is None or (star and _is_address(host)):
            return _unusable(
                f"has no host in line {number}: write one host or *.suffix a line, without scheme, "
                "port and path (xn--… where letters are not ASCII)"
            )
        allowed.append(star + host)
    for name in hosts:
        if not _is_allowed(_normal(name), allowed):
            return (
                f"no credential goes to {plain(name)}, which is not in {FILE}: correct the host, "
                "or let those who build the worker's image add it there"
            )
    return None


def _unusable(why: str) -> str:
    return f"{FILE} {why}, so credentials go to no host: let those who build the image correct it"


def _normal(host: str) -> str | None:
    """Return the normal spelling of a host, or None if the text is no host."""
    host = host.lower().removesuffix(".")
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).compressed
    except ValueError:
        return host if _NAME.match(host) else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_allowed(host: str | None, allowed: list[str]) -> bool:
    return host is not None and any(
        host == each or (each.startswith("*.") and host.endswith(each[1:]))
        for each in allowed
        if not (each.startswith("*.") and _is_address(host))
    )

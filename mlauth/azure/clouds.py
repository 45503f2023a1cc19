"""The clouds of Azure: each has its own host of Microsoft Entra, which issues the tokens.

See https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud. A service
gives a mapping from each cloud's host of Microsoft Entra to the suffix of its own hosts there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from mlauth.errors import StoreUnreachable

AUTHORITY = "AZURE_AUTHORITY_HOST"
PUBLIC, GOVERNMENT = "login.microsoftonline.com", "login.microsoftonline.us"
CHINA, CHINA_BEFORE = "login.chinacloudapi.cn", "login.partner.microsoftonline.cn"

_HOST = re.compile(r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def host_of(url: str) -> str | None:
    """Return host and port of a URL, in lower case; None if it has no host, or a user too."""
    try:
        parts = urlsplit(url)
        port = parts.port  # raises an error for a port that is too high
    except ValueError:
        return None
    return parts.netloc.lower() if port != 0 and _HOST.fullmatch(parts.netloc) else None


def named(environment: Mapping[str, str]) -> str | None:
    """Return the host of Microsoft Entra that the environment names, or None.

    Raises:
        StoreUnreachable: the variable holds no host.
    """
    if not environment.get(AUTHORITY, "").strip():
        return None
    host = host_of("https://" + environment[AUTHORITY].strip().removeprefix("https://"))
    if host is None:
        raise StoreUnreachable(
            f"{AUTHORITY} is not a host, or its https URL: the public cloud's is {PUBLIC}"
        )
    return host


def authority(host: str, suffixes: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return the host of Microsoft Entra in the cloud of a service.

    For a service of no known cloud, the environment names it.

    Args:
        host: the service's host.
        suffixes: the suffix of the service's hosts, by the host of Microsoft Entra.
        environment: the environment without the flow's exports (`mlauth.record.own_environment`).

    Raises:
        StoreUnreachable: see `named`.
    """
    said = named(environment)
    of_host = [each for each, suffix in suffixes.items() if host.endswith(suffix)]
    return of_host[0] if of_host and said not in of_host else said or PUBLIC


def asked(authority: str, environment: Mapping[str, str]) -> list[str]:
    """Return the hosts of Microsoft Entra that are asked; with a region, MSAL asks two.

    See https://github.com/AzureAD/microsoft-authentication-library-for-python, msal/application.py
    (`_get_regional_authority`).
    """
    region = environment.get("AZURE_REGIONAL_AUTHORITY_NAME", environment.get("MSAL_FORCE_REGION"))
    regional = "login.microsoft.com" if authority == PUBLIC else authority
    return [authority, *([f"{region}.{regional}"] if region else [])]

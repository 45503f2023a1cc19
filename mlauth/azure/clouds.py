"""The clouds of Azure: which host of Microsoft Entra issues the tokens for which service.

https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud. Each service has
its own suffixes of hosts: a mapping of Microsoft Entra's hosts to them, one for each cloud.
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
    """Return host and port of a URL, in lower case; None if it has none, or more than these."""
    try:
        parts = urlsplit(url)
        port = parts.port  # raises where it is too high
    except ValueError:
        return None
    return parts.netloc.lower() if port != 0 and _HOST.fullmatch(parts.netloc) else None


def named(environment: Mapping[str, str]) -> str | None:
    """Return the host of Microsoft Entra that the environment names, if it names one.

    Raises:
        StoreUnreachable: it names something else.
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
    """Return Microsoft Entra's host: of the service's cloud, unless the environment says another.

    Args:
        host: the service's.
        suffixes: what such hosts end with, by Microsoft Entra's hosts.
        environment: without what was exported for the flow (`mlauth.record.own_environment`).

    Raises:
        StoreUnreachable: see `named`.
    """
    said = named(environment)
    of_host = [each for each, suffix in suffixes.items() if host.endswith(suffix)]
    return of_host[0] if of_host and said not in of_host else said or PUBLIC


def asked(authority: str, environment: Mapping[str, str]) -> list[str]:
    """Return the hosts of Microsoft Entra that are asked, one of a region too where MSAL does that.

    https://github.com/AzureAD/microsoft-authentication-library-for-python, msal/application.py
    (`_get_regional_authority`).
    """
    region = environment.get("AZURE_REGIONAL_AUTHORITY_NAME", environment.get("MSAL_FORCE_REGION"))
    regional = "login.microsoft.com" if authority == PUBLIC else authority
    return [authority, *([f"{region}.{regional}"] if region else [])]

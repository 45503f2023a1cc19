"""The proxy and the CAs for a service, chosen as requests does, which the systems' clients use.

So a check that passes here passes in the client, too. There is one difference: a service on this
machine is never asked through a proxy.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlauth import trust
from mlauth.errors import InvalidCredentials
from mlauth.forks import importing
from mlauth.net.faults import Fault, FaultError

if TYPE_CHECKING:
    import httpx

# With anything else (`\`, `%2e`, full-width letters, a user), some program finds another host.
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")


@dataclass(frozen=True)
class Client:
    """How messages speak of a system's own client.

    Attributes:
        name: the client.
        ca_setting: the setting that has a CA bundle.
        trust: how to make a CA known.
    """

    name: str = "the system's client"
    ca_setting: str = "ca_bundle"
    trust: str = "give the CA as ca_bundle"


def has_plain_host(url: str) -> bool:
    """Say whether every program finds the same host in a URL."""
    return bool(_HOST_AND_PORT.fullmatch(urlsplit(url).netloc)) and "\\" not in url


def is_loopback(url: str) -> bool:
    """Say whether a URL points to this machine in every program."""
    if not has_plain_host(url):
        return False
    host = urlsplit(url).hostname or ""
    # A name such as `x.localhost` does not count: glibc looks it up in DNS.
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def http_problem(url: str) -> str | None:
    """Say why no credential goes to a URL, or return None: it is https, or on this machine."""
    if url.startswith("https://") or is_loopback(url):
        return None
    return "http would send the key over the network in clear: use https"


def makes_a_detour(url: str) -> bool:
    """Say whether requests would ask a server on this machine through a proxy."""
    return is_loopback(url) and _proxy(url) is not None


def proxy_to(url: str, client: Client) -> httpx.URL | None:
    """Return the proxy to ask a URL through, or None.

    Raises:
        FaultError: the environment names a SOCKS proxy, or something that is no HTTP proxy.
    """
    proxy = None if is_loopback(url) else _proxy(url)
    if proxy is None:
        return None
    parts = urlsplit(url)
    line = (
        f"{parts.netloc} is reached through the proxy of {parts.scheme.upper()}_PROXY or ALL_PROXY "
        "here"
    )
    what_to_do = "name one with http://host:port, or put the host into NO_PROXY"
    if proxy.scheme.startswith("socks"):
        if find_spec("socks") is None:
            raise FaultError(
                Fault(f"{line}, and {client.name} cannot use SOCKS without PySocks: {what_to_do}")
            )
        raise FaultError(Fault(f"{line}, and mlauth cannot use SOCKS: {what_to_do}", unknown=True))
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise FaultError(Fault(f"{line}, which is no proxy for HTTP: {what_to_do}"))
    return proxy


def _proxy(url: str) -> httpx.URL | None:
    """Return the proxy that requests would use for a URL here, or None.

    It is an `httpx.URL`, whose `repr` does not show a password.
    """
    from urllib.request import getproxies  # a slow import, which brings `http` and `email`

    if not getproxies():
        return None
    # The rule for NO_PROXY differs between httpx and requests, and between versions, so requests
    # itself decides. Its import takes 0.1 s, so it is left to environments with a proxy.
    with importing:
        import httpx
        from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

    chosen = select_proxy(url, get_environ_proxies(url))
    try:
        return httpx.URL(prepend_scheme_if_needed(chosen, "http")) if chosen else None
    except (ValueError, TypeError, httpx.InvalidURL):  # requests raises TypeError without a host
        return httpx.URL()


def netrc_problem(url: str, client: Client) -> str | None:
    """Say why requests would not send a token but the content of `.netrc`, or return None.

    Seen with requests 2.34: an entry for the host, or a default one, replaces the `Authorization`
    header (https://github.com/psf/requests/issues/3929). httpx does not read `.netrc`.
    """
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    found = [name for name in files if os.path.exists(os.path.expanduser(name))]
    if not found:
        return None
    with importing:
        from requests.utils import get_netrc_auth

    try:
        if get_netrc_auth(url) is None:
            return None
    except UnicodeDecodeError:
        return (
            f"{found[0]} is no text, and {client.name} stops there: correct it, or set "
            "NETRC=/dev/null"
        )
    return (
        f"{found[0]} has an entry for {urlsplit(url).hostname} or a default one, and "
        f"{client.name} would send that in place of its token: remove the entry, or set "
        "NETRC=/dev/null"
    )


def ca_problem(ca: str, client: Client) -> str | None:
    """Say what is wrong with a CA bundle (path or PEM text), or return None."""
    if not ca:
        return "the CA bundle has an empty name"
    if os.path.isdir(ca):
        return f"the CA bundle {ca} is a directory, which {client.name} does not take"
    try:
        trust.context(ca)
    except InvalidCredentials as error:
        return str(error)
    return None


def trust_in(ca: str | None, client: Client, *, tls: bool) -> ssl.SSLContext | None:
    """Return the CAs that requests would trust here, or None for those of certifi.

    Args:
        ca: see `mlauth.net.http.Service`.
        client: the client, for messages.
        tls: whether TLS is used at all.

    Raises:
        FaultError: the CA bundle cannot be used.
    """
    if not tls:
        # Loading the CAs takes longer than the request. A context without CAs trusts nobody.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    place, setting = ca, client.ca_setting
    if not place:
        variable = trust.of_requests(os.environ)
        if variable is None:
            return None
        place, setting = os.environ[variable], variable
        if os.path.isdir(place):  # requests takes a directory with file names from c_rehash
            return ssl.create_default_context(capath=place)
        if trust.is_text(place):  # requests does not take PEM text
            raise FaultError(Fault(f"the CA bundle is text and no file: correct {variable}"))
    problem = ca_problem(place, client)
    if problem:
        raise FaultError(Fault(f"{problem}: correct {setting}"))
    return trust.context(place)

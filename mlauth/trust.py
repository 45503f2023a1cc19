"""The CAs that a run trusts: those of the environment, and the CA bundle of each section.

All of them are one text, which every check uses. An activation writes it into a file in the run's
private folder, and names that file in the two variables that clients read. requests reads
`REQUESTS_CA_BUNDLE` (https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification);
httpx and programs with OpenSSL read `SSL_CERT_FILE`.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from mlauth.errors import InvalidCredentials
from mlauth.forks import importing

FILE = "certificates.pem"
VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")

# Only the certificates of a bundle are used: somebody may keep a private key in the same file.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END (?:X509 )?CERTIFICATE-----"
)


def certificates(bundles: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Return the certificates that a run trusts, as PEM text.

    Args:
        bundles: the CA bundles of systems, by their names, each a path or PEM text.
        environment: may name more bundles, in the variables of requests and OpenSSL. If it names
            none, the CAs of certifi are added, which requests trusts by default.

    Returns:
        The text, or None if no section has a bundle: then the environment is enough.

    Raises:
        InvalidCredentials: a bundle cannot be read.
    """
    if not bundles:
        return None
    found: dict[str, None] = {}  # a dictionary keeps the order, and each certificate once
    given = [(ca, f"ca_bundle of [{system}]") for system, ca in bundles.items()]
    for place, setting in [*_named(environment), *given]:
        try:
            found.update(dict.fromkeys(_certificates(place)))
        except InvalidCredentials as error:
            raise InvalidCredentials(f"{error}: correct {setting}") from None
    return "\n".join([*found, ""])


def context(ca: str) -> ssl.SSLContext:
    """Return a TLS context that trusts only a CA bundle (a path or PEM text).

    Raises:
        InvalidCredentials: it cannot be used. The line does not say which setting named it.
    """
    return ssl.create_default_context(cadata="\n".join(_certificates(ca)))


def is_text(ca: str) -> bool:
    """Say whether a CA bundle is PEM text, and not a path."""
    return "-----BEGIN" in ca


def of_requests(environment: Mapping[str, str]) -> str | None:
    """Return the variable that names the CA bundle of requests, or None for certifi.

    requests reads the second variable only if the first is not set.
    """
    return next(filter(environment.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), None)


def _named(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the bundles that the environment names, each with its variable."""
    names = (of_requests(environment), "SSL_CERT_FILE")
    named = [(environment[name], name) for name in names if name and environment.get(name)]
    if named:
        return named
    with importing:
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

    return [(DEFAULT_CA_BUNDLE_PATH, "the CA certificates of Python's certifi")]


def _certificates(place: str) -> list[str]:
    """Return the certificates of a bundle, which OpenSSL can read, each as PEM text."""
    shown = "".join(each if each.isprintable() else "?" for each in place)
    what = f"the CA bundle {'given as text' if is_text(place) else shown}"
    try:
        if is_text(place):
            content = place.encode()
        elif os.path.isdir(place):  # requests takes a directory, too
            files = sorted(each for each in Path(place).iterdir() if each.is_file())
            content = b"\n".join(each.read_bytes() for each in files)
        else:
            content = Path(place).read_bytes()
    except FileNotFoundError:
        raise InvalidCredentials(f"{what} does not exist") from None
    except OSError as error:
        raise InvalidCredentials(f"{what} cannot be read ({error.strerror})") from None
    except ValueError:  # a NUL in a path
        raise InvalidCredentials(f"{what} cannot be read (it is no path)") from None
    found = [each.decode("ascii") for each in _CERTIFICATE.findall(content)]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(found))
    except (ssl.SSLError, ValueError):  # ValueError: there is none
        raise InvalidCredentials(f"{what} cannot be read as PEM certificates") from None
    return found

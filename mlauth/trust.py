"""The CAs that a run trusts: those of the environment, and the CA bundle of each section.

All of them are one text, which every check uses. An activation writes it into a file in the run's
private folder, and names that file in the two variables that clients read. requests reads
`REQUESTS_CA_BUNDLE` (https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification);
httpx and programs with OpenSSL read `SSL_CERT_FILE`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlauth.errors import InvalidCredentials
from mlauth.forks import importing

FILE = "certificates.pem"
VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")

# Only the certificates of a bundle are used: somebody may keep a private key in the same file.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END (?:X509 )?CERTIFICATE-----"
)


def certificates(bundles: Iterable[str], environment: Mapping[str, str]) -> str | None:
    """Return the certificates that a run trusts, as PEM text.

    Args:
        bundles: the CA bundles of the sections, each a path or PEM text.
        environment: may name more bundles, in the variables of requests and OpenSSL. If it names
            none, the CAs of certifi are added, which requests trusts by default.

    Returns:
        The text, or None if no section has a bundle: then the environment is enough.

    Raises:
        InvalidCredentials: a bundle cannot be read.
    """
    given = list(bundles)
    if not given:
        return None
    found: dict[str, None] = {}  # a dictionary keeps the order, and each certificate once
    for place, setting in [*_named(environment), *((each, "ca_bundle") for each in given)]:
        found.update(dict.fromkeys(_read(place, setting)))
    return "\n".join([*found, ""])


def _named(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the bundles that the environment names, each with its variable."""
    # requests reads the second variable only if the first is not set.
    of_requests = next(
        filter(environment.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), "REQUESTS_CA_BUNDLE"
    )
    named = [
        (environment[name], name)
        for name in (of_requests, "SSL_CERT_FILE")
        if environment.get(name)
    ]
    if named:
        return named
    with importing:
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

    return [(DEFAULT_CA_BUNDLE_PATH, "the CA certificates of Python's certifi")]


def _read(place: str, setting: str) -> list[str]:
    try:
        if "-----BEGIN" in place:
            content = place.encode()
        elif os.path.isdir(place):  # requests takes a directory, too
            files = sorted(each for each in Path(place).iterdir() if each.is_file())
            content = b"\n".join(each.read_bytes() for each in files)
        else:
            content = Path(place).read_bytes()
    except FileNotFoundError:
        raise InvalidCredentials(
            f"the CA bundle {place!r} does not exist: correct {setting}"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no path"
        raise InvalidCredentials(
            f"the CA bundle {place!r} cannot be read ({why}): correct {setting}"
        ) from None
    found = [each.decode("ascii") for each in _CERTIFICATE.findall(content)]
    if not found:
        raise InvalidCredentials(f"the CA bundle has no certificate in PEM: correct {setting}")
    return found

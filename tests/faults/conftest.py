"""Certificates of services, right ones and wrong ones."""

from __future__ import annotations

import datetime as dt
import ssl
import warnings
from pathlib import Path

import pytest
import trustme


class Certificates:
    """The certificates of services, and the CA that is trusted."""

    def __init__(self, folder: Path) -> None:
        trusted, stranger = trustme.CA(), trustme.CA()
        names = ("127.0.0.1", "localhost", "*.vault.azure.net", "login.microsoftonline.com")
        day, now = dt.timedelta(days=1), dt.datetime.now(dt.timezone.utc)
        past = {"not_before": now - 3 * day, "not_after": now - day}
        future = {"not_before": now + day, "not_after": now + 3 * day}
        self.bundle = folder / "ca.pem"
        trusted.cert_pem.write_to_path(str(self.bundle))
        self.contexts: dict[str, ssl.SSLContext | None] = {
            "": None,
            "good": _context(trusted.issue_cert(*names)),
            "expired": _context(trusted.issue_cert(*names, **past)),
            "early": _context(trusted.issue_cert(*names, **future)),
            "other": _context(trusted.issue_cert("other.example.com")),
            "unknown": _context(stranger.issue_cert(*names)),
            "old": _old(trusted.issue_cert(*names)),
        }


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def _old(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = _context(certificate)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))

"""The HTTP transport of Azure's clients: without `.netrc`, and with a limit for answers.

Azure's SDKs use requests. By default, requests replaces a token by an entry of `.netrc`
(https://requests.readthedocs.io/en/latest/user/authentication/#netrc-authentication), and unpacks
an answer without a limit for memory. Importing this module imports the SDK.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, InvalidURL
from urllib3.exceptions import LocationValueError
from urllib3.util.retry import Retry

from mlauth.net.faults import causes

_MOST_BYTES = 1024 * 1024  # the largest secret has 25 KB


class _Unreadable(requests.RequestException):
    """An answer is not read. The message goes on after the host's name ("answers with …")."""


def unreadable(error: BaseException) -> requests.RequestException | None:
    """Return the cause of an SDK's error that says why an answer was not read, or None."""
    return next((cause for cause in causes(error) if isinstance(cause, _Unreadable)), None)


def unusable(error: BaseException) -> str | None:
    """Say which setting of this environment stopped a request, or return None."""
    for cause in causes(error):
        if isinstance(cause, (InvalidURL, InvalidSchema, LocationValueError)):
            return (
                "the proxy that HTTPS_PROXY (or ALL_PROXY) names cannot be used: name one with "
                "http://host:port, or put the host into NO_PROXY"
            )
        # These are errors of reading certificates. In an error of a handshake, the library is SSL.
        if isinstance(cause, ssl.SSLError) and cause.library in ("X509", "PEM", "ASN1"):
            return "REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) cannot be read as PEM certificates"
        if type(cause) is OSError and "CA certificate bundle" in str(cause):
            return "REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) names no file that is there: correct it"
    return None


def transport(
    *, direct: bool = False, look: Callable[..., None] | None = None, **options: Any
) -> RequestsTransport:
    """Make the transport of a client of Azure.

    Args:
        direct: never use a proxy; by default, the environment decides.
        look: called with each answer (a `requests.Response`) before its body is read.
        options: the time limits, for `RequestsTransport`.
    """
    session = requests.Session()
    # For Service Fabric, MSAL copies these attributes to its own session, so a subclass of Session
    # would not help.
    session.auth = _unchanged  # requests reads .netrc only if there is no auth
    session.headers["Accept-Encoding"] = "identity"
    session.hooks["response"] = [_bounded] if look is None else [look, _bounded]
    if direct:
        session.trust_env = False  # this also ignores the CA of the environment
        ca = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        options["connection_verify"] = ca or True
    for scheme in ("http://", "https://"):  # azure-core does the same: no retries below ours
        session.mount(scheme, HTTPAdapter(max_retries=Retry(total=False, raise_on_status=False)))
    return RequestsTransport(session=session, **options)


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _bounded(response: requests.Response, **_options: Any) -> None:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        response.close()
        raise _Unreadable("answers in an encoding that it was not asked for", response=response)
    response.raw = _Bounded(response)


class _Bounded:
    """The body of an answer, not decoded, and with a limit."""

    def __init__(self, response: requests.Response) -> None:
        self._response, self._raw = response, response.raw

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """See `urllib3.HTTPResponse.stream`; nothing is decoded."""
        size = 0
        for chunk in self._raw.stream(amount, decode_content=False):
            size += len(chunk)
            if size > _MOST_BYTES:
                self._raw.close()
                raise _Unreadable("answers with more than 1 MiB", response=self._response)
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

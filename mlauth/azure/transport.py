"""How the clients of Azure speak HTTP: without `.netrc`, identities without a proxy, bounded.

Azure's SDKs speak through requests. By itself it puts what `.netrc` says in the place of a token
(https://requests.readthedocs.io/en/latest/user/authentication/#netrc-authentication), and unpacks
an answer as often as the answer says, into as much memory as that takes. Importing this module
imports the SDK.
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
    """An answer that is not read: the message says of a host what it does."""


def unreadable(error: BaseException) -> requests.RequestException | None:
    """Say if an error of the SDK is about an answer that was not read.

    Returns:
        What says of a host what it does, with the response; else None.
    """
    return next((cause for cause in causes(error) if isinstance(cause, _Unreadable)), None)


def unusable(error: BaseException) -> str | None:
    """Say which setting of this environment kept a request from being made, if one did."""
    for cause in causes(error):
        if isinstance(cause, (InvalidURL, InvalidSchema, LocationValueError)):
            return (
                "the proxy that HTTPS_PROXY (or ALL_PROXY) names cannot be used: name one with "
                "http://host:port, or put the host into NO_PROXY"
            )
        # Of what reads certificates, not of a handshake, where the library is SSL.
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
        direct: ask without a proxy, whatever the environment says; else as requests does.
        look: is called with each answer (a `requests.Response`) before its body is read.
        options: for `RequestsTransport`: its time limits.
    """
    session = requests.Session()
    # MSAL copies these, and none of a subclass, into the session that asks Service Fabric.
    session.auth = _unchanged  # only without any does requests read .netrc
    session.headers["Accept-Encoding"] = "identity"
    session.hooks["response"] = [_bounded] if look is None else [look, _bounded]
    if direct:
        session.trust_env = False  # which is about the CA, too
        ca = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        options["connection_verify"] = ca or True
    for scheme in ("http://", "https://"):  # as azure-core mounts them: no retries below ours
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
    """The body of an answer, as it comes over the wire."""

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

"""Tokens of an identity, from azure-identity, for any service of Azure."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from mlauth import masking
from mlauth.azure import identity as identities
from mlauth.azure.identity import (
    CLIENT,
    IMDS_SECONDS,
    SECRET,
    TENANT,
    Identity,
    ManagedIdentity,
    ServicePrincipal,
    ThisMachine,
    WorkloadIdentity,
)
from mlauth.deadline import Deadline
from mlauth.errors import IdentityUnavailable, StoreError, bare
from mlauth.extras import sdk
from mlauth.net.faults import (
    TRANSIENT,
    Fault,
    FaultError,
    busy,
    causes,
    connection_fault,
    explain,
    too_late,
)

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 30
_FRESH_SECONDS = 300  # a token that ends sooner is not used; the SDK does the same
_REFUSED_SECONDS = 2  # for this time, a refusal is repeated to others without asking again
_IMDS_TRANSIENT = {404, 410}  # statuses of IMDS while it is updated
_TOKEN = re.compile(r"[\x21-\x7e]+")  # a header can hold only these characters
# Names of exceptions of azure-core and requests, for a connection that was made and lost.
_LOST = ("ServiceRe", "IncompleteRead", "ConnectionError", "ChunkedEncodingError")


class Tokens:
    """Tokens of an identity. This process keeps them, and asks for one at a time."""

    def __init__(self, identity: Identity, authority: str, extra: str) -> None:
        """Make azure-identity's credential; see `tokens`.

        Raises:
            StoreError: azure-identity is not installed, or does not take the identity.
        """
        self._identity = identity
        self._extra = extra
        self._lock = threading.Lock()
        self._kept: dict[tuple[object, ...], tuple[SecretStr, int]] = {}
        self._answer: tuple[int, str | None] | None = None
        self._refused: tuple[float, IdentityUnavailable] | None = None
        entra = isinstance(identity, (ServicePrincipal, WorkloadIdentity))
        # The SDK's retries are off, because mlauth retries within the deadline. The authority is
        # explicit, because AZURE_AUTHORITY_HOST may name another cloud than the service's.
        options: dict[str, Any] = {
            "retry_total": 0,
            "transport": sdk("mlauth.azure.transport", self._extra).transport(
                direct=not entra,
                look=self._look,
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=IMDS_SECONDS if isinstance(identity, ThisMachine) else _ANSWER_SECONDS,
            ),
        }
        if entra:
            options["authority"] = authority
            # Otherwise MSAL asks login.microsoftonline.com whether it knows the authority, and
            # fails if it does not, as for the host of a private cloud.
            options["disable_instance_discovery"] = True
        self._place = authority if "authority" in options else "the identity's endpoint"
        self._options = options
        self._credential = self._made()

    def __str__(self) -> str:
        return str(self._identity)

    def get(
        self, audience: str, *, deadline: Deadline, claims: str | None = None, **options: Any
    ) -> AccessToken:
        """Return a token for an audience, for instance `https://storage.azure.com`.

        Args:
            audience: the service that will take the token.
            deadline: no request begins after it.
            claims: the claims that the service wants, if it refused a token before.
            options: see `azure.core.credentials.TokenCredential.get_token`.

        Raises:
            FaultError: the identity's issuer gave no answer, or nobody was asked in time.
            StoreError: there is no identity, or it is refused.
        """
        key = (audience, options.get("tenant_id"))
        with self._turn(deadline):
            kept = self._kept.get(key)
            if kept is not None and not claims and kept[1] - time.time() > _FRESH_SECONDS:
                # The SDK's class shows the token in its `repr`, so it is not kept, but made again.
                kind = sdk("azure.core.credentials", self._extra).AccessToken
                return kind(kept[0].get_secret_value(), kept[1])  # type: ignore[no-any-return]
            if self._refused is not None and time.monotonic() < self._refused[0]:
                raise bare(self._refused[1])
            self._answer = None
            try:
                with _quiet():
                    token = self._credential.get_token(
                        f"{audience}/.default", claims=claims, **options
                    )
                if not _TOKEN.fullmatch(token.token):  # raises TypeError if it is no text
                    raise ValueError("no token")
            except Exception as error:
                explained = self._explain(error)
            else:
                masking.register([token.token])
                self._kept[key] = SecretStr(token.token), token.expires_on
                return token
            # This is after the `except`, because frames of the SDK hold secrets, and even
            # `from None` would keep them.
            if isinstance(explained, Fault):
                # MSAL would repeat the faulty answer for a while, without asking again.
                self._credential = self._made()
                raise FaultError(explained)
            self._refused = (time.monotonic() + _REFUSED_SECONDS, explained)
            raise explained

    @contextmanager
    def _turn(self, deadline: Deadline) -> Iterator[None]:
        """Let one thread ask at a time; a thread whose time is up does not ask at all."""
        left = deadline.remaining()
        if not left or not self._lock.acquire(timeout=left):
            raise FaultError(
                Fault(
                    f"{self._identity} gave no token in time: can the issuer of its tokens be "
                    "reached? a busy service needs a longer timeout",
                    unknown=True,
                )
            )
        try:
            yield
        finally:
            self._lock.release()

    def _made(self) -> TokenCredential:
        try:
            return self._identity.credential(sdk("azure.identity", self._extra), **self._options)
        except StoreError:
            raise
        except Exception as error:
            kind = type(error).__name__
        raise IdentityUnavailable(
            f"{self._identity}: azure-identity refuses its variables ({kind}): correct them "
            "(mlauth explain shows which are used)"
        )

    def _look(self, response: Any, **_options: Any) -> None:
        # The first answer counts, and then the last error: after an error, MSAL asks Microsoft
        # Entra for more, and those answers do not matter.
        if self._answer is None or response.status_code >= 400:
            self._answer = (response.status_code, response.headers.get("Retry-After"))

    def _explain(self, error: Exception) -> IdentityUnavailable | Fault:
        who, said = str(self._identity), str(error)
        code = re.search(r"AADSTS\d+", said)
        if code and code[0] in _REFUSALS:
            return IdentityUnavailable(f"{who}: {_REFUSALS[code[0]]} ({code[0]})")
        if self._answer is not None:
            status, header = self._answer
            if status in TRANSIENT or (
                status in _IMDS_TRANSIENT and isinstance(self._identity, ThisMachine)
            ):
                return busy(f"the issuer of tokens for the {who}", status, header)
        if "Failed to invoke the Azure CLI" in said:
            return Fault(
                f"az gave no token within {identities.CLI_SECONDS} s: try again", unknown=True
            )
        if not isinstance(self._identity, ThisMachine):
            fault = self._fault(error)
            if fault is not None:
                return replace(fault, line=f"{who}: {fault.line}")
        if "for tenant" in said and "not configured" in said:
            return IdentityUnavailable(
                f"{who}: the service is in another tenant; use an identity of that tenant"
            )
        return IdentityUnavailable(f"{who}: {self._hint(said, code[0] if code else None)}")

    def _fault(self, error: Exception) -> Fault | None:
        """Return the fault of the connection to the endpoint, if there is one."""
        http = sdk("mlauth.azure.transport", self._extra)
        unread, setting = http.unreadable(error), http.unusable(error)
        if unread is not None:
            return Fault(f"{self._place} {unread}: is a proxy in the way?")
        if setting is not None:
            return Fault(setting)
        trust = "name it in REQUESTS_CA_BUNDLE"
        lost = any(type(cause).__name__.startswith(_LOST) for cause in causes(error))
        if not lost and not too_late(error):
            return connection_fault(error, self._place, trust=trust)
        return explain(error, self._place, trust=trust, within=f"within {_ANSWER_SECONDS} s")

    def _hint(self, said: str, code: str | None) -> str:
        if isinstance(self._identity, ThisMachine):
            login = (
                "run `az login`, or "
                if self._identity.login and "az login" in said.replace("'", "")
                else ""
            )
            return (
                "neither gives a token here: " if self._identity.machine else "gives no token: "
            ) + f"{login}set the AZURE_* variables of an identity (mlauth explain shows the choice)"
        if code:
            return f"Microsoft Entra refuses it: look the code up ({code})"
        status = self._answer[0] if self._answer else 0
        if isinstance(self._identity, ManagedIdentity):
            if 200 <= status < 400:
                return (
                    f"the answer (HTTP {status}) is not from the endpoint of an identity: is the "
                    "variable right, and no proxy in the way?"
                )
            shown = f" (HTTP {status})" if status else ""
            return (
                f"the endpoint does not give a token{shown}: is an identity assigned here, and "
                f"is {CLIENT} its client id?"
            )
        if status:
            return (
                f"{self._place} answers HTTP {status}, and not as Microsoft Entra does: is a proxy "
                f"in the way, and is {TENANT} right?"
            )
        return "no token was given: are its variables, and its file, right?"


@cache
def tokens(identity: Identity, authority: str, extra: str) -> Tokens:
    """Return the tokens of an identity, the same object for the same identity.

    Args:
        identity: see `mlauth.azure.identity.choose`.
        authority: the host of Microsoft Entra; see `mlauth.azure.clouds.authority`.
        extra: the extra of mlauth that installs azure-identity for the caller, for messages.

    Raises:
        StoreError: see `Tokens`.
    """
    return Tokens(identity, authority, extra)


if hasattr(os, "register_at_fork"):
    # Another thread may hold locks of `Tokens` and the SDK, so the child starts with new objects.
    os.register_at_fork(after_in_child=tokens.cache_clear)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep azure-identity from logging warnings: our error says the same in one line."""
    logger = logging.getLogger("azure.identity")
    level = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_REFUSALS = {
    "AADSTS7000215": f"the secret is wrong: {SECRET} must be the secret's value, not its id",
    "AADSTS7000222": f"its secret has expired: make a new one, and set {SECRET}",
    "AADSTS7000112": "the application is disabled: enable it",
    "AADSTS700016": f"there is no such application in the tenant: is {CLIENT} right?",
    "AADSTS90002": f"there is no such tenant in this cloud: is {TENANT} right?",
    "AADSTS700027": "its certificate is not one of the application's, or has expired: renew it",
    "AADSTS70021": (
        "no federated credential matches issuer, subject and audience of the token: add one"
    ),
    "AADSTS700211": "no federated credential matches the token's issuer: add one",
    "AADSTS700212": "no federated credential matches the token's audience: add one",
    "AADSTS700213": (
        "no federated credential matches the token's subject (service account): add one"
    ),
    "AADSTS700024": "the token in the file has expired: is it still the projected one?",
}

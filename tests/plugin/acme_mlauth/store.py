"""`acmevault://team/secret`: Acme's vault at `ACME_VAULT_URL`, with the worker's token."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from mlauth.deadline import Deadline
from mlauth.errors import IdentityUnavailable, SecretDenied, SecretNotFound, SecretUnusable
from mlauth.net.faults import Fault
from mlauth.net.http import Bearer, Service
from mlauth.record import own_environment
from mlauth.stores import Access, Grammar, Place, StoredSecret, named, outcome

URL, TOKEN = "ACME_VAULT_URL", "ACME_VAULT_TOKEN"
GRAMMAR = Grammar("acmevault://team/secret", named("team", "secret"))


class Store:
    """Reads secrets of the vault."""

    identity = (URL, TOKEN)

    def read(self, place: Place, *, timeout: float) -> StoredSecret:
        """Read a secret; see `mlauth.stores.Store.read`."""
        url, token = (own_environment().get(name, "") for name in (URL, TOKEN))
        if not (url and token):
            raise IdentityUnavailable(f"{URL} and {TOKEN} must be set: set them for the worker")
        path = "".join(f"/{quote(part, safe='')}" for part in place.parts)
        with Service(url, Deadline(timeout)) as vault:
            answer = vault.request("GET", path, auth=Bearer(SecretStr(token)))
        if isinstance(answer, Fault):
            raise outcome(answer)
        if answer.status == 404:
            raise SecretNotFound("the vault has no such secret; check the name")
        if answer.status in (401, 403):
            raise SecretDenied(
                f"the vault does not let {TOKEN} read it; ask the team for the right"
            )
        value = answer.json.get("value") if isinstance(answer.json, dict) else None
        if not isinstance(value, str):
            raise SecretUnusable(f"{url} does not answer as a vault does; is {URL} right?")
        return StoredSecret(SecretStr(value))

    def describe(self, place: Place) -> Access:
        """See `mlauth.stores.Store.describe`."""
        vault = own_environment().get(URL) or f"the vault ({URL} is not set)"
        return Access(f"{place} in {vault}", f"the owner of {TOKEN}")

    def hosts(self, place: Place) -> tuple[str, ...]:
        """See `mlauth.stores.RemoteStore.hosts`."""
        host = urlsplit(own_environment().get(URL, "")).hostname
        return (host,) if host else ()

"""What takes the place of Acme's shop and of its vault."""

from __future__ import annotations

from mlauth.testing.web import Answer, Call

WORKER = "vault_canary-of-the-worker"


def shop(token: str, call: Call) -> Answer:
    """Answer as the shop does, which knows one token."""
    if call.path == "/health":
        return Answer(200, {"status": "ok"})
    if call.headers.get("authorization") != f"Bearer {token}":
        return Answer(401, {"error": "unauthorized"})
    return Answer(200, {"name": "flows"})


class Vault:
    """Acme's vault: one owner, whose token is `WORKER`, and secrets of the team `flows`."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.down = False

    def __call__(self, call: Call) -> Answer:
        if self.down:
            return Answer(503)
        if call.headers.get("authorization") != f"Bearer {WORKER}":
            return Answer(401)
        if not call.path.startswith("/flows/"):
            return Answer(403)
        value = self.secrets.get(call.path.removeprefix("/flows/"))
        return Answer(404) if value is None else Answer(200, {"value": value})

"""Made-up API keys with the shape of ZenML's."""

from __future__ import annotations

import base64
import json
import uuid


def api_key(secret: str = "canary-not-a-real-key") -> str:
    content = json.dumps({"id": str(uuid.uuid4()), "key": secret})
    return "ZENKEY_" + base64.b64encode(content.encode()).decode()

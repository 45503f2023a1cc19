"""Makes text from outside safe for our messages."""

from __future__ import annotations

import re

from mlauth.masking import mask


def plain(text: str) -> str:
    """Return text from outside as one short line of harmless characters, with secrets masked."""
    return re.sub(r"[^\w .:/()\[\]@+*-]", "?", mask(text))[:80]

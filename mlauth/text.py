"""Text of strangers in lines of ours."""

from __future__ import annotations

import re

from mlauth.masking import mask


def plain(text: str) -> str:
    """Return what a stranger sent as one short line of harmless characters, without our secrets."""
    return re.sub(r"[^\w .:/()\[\]@+*-]", "?", mask(text))[:80]

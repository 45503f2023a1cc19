"""Writes `mlauth.toml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_profile(folder: Path, name: str, **sections: Mapping[str, str | int]) -> Path:
    """Write a `mlauth.toml` with one profile into a folder, and return the file's path."""
    lines = []
    for section, fields in sections.items():
        lines.append(f'[profiles."{name}".{section}]')
        lines += [f"{key} = {json.dumps(it, ensure_ascii=False)}" for key, it in fields.items()]
    file = folder / "mlauth.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file

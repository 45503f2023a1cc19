"""Distributions of somebody else's, as if they were installed."""

from __future__ import annotations

from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "plugin"  # where the package acme_mlauth is


def install(folder: Path, group: str, entries: str, name: str = "acme-anvils") -> Path:
    """Make entry points in a folder, which the module search path is to have."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
    return folder

"""Gives the service account of a profile a new API key; see README.md."""

from __future__ import annotations

from prefect import flow, get_run_logger

import mlauth


# There are no retries: the message of a failed run says what to do, and a person decides.
@flow(name="rotate-zenml-key")
def rotate_key(profile: str = "prod", retain_minutes: int = 1440) -> None:
    """Rotate the key, store it where the profile names it, and prove it."""
    rotation = mlauth.rotate_zenml(profile, retain_minutes=retain_minutes)
    get_run_logger().info("%s", rotation)


if __name__ == "__main__":
    rotate_key()

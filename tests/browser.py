"""A real browser that sees this machine only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver


@contextmanager
def headless(
    folder: Path, *, hosts: str = "", arguments: tuple[str, ...] = ()
) -> Iterator[webdriver.Chrome]:
    """Start Chromium with a profile of its own.

    Args:
        folder: for the profile.
        hosts: more rules for names, as `MAP example.com 127.0.0.1:8443`.
        arguments: more of its own arguments, without the dashes.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    rules = [hosts] if hosts else []
    rules += ["MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"]
    for argument in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-3d-apis",
        "force-prefers-reduced-motion",
        "disable-dev-shm-usage",
        f"host-resolver-rules={', '.join(rules)}",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1400,1000",
        f"user-data-dir={folder}",
        *arguments,
    ):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()

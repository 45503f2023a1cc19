"""A block as Prefect's UI shows it, in a real browser: `make test-browser`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable as present
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.accounts import Account
from tests.support.published import HOST, published
from tests.support.servers import PrefectServer
from tests.support.session import untraced

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

URL = "https://zenml.example.com"
TITLES = "Block Name", "Server URL", "API key (a reference)", "Service account"
SCREENSHOTS = "TEST_SCREENSHOTS"  # the folder for the pictures that docs/ has


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    with untraced(), PrefectServer(tmp_path / "server", ui=True) as server:
        command = [sys.executable, "-m", "prefect", "block", "register", "-m", "prefect_mlauth"]
        subprocess.run(command, env=server.environment(), check=True, capture_output=True)
        yield server


@pytest.fixture
def browser_arguments() -> Iterator[list[str]]:
    with published(trustme.CA()) as port:
        logo = f"MAP {HOST} 127.0.0.1:{port}"
        rules = f"{logo}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        yield [f"host-resolver-rules={rules}", "ignore-certificate-errors"]


def picture(browser: webdriver.Chrome, name: str) -> None:
    if SCREENSHOTS in os.environ:
        browser.save_screenshot(str(Path(os.environ[SCREENSHOTS], name)))


def fill_in(browser: webdriver.Chrome, form: str, values: tuple[str, ...]) -> None:
    browser.get(form)
    wait = WebDriverWait(browser, 60)
    for title, value in zip(TITLES, values, strict=True):
        place = f"//*[contains(@class, 'p-label')][.//*[starts-with(normalize-space(), '{title}')]]"
        control = f"({place}//*[self::input or self::textarea])[1]"
        wait.until(present((By.XPATH, control))).send_keys(value)


def text(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def test_a_block_is_found_filled_in_saved_and_used_by_a_flow(
    server: PrefectServer, browser: webdriver.Chrome, account: Account, tmp_path: Path
) -> None:
    wait = WebDriverWait(browser, 60)
    browser.get(f"{server.ui_url}/blocks/catalog")
    search = wait.until(present((By.XPATH, "//input[contains(@placeholder, 'Search')]")))
    search.send_keys("ZenML")
    wait.until(lambda browser: "AWS Credentials" not in text(browser))
    logo = wait.until(present((By.XPATH, "//img[contains(@src, 'docs/logo.png')]")))
    wait.until(
        lambda browser: browser.execute_script("return arguments[0].naturalWidth", logo) == 256
    )
    assert "ZenML Credentials" in text(browser)
    assert "Lets a flow work on a ZenML server as a service account." in text(browser)
    picture(browser, "block-catalogue.png")

    form = f"{server.ui_url}/blocks/catalog/zenml-credentials/create"
    readers = "prod", URL, "file:///run/secrets/zenml/api-key", "prefect-prod"
    fill_in(browser, form, readers)
    picture(browser, "block-form.png")
    assert "so a secret in it would have to be rotated" in text(browser)
    ours = "from-the-ui", account.url, account.reference, account.name
    fill_in(browser, form, ours)
    browser.find_element(By.XPATH, "//button[@type='submit']").click()
    wait.until(lambda browser: "/blocks/block/" in browser.current_url)
    wait.until(lambda browser: account.reference in text(browser))

    done = subprocess.run(
        [sys.executable, "-c", "from block_flows import login; login()"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent / "flows",
        env=server.environment(tmp_path / "home") | {"BLOCK": "from-the-ui"},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    (line,) = {line for line in done.stderr.splitlines() if "FACTS {" in line} or [""]
    facts = json.loads(line.partition("FACTS ")[2])
    assert facts["account"] == account.name
    assert facts["undone"]

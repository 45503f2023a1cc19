"""ZenML's dashboard shows the component's result, in a real browser: `make test-browser`."""

from __future__ import annotations

import os
import uuid

import httpx
import pytest
from pydantic import SecretStr
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable as present
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.accounts import Account
from tests.support.servers import ZenMLServer
from tests.zenml_mlauth.conftest import make_stack
from tests.zenml_mlauth.pipelines import two_steps

SCREENSHOT = "TEST_SCREENSHOT"  # where to put the picture that docs/ has

pytestmark = pytest.mark.browser


def skip_questions(url: str, user: str, password: str) -> None:
    """Answer the questions that the dashboard first asks each new user."""
    with httpx.Client(base_url=f"{url}/api/v1", trust_env=False, timeout=60) as client:
        form = {"grant_type": "password", "username": user, "password": password}
        token = client.post("/login", data=form).raise_for_status().json()["access_token"]
        answers = {"awareness_channels": ["friend"], "finished_onboarding_survey": True}
        client.put(
            "/current-user",
            json={"email_opted_in": False, "user_metadata": answers},
            headers={"Authorization": f"Bearer {token}"},
        ).raise_for_status()


def test_the_dashboard_shows_who_ran_a_pipeline(
    me: Account, zenml_server: ZenMLServer, browser: webdriver.Chrome
) -> None:
    make_stack(service_account=me.name)
    run = two_steps()
    password = SecretStr(uuid.uuid4().hex)
    user = f"reader-{uuid.uuid4().hex[:8]}"
    zenml_server.create_user(user, password)
    skip_questions(zenml_server.url, user, password.get_secret_value())
    page = f"{zenml_server.url}/projects/default/runs/{run.id}"
    wait = WebDriverWait(browser, 60)
    browser.get(page)
    wait.until(present((By.NAME, "username"))).send_keys(user)
    browser.find_element(By.NAME, "password").send_keys(password.get_secret_value())
    browser.find_element(By.CSS_SELECTOR, "form button").click()
    wait.until(lambda browser: "/login" not in browser.current_url)
    browser.get(page)
    wait.until(present((By.XPATH, "//button[@role='tab'][.='Metadata']"))).click()
    card = wait.until(present((By.XPATH, "//*[.='service_account_check']")))
    browser.execute_script("arguments[0].click()", card)
    wait.until(lambda browser: me.name in browser.find_element(By.TAG_NAME, "body").text)
    shown = browser.find_element(By.TAG_NAME, "body").text
    print(shown)
    for line in (me.name, zenml_server.url, "passed", "5. zenml authorized"):
        assert line in shown
    if SCREENSHOT in os.environ:
        browser.save_screenshot(os.environ[SCREENSHOT])

from __future__ import annotations

from pathlib import Path

import pytest

from mlauth import ZenMLCredentials
from mlauth.errors import InvalidProfile
from mlauth.profiles import load_profile
from mlauth.profiles import settings as mlauth_settings

GOOD = """
[profiles.prod.zenml]
store_url = "https://zenml.example.com/"
api_key = "file:///run/secrets/zenml/api-key"
service_account = "prefect-prod"
[profiles.prod.env]
HF_TOKEN = "env://CI_HF_TOKEN"
[profiles.dev.env]
HF_TOKEN = "memory://hf"
[profiles.empty]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mlauth.toml"


def refusal(file: Path, name: str = "prod") -> str:
    with pytest.raises(InvalidProfile) as caught:
        load_profile(name, str(file))
    message = str(caught.value)
    assert "\n" not in message
    assert "canary" not in message
    return message


def test_a_profile_is_read(file: Path) -> None:
    file.write_text(GOOD)
    profile = load_profile("prod", str(file))
    zenml, env = profile.systems["zenml"], profile.systems["env"]
    assert isinstance(zenml, ZenMLCredentials)
    assert zenml.store_url == "https://zenml.example.com"
    assert zenml.service_account == "prefect-prod"
    assert str(env.references()["HF_TOKEN"]) == "env://CI_HF_TOKEN"
    assert [item.system for item in profile.credentials()] == ["zenml", "env"]
    assert [item.system for item in load_profile("dev", str(file)).credentials()] == ["env"]


def test_the_environment_does_not_redirect_a_profile(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(GOOD)
    (file.parent / ".env").write_text('PROFILES={"prod":{}}')
    monkeypatch.chdir(file.parent)
    for name in ("PROFILES", "MLAUTH_PROFILES", "PROFILES__PROD__ZENML__STORE_URL"):
        monkeypatch.setenv(name, '{"prod": {"zenml": {"store_url": "https://evil.example.com"}}}')
    profile = load_profile("prod")
    zenml = profile.systems["zenml"]
    assert isinstance(zenml, ZenMLCredentials)
    assert zenml.store_url == "https://zenml.example.com"


def test_a_profile_that_is_not_there_is_named_with_those_that_are(file: Path) -> None:
    file.write_text(GOOD)
    assert refusal(file, "stage") == f"{file} has no profile 'stage' (it has: prod, dev, empty)"
    assert "profiles.empty is empty" in refusal(file, "empty")
    file.write_text("")
    assert "(it has: none)" in refusal(file)


def test_another_profile_that_is_wrong_does_not_matter(file: Path) -> None:
    file.write_text(GOOD + '[profiles.half.zenml]\nstore_url = "x"\n')
    assert "zenml" in load_profile("prod", str(file)).systems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profiles.prod.zenml]\nstore_ur = 'canary'", "profiles.prod.zenml.store_ur: there is no"),
        ("[profiles.prod.zenml]\napi_key = 'env://A'", "profiles.prod.zenml.store_url: is missing"),
        (
            "[profiles.prod.zenml]\nstore_url='https://a'\napi_key='ZENKEY_canary'",
            "profiles.prod.zenml.api_key: a literal stands where a secret reference belongs",
        ),
        ("[profiles.prod.env]\nA = 'canary'", "profiles.prod.env.A: a literal"),
        ("[profiles.prod.env]\nPATH = 'env://B'", "profiles.prod.env: PATH changes how programs"),
        ("[profiles.prod.env]\nA = 3", "profiles.prod.env.A: a literal"),
        ("[profiles.prod.zenlm]\na = 'canary'", "profiles.prod.zenlm: there is no such setting"),
        (
            "[profiles.prod.zenml_admn]\na = 'canary'",
            "profiles.prod.zenml_admn: there is no such setting; check the spelling (the systems",
        ),
        ("[profiles.prod.zenml_admin]\nuser = 3", "profiles.prod.zenml_admin.password: is missing"),
        ("[profiles.prod.systems]\na = 'canary'", "profiles.prod.systems: there is no such"),
        ("[profiles.prod]\nexpired = 'canary'", "profiles.prod.expired: Input should be"),
        ("[profile.prod.zenml]\na = 'canary'", "profile: there is no such setting"),
        ("profiles = 'canary'", "profiles: Input should be a valid dictionary"),
        ("[profiles]\nprod = 'canary'", "profiles.prod: Input should be a valid dictionary"),
        ("[profiles.prod.zenml\nkey = 'canary'", "is not valid TOML, correct it: "),
        ("a = 'canary", "is not valid TOML, correct it: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    message = refusal(file)
    assert message.startswith(str(file))
    assert said in message


@pytest.mark.parametrize("field", ["service_account", "stack", "project", "ca_bundle"])
def test_a_key_in_the_place_of_a_name_is_not_echoed(file: Path, field: str) -> None:
    file.write_text(
        f"[profiles.prod.zenml]\nstore_url='https://a'\napi_key='env://A'\n{field}='ZENKEY_canary'"
    )
    assert f"profiles.prod.zenml.{field}: a literal key stands where only names" in refusal(file)


def test_several_mistakes_are_named_at_once(file: Path) -> None:
    file.write_text("[profiles.prod.zenml]\nstore_url = 'ftp://x'\nnope = 1\napi_key = 'env://A'")
    message = refusal(file)
    assert "store_url: must start with https://" in message
    assert "nope: there is no such setting" in message


def test_a_file_that_cannot_be_read_says_why(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no file" in refusal(file)
    monkeypatch.chdir(file.parent)
    assert f"there is no file mlauth.toml in {file.parent}" in refusal(Path("mlauth.toml"))
    file.write_bytes(b"a = '\xff'")
    assert refusal(file).endswith("is not UTF-8 text: store it as UTF-8")


def test_a_setting_that_cannot_be_used_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAUTH_TIMEOUT", "canary")
    with pytest.raises(InvalidProfile) as caught:
        mlauth_settings()
    assert "MLAUTH_TIMEOUT" in str(caught.value)
    assert "canary" not in str(caught.value)

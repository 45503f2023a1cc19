"""Faults of `mlauth.toml`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlauth
from mlauth import stores, systems
from mlauth.errors import InvalidProfile
from tests.faults.tables import Row
from tests.support.zenml_keys import api_key

SECTIONS = ", ".join(f"[{name}]" for name in systems._OURS)
ZENML = '[profiles.p.zenml]\nstore_url = "https://zenml.example.com"\n'
ZENML_AND_KEY = f'{ZENML}api_key = "env://A"\n'
LITERAL = (
    "mlauth.toml: SETTING: a literal stands where a secret reference belongs; it has probably been "
    "stored in clear: rotate it, put it into a store and name it as scheme://where/what, for "
    "instance file:///run/secrets/team/api-key"
)


@dataclass(frozen=True)
class WrongProfile(Row):
    """A file that is wrong.

    Attributes:
        text: the file, if it is there.
        setting: what the line names.
    """

    text: str | bytes | None = None
    setting: str = "SETTING"


def _row(
    what: str,
    line: str,
    text: str | bytes | None = None,
    setting: str = "SETTING",
    *,
    shown: bool = True,
) -> WrongProfile:
    return WrongProfile(what, "InvalidProfile", line, text, setting, shown=shown)


def _url(line: str, url: str) -> WrongProfile:
    text = f'[profiles.p.zenml]\nstore_url = "{url}"\napi_key = "env://A"\n'
    setting = "profiles.p.zenml" if line.startswith("store_url") else "profiles.p.zenml.store_url"
    return _row("URL", f"mlauth.toml: SETTING: {line}", text, setting)


def _reference(line: str, reference: str) -> WrongProfile:
    text = f'[profiles.p.env]\nTOKEN = "{reference}"\n'
    return _row("reference", f"mlauth.toml: SETTING: {line}", text, "profiles.p.env.TOKEN")


ROWS = [
    _row(
        "file",
        "there is no file mlauth.toml in FOLDER: name it with --config, config= or MLAUTH_CONFIG",
    ),
    _row(
        "file",
        "mlauth.toml is not valid TOML, correct it: REASON (at line 1, column 12)",
        "[profiles.p\nkey = 'canary'",
    ),
    _row(
        "file", "mlauth.toml is not UTF-8 text: store it as UTF-8", b"[profiles]\na = 'canary\xff'"
    ),
    _row(
        "profile", "mlauth.toml has no profile 'p' (it has: q)", "[profiles.q.env]\nA = 'env://B'"
    ),
    _row("profile", f"mlauth.toml: profiles.p is empty: give it one of {SECTIONS}", "[profiles.p]"),
    _row(
        "setting",
        "mlauth.toml: SETTING: there is no such setting; check the spelling",
        f"{ZENML_AND_KEY}api_kye = 'canary'",
        "profiles.p.zenml.api_kye",
    ),
    _row("setting", "mlauth.toml: SETTING: is missing: add it", ZENML, "profiles.p.zenml.api_key"),
    _row(
        "setting",
        "mlauth.toml: SETTING: is a template that nothing replaced: check the name in it",
        f"{ZENML_AND_KEY}stack = '{{{{ stack }}}}'",
        "profiles.p.zenml.stack",
    ),
    _row(
        "setting",
        "mlauth.toml: SETTING: is empty: remove it, or give a name",
        f"{ZENML_AND_KEY}service_account = ''",
        "profiles.p.zenml.service_account",
    ),
    _row(
        "setting",
        "mlauth.toml: SETTING: a literal key stands where only names and references belong; it has "
        "probably been stored in clear: rotate it, and put it into a store",
        f"{ZENML_AND_KEY}service_account = 'ZENKEY_canary'",
        "profiles.p.zenml.service_account",
        shown=False,
    ),
    _row(
        "reference", LITERAL, f"{ZENML}api_key = '{api_key('canary')}'", "profiles.p.zenml.api_key"
    ),
    _reference(
        f"no store is called 'azurevk'; mlauth knows {', '.join(stores._OURS)}",
        "azurevk://acme/token",
    ),
    _reference(
        "the env reference env://A has the unknown option 'version' (known: none): remove it",
        "env://A?version=1",
    ),
    _url(
        "store_url: http would send the key over the network in clear: use https, or set "
        "allow_insecure if the network is protected otherwise",
        "http://zenml.example.com",
    ),
    _url(
        "has a user or password in it: remove it, and rotate it if it was real",
        "https://me:canary@zenml.example.com",
    ),
    _url("has white space in it: remove it", "https://zenml.example.com "),
    _row(
        "variable",
        "mlauth.toml: SETTING: LD_PRELOAD changes how programs start: a secret is never put there",
        "[profiles.p.env]\nLD_PRELOAD = 'env://A'",
        "profiles.p.env",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_profile_that_is_wrong_is_one_line(
    row: WrongProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if row.text is not None:
        text = row.text if isinstance(row.text, bytes) else row.text.encode()
        (tmp_path / "mlauth.toml").write_bytes(text)
    with pytest.raises(InvalidProfile) as caught:
        mlauth.check("p")
    said = str(caught.value).replace(row.setting, "SETTING").replace(str(tmp_path), "FOLDER")
    said = re.sub("correct it: .* \\(", "correct it: REASON (", said)
    assert said == row.line
    assert "canary" not in said

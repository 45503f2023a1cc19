"""Tokens for services of Azure for which mlauth has no store."""

from __future__ import annotations

import os
import sys

import pytest

from mlauth.azure import clouds
from mlauth.azure.identity import choose
from mlauth.azure.tokens import Tokens
from mlauth.deadline import Deadline
from mlauth.errors import MissingDependency, StageUnknown, StoreUnreachable
from mlauth.net.faults import FaultError
from mlauth.report import Stage, Status, SystemReport
from mlauth.stages import Stages
from tests.support.azure import Azure, become
from tests.support.identity import CLOUDS

ANOTHER, VAULTS = "https://management.azure.com", "https://vault.azure.net"
SUFFIXES = {
    clouds.PUBLIC: ".blob.core.windows.net",
    clouds.CHINA: ".blob.core.chinacloudapi.cn",
    clouds.GOVERNMENT: ".blob.core.usgovcloudapi.net",
}


def tokens(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Tokens:
    become(monkeypatch, environment)
    return Tokens(choose(os.environ), clouds.PUBLIC, "acme")


@pytest.mark.parametrize("kind", ["environment", "service_principal"])
def test_each_audience_has_a_token_of_its_own(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    identity = azure.identity("get")
    ours = tokens(monkeypatch, getattr(azure, kind)(identity))
    given = {
        audience: {ours.get(audience, deadline=Deadline(20)).token for _ in range(2)}
        for audience in (ANOTHER, VAULTS)
    }
    assert len(identity.requests) == 2
    for audience, (token,) in given.items():
        assert azure.directory.claims(token, CLOUDS["public"], audience)["aud"] == audience


def test_what_issues_no_token_is_a_fault(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = azure.identity("get")
    ours = tokens(monkeypatch, azure.environment(identity))
    identity.troubles.throttle(1, retry_after=7)
    with pytest.raises(FaultError, match="throttles us") as caught:
        ours.get(ANOTHER, deadline=Deadline(20))
    fault = caught.value.fault
    assert (fault.status, fault.wait, fault.unknown, fault.transient) == (429, 7, True, True)
    assert "vault" not in fault.line


def test_what_issues_no_token_leaves_a_stage_unknown(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = azure.identity("get")
    ours, report = tokens(monkeypatch, azure.environment(identity)), SystemReport("acme")
    identity.troubles.fail(503)
    stages = Stages(report, Deadline(20))
    with (
        pytest.raises(StageUnknown, match=r"has a fault \(HTTP 503\)"),
        stages.stage(Stage.AUTHENTICATED),
    ):
        ours.get(ANOTHER, deadline=stages.deadline)
    assert [result.status for result in report.results] == [Status.UNKNOWN]


def test_a_missing_library_names_the_extra_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(MissingDependency, match=r"the library for acme .* mlauth\[acme\]"):
        Tokens(choose({}), clouds.PUBLIC, "acme")


@pytest.mark.parametrize(
    ("host", "said", "authority"),
    [
        ("data.blob.core.windows.net", "", clouds.PUBLIC),
        ("data.blob.core.chinacloudapi.cn", "", clouds.CHINA),
        ("data.blob.core.chinacloudapi.cn", "https://login.microsoftonline.com/", clouds.CHINA),
        ("data.blob.core.usgovcloudapi.net", f"https://{clouds.GOVERNMENT}", clouds.GOVERNMENT),
        ("data.acme.example", "", clouds.PUBLIC),
        ("data.acme.example", "login.acme.example:8443", "login.acme.example:8443"),
    ],
)
def test_a_hosts_cloud_says_who_issues_its_tokens(host: str, said: str, authority: str) -> None:
    assert clouds.authority(host, SUFFIXES, {clouds.AUTHORITY: said}) == authority


def test_the_hosts_that_are_asked_have_a_regions() -> None:
    region = {"AZURE_REGIONAL_AUTHORITY_NAME": "westeurope"}
    assert clouds.asked(clouds.CHINA, {}) == [clouds.CHINA]
    assert clouds.asked(clouds.CHINA, region) == [clouds.CHINA, f"westeurope.{clouds.CHINA}"]
    assert clouds.asked(clouds.PUBLIC, region)[1] == "westeurope.login.microsoft.com"


@pytest.mark.parametrize("said", ["file:///etc/passwd", "http://login.example", "a b", "me@host"])
def test_an_authority_that_is_no_host_is_said(said: str) -> None:
    with pytest.raises(StoreUnreachable, match="AZURE_AUTHORITY_HOST is not a host"):
        clouds.named({clouds.AUTHORITY: said})

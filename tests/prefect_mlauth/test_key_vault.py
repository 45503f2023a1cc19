"""Pull steps that read Azure Key Vault, in both ways of Prefect."""

from __future__ import annotations

import pytest

from prefect_mlauth import ReferencedSecret
from tests.prefect_mlauth.conftest import Project, digest, export_secrets, zenml_login
from tests.support.accounts import Account
from tests.support.azure import Azure
from tests.support.servers import PrefectServer

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("way", ["worker", pytest.param("execute", marks=pytest.mark.load)])
def test_a_flows_own_azure_identity_becomes_that_of_no_later_step_and_of_no_block(
    way: str, project: Project, prefect_api: PrefectServer, azure: Azure
) -> None:
    """The flow runs in the engine, which has run no step in one of the two ways."""
    vault, worker, other = azure.vault(), azure.identity("get", "set"), azure.identity("get", "set")
    vault.put("key", "canary-of-the-key")
    vault.put("token", "canary-token")
    ReferencedSecret(reference=f"azurekv://{vault.name}/key").save(vault.name)
    of_the_flow = azure.service_principal(azure.identity("get", "set"))
    names = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_ID", "AZURE_TENANT_ID")
    for name in names:
        vault.put(name.replace("_", "-"), of_the_flow[name])
    deployment = project.deploy(
        "referenced_secret",
        export_secrets(
            **{name: f"azurekv://{vault.name}/{name.replace('_', '-')}" for name in names}
        ),
        export_secrets(HF_TOKEN=f"azurekv://{vault.name}/token"),
        file="block_flows.py",
    )
    run = project.run(
        way,
        deployment,
        BLOCK=vault.name,
        # A user-assigned identity, which AZURE_CLIENT_ID names.
        **azure.environment(other, assigned=[worker]),
        AZURE_CLIENT_ID=worker.client_id,
    )
    assert run.result.state_type == "COMPLETED", run.text
    env = run.facts["env"]
    assert env["AZURE_CLIENT_SECRET"] == digest(of_the_flow["AZURE_CLIENT_SECRET"])
    assert env["HF_TOKEN"] == digest("canary-token")
    assert run.facts["new"] == digest("canary-of-the-key-new")
    assert {asked.path for asked in worker.requests} == {"/msi/token"}
    assert other.requests == []


def test_what_key_vault_refuses_ends_the_run_with_one_line(
    project: Project, account: Account, azure: Azure
) -> None:
    vault = azure.vault()
    vault.put("zenml-api-key", account.key)
    vault.deny("ForbiddenByRbac")
    reference = f"azurekv://{vault.name}/zenml-api-key"
    deployment = project.deploy("show", zenml_login(account, api_key=reference))
    run = project.run("execute", deployment, **azure.environment())
    assert run.result.state_type in ("FAILED", "CRASHED")
    assert run.facts == {}
    line = (
        f"{reference} cannot be read: managed identity (App Service, IDENTITY_ENDPOINT) has no "
        "role for it: assign 'Key Vault Secrets User'"
    )
    assert line in run.text
    assert account.key not in run.output + run.text

"""The block `ZenML Credentials`."""

from __future__ import annotations

import asyncio
from typing import Literal

from prefect._internal.compatibility.async_dispatch import async_dispatch
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from mlauth import systems
from mlauth.activation import prepare
from mlauth.checking import check
from mlauth.deadline import Deadline
from mlauth.report import CheckReport
from mlauth.systems import zenml
from prefect_mlauth.blocks.active import Active
from prefect_mlauth.blocks.references_only import ReferencesOnly


class ZenMLCredentials(ReferencesOnly):
    """Lets a part of a flow work on a ZenML server as a service account.

    Example:
        ```python
        from prefect import flow
        from prefect_mlauth import ZenMLCredentials

        @flow(log_prints=True)
        def train():
            zenml = ZenMLCredentials.load("BLOCK_NAME")
            with zenml.login() as login:
                print(login.account)
        ```
    """

    _block_type_name = "ZenML Credentials"

    store_url: str = Field(
        title="Server URL",
        description="The ZenML server, https://…; http only to the flow's own machine.",
    )
    api_key: str = Field(
        title="API key (a reference)",
        description=(
            "Where the service account's API key lives, for instance "
            "file:///run/secrets/zenml/api-key. Never the key itself: what is saved here can be "
            "read by everybody who can see this block, so a key would have to be rotated."
        ),
    )
    service_account: str | SkipJsonSchema[None] = Field(
        default=None,
        title="Service account",
        description="The name of the service account that the key must belong to.",
    )
    stack: str | SkipJsonSchema[None] = Field(
        default=None, title="Stack", description="The name of the stack to run on."
    )
    project: str | SkipJsonSchema[None] = Field(
        default=None, title="Project", description="The name of the project to run in."
    )
    credential: Literal["api_key", "api_token"] = Field(
        default="api_key",
        title="Credential",
        description=(
            "What the flow's environment gets: the long-lived key, or only a token of one login."
        ),
    )
    verify: bool = Field(
        default=True,
        title="Verify",
        description="Prove with one login that the server takes the key, before anything is set.",
    )
    timeout: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        title="Time limit",
        description="Seconds for reading the key and logging in together.",
    )
    ca_bundle: str | SkipJsonSchema[None] = Field(
        default=None,
        title="CA bundle",
        description="A file with the CA certificates that the server's certificate is from.",
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow http",
        description="Let http go beyond the flow's own machine, in clear.",
    )

    def login(self) -> Active:
        """Have the credentials in the environment: `with block.login():`, or `async with`.

        ZenML's client works as the service account until the block of code ends, and then as
        before. In `async with` the event loop does not wait for the server, but the environment
        is that of the whole process: coroutines and threads that run meanwhile see it too.

        Returns:
            What `with` and `async with` take; they give an `mlauth.Activation`, and raise an
            `mlauth.MLAuthError` of one line if nothing was set. It may be used again when it ended.
        """
        return Active(
            lambda: prepare(self._credentials(), Deadline(self.timeout), verify=self.verify)
        )

    async def acheck(self) -> CheckReport:
        """Find out if the server takes the key; see `check`."""
        return await asyncio.to_thread(self._check)

    @async_dispatch(acheck)
    def check(self) -> CheckReport:
        """Find out if the server takes the key. Sets nothing.

        From async code it is awaited: `await block.check()`.

        Returns:
            The report; one that failed or is unknown is returned, not raised.
        """
        return self._check()

    def _check(self) -> CheckReport:
        return check(self._credentials(), timeout=self.timeout)

    def _validate_fields(self) -> None:
        self._credentials()

    def _credentials(self) -> systems.Credentials:
        fields = self.model_dump(include=set(zenml.ZenMLCredentials.model_fields))
        return zenml.ZenMLCredentials.of(self._where(), fields)

"""The block `mlauth Profile`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from mlauth.activation import prepare
from mlauth.checking import Subject
from mlauth.deadline import Deadline
from mlauth.errors import InvalidProfile
from mlauth.profiles import DEFAULT_FILE, Profile
from mlauth.systems import in_one_line
from prefect_mlauth import logins
from prefect_mlauth.blocks.active import Active
from prefect_mlauth.blocks.references_only import SEEN_BY_ALL, ReferencesOnly


class MLAuthProfile(ReferencesOnly):
    """Gives a part of a flow every credential of one environment (dev, test, prod).

    Example:
        ```python
        from prefect import flow
        from prefect_mlauth import MLAuthProfile

        @flow(log_prints=True)
        def train():
            profile = MLAuthProfile.load("BLOCK_NAME")
            with profile.activate() as activation:
                print(activation.variables)
        ```
    """

    _block_type_name = "mlauth Profile"

    profile: str | SkipJsonSchema[None] = Field(
        default=None,
        title="Profile",
        description="The name of a profile in the file. Leave it empty if you give the content.",
    )
    config: str = Field(
        default=DEFAULT_FILE,
        title="File",
        description="The file with the profiles, where the flow runs.",
    )
    content: dict[str, Any] | SkipJsonSchema[None] = Field(
        default=None,
        title="Content",
        description=(
            "The profile itself, in place of a name: the content of [profiles.NAME] in "
            'mlauth.toml, for instance {"env": {"HF_TOKEN": "file:///run/secrets/hf/token"}}. '
            f"References only, never a secret itself. {SEEN_BY_ALL}"
        ),
    )
    verify: bool = logins.OPTIONS["verify"]
    timeout: float = logins.OPTIONS["timeout"]

    def activate(self) -> Active:
        """Keep the credentials in the environment: `with block.activate():`, or `async with`.

        The end of the block of code restores the environment. In `async with`, the event loop goes
        on while stores and services are asked. But the environment belongs to the whole process:
        coroutines and threads that run meanwhile see the variables.

        Returns:
            A context manager for `with` and `async with`, which gives an `mlauth.Activation`. If
            nothing was set, entering it raises an `mlauth.MLAuthError` of one line. After its end,
            it may be used again.
        """
        return Active(
            lambda: prepare(
                self._subject(), Deadline(self.timeout), verify=self.verify, config=self.config
            )
        )

    def _validate_fields(self) -> None:
        self._subject()

    def _subject(self) -> Subject:
        if (self.profile is None) == (self.content is None):
            raise InvalidProfile(
                f"{self._where()}: give either profile (the name of a profile in the file) or "
                "content (the profile itself)"
            )
        if self.content is None:
            assert self.profile is not None
            return self.profile
        try:
            profile = Profile.model_validate(self.content)
        except ValidationError as error:
            wrong = in_one_line(error, lambda key: ".".join(map(str, ("content", *key))))
            raise InvalidProfile(f"{self._where()}: {wrong}") from None
        if not profile.credentials():
            raise InvalidProfile(
                f"{self._where()}: content is empty: give it a system's section, or env"
            )
        return profile

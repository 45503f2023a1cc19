"""The component's flavor for ZenML: its name, its type and its configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterConfig, BaseAlerterFlavor

from mlauth.profiles import DEFAULT_FILE


class ServiceAccountCheckConfig(BaseAlerterConfig):
    """The component's configuration; ZenML's dashboard shows it as a form."""

    service_account: str | None = Field(
        default=None,
        description="Name of the service account that pipelines must run as. If neither this nor "
        "the profile names one, any service account is accepted.",
    )
    profile: str | None = Field(
        default=None,
        description="Profile in mlauth.toml whose other credentials are checked, too, when a "
        "pipeline is submitted.",
    )
    config_file: str = Field(
        default=DEFAULT_FILE,
        description="The file with the profile, relative to the source root (so that it is in "
        "the steps' containers).",
    )
    check_steps: bool = Field(
        default=True, description="Check the connection where each step runs, too."
    )
    on_failure: Literal["fail", "warn"] = Field(
        default="fail",
        description="Whether a failed check stops the pipeline. An unknown result (throttled, a "
        "5xx, no answer) is only a warning.",
    )
    requirements: list[str] | None = Field(
        default=None,
        description="Where step images get mlauth from: requirements such as the URL of a wheel, "
        "or [] if the image has it. Stacks whose images ZenML builds need this setting.",
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds for a whole check.")


class ServiceAccountCheckFlavor(BaseAlerterFlavor):
    """A component that checks the account of a pipeline.

    It is an alerter, because a stack can have several alerters, and they are active in every step.
    No other type of component has both properties.
    """

    @property
    def name(self) -> str:
        """See `zenml.stack.Flavor.name`."""
        return "mlauth"

    @property
    def display_name(self) -> str:
        """See `zenml.stack.Flavor.display_name`."""
        return "Service account check (mlauth)"

    @property
    def config_class(self) -> type[ServiceAccountCheckConfig]:
        """See `zenml.stack.Flavor.config_class`."""
        return ServiceAccountCheckConfig

    @property
    def implementation_class(self) -> type[BaseAlerter]:
        """See `zenml.stack.Flavor.implementation_class`."""
        from zenml_mlauth.alerter import ServiceAccountCheck

        return ServiceAccountCheck

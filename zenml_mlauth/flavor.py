"""What ZenML reads to know the component: its name, its type and its configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterConfig, BaseAlerterFlavor

from mlauth.profiles import DEFAULT_FILE


class ServiceAccountCheckConfig(BaseAlerterConfig):
    """The component's configuration; ZenML's dashboard shows it as a form."""

    service_account: str | None = Field(
        default=None,
        description="Name of the service account that pipelines must run as. Without it (and "
        "without one in the profile) any service account will do.",
    )
    profile: str | None = Field(
        default=None,
        description="Profile of mlauth.toml whose other credentials are checked too, when a "
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
        description="Whether a failed check stops the pipeline. One that could not find out "
        "(throttled, a 5xx, no answer) only ever warns.",
    )
    requirements: list[str] | None = Field(
        default=None,
        description="Where step images get mlauth from: requirements such as the URL of a wheel, "
        "or [] if the image has it. Must be given for stacks whose images ZenML builds.",
    )
    timeout: float = Field(default=30.0, gt=0, description="Seconds for a whole check.")


class ServiceAccountCheckFlavor(BaseAlerterFlavor):
    """A component that checks as whom a pipeline runs.

    It is an alerter because that is the one type of which a stack can have several and which is
    active in every step without the step naming it.
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

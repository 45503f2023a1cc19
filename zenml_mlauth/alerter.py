"""The stack component: checks at submission and in every step, and passes alerts on."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from zenml.alerter.base_alerter import BaseAlerter, BaseAlerterStepParameters
from zenml.client import Client
from zenml.metadata.metadata_types import MetadataType
from zenml.stack import StackValidator
from zenml.utils import source_utils

from mlauth.errors import CheckFailed, InvalidComponent, MLAuthError
from mlauth.extras import extras_of
from mlauth.profiles import load_profile
from mlauth.report import CheckReport
from zenml_mlauth.connection import check_connection, failure
from zenml_mlauth.flavor import ServiceAccountCheckConfig
from zenml_mlauth.output import mask_output

if TYPE_CHECKING:
    from zenml.config.step_run_info import StepRunInfo
    from zenml.stack import Stack

METADATA = "service_account_check"  # the key of the result in a run's metadata

logger = logging.getLogger("mlauth")


class ServiceAccountCheck(BaseAlerter):
    """Stops a pipeline that would not run as the right service account."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # This comes before ZenML imports a step's module, whose top level may print secrets.
        mask_output()

    @property
    def config(self) -> ServiceAccountCheckConfig:
        """See `zenml.stack.StackComponent.config`."""
        return cast("ServiceAccountCheckConfig", self._config)

    @property
    def validator(self) -> StackValidator:
        """Check at submission. ZenML validates several times for each pipeline run."""

        def validate(_stack: Stack) -> tuple[bool, str]:
            line = failure(
                self._check(others=self.config.profile is not None), self.config.on_failure
            )
            return line is None, line or ""

        return StackValidator(custom_validation_function=validate)

    def prepare_step_run(self, info: StepRunInfo) -> None:
        """Mask the step's output, and check the connection where the step runs.

        Raises:
            CheckFailed: the step must not run.
        """
        mask_output()
        if self.config.check_steps:
            report = self._check(others=False)
            if failure(report, self.config.on_failure) is not None:
                raise CheckFailed(report)

    def get_pipeline_run_metadata(self, run_id: UUID) -> dict[str, MetadataType]:
        """Return the metadata for the dashboard: account, server, and the stages of the check."""
        report = self._check(others=False)
        zenml = report.systems[0]
        facts = {
            "account": zenml.account,
            "server": zenml.facts.get("server_url"),
            "server_version": zenml.facts.get("server_version"),
        }
        stages = {
            f"{number}. {result.system} {result.stage.value}": (
                f"{result.status.value} in {result.seconds:.3f} s"
            )
            for number, result in enumerate(report.results, 1)
        }
        # The dashboard makes a card of one dictionary, and in it no name clashes with others.
        return {
            METADATA: {
                **{name: said for name, said in facts.items() if said},
                "status": report.status.value,
                "seen_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                **stages,
            }
        }

    @property
    def requirements(self) -> set[str]:
        """Return the requirements of step images; see `zenml.stack.StackComponent.requirements`.

        ZenML reads this only when it builds an image.

        Raises:
            InvalidComponent: the setting is missing. There is no default: mlauth is on no public
                index, so anybody could publish other code there under its name.
        """
        if self.config.requirements is None:
            extras = ",".join(sorted(self._extras()))
            mlauth = f"mlauth{f'[{extras}]' if extras else ''}"
            version = metadata.version("mlauth")
            raise InvalidComponent(
                f"alerter {self.name!r} has no `requirements`, so ZenML does not know from where "
                f"step images get mlauth, which is on no public index: zenml alerter update "
                f"{self.name} --requirements='[\"{mlauth} @ https://…/mlauth-{version}-py3-none-any"
                ".whl\"]', or --requirements='[]' if the image has it"
            )
        return set(self.config.requirements)

    def post(self, message: str, params: BaseAlerterStepParameters | None = None) -> bool:
        """Pass a message to the next alerter of the stack."""
        listener = self._listener()
        if listener is None:
            logger.warning("alerter %r: nobody listens to this message: %s", self.name, message)
            return False
        return listener.post(message, params)

    def ask(self, question: str, params: BaseAlerterStepParameters | None = None) -> bool:
        """Pass a question to the next alerter of the stack; without one, the answer is no."""
        listener = self._listener()
        if listener is None:
            logger.warning("alerter %r: nobody listens to this question: %s", self.name, question)
            return False
        return listener.ask(question, params)

    def _check(self, *, others: bool) -> CheckReport:
        config = self.config
        return check_connection(
            config.service_account,
            config.profile,
            config.config_file,
            others=others,
            timeout=config.timeout,
        )

    def _listener(self) -> BaseAlerter | None:
        # Older versions of ZenML allow only one alerter in a stack, and have no `alerters`.
        alerters = getattr(Client().active_stack, "alerters", {})
        return next(
            (each for each in alerters.values() if not isinstance(each, ServiceAccountCheck)), None
        )

    def _extras(self) -> set[str]:
        """Return the extras of mlauth that the profile's schemes and systems need."""
        if self.config.profile is None:
            return set()
        path = os.path.join(source_utils.get_source_root(), self.config.config_file)
        try:
            found = load_profile(self.config.profile, path).credentials()
        except MLAuthError:
            return set()  # the check at submission says what is wrong
        schemes = {ref.scheme for item in found for ref in item.references().values()}
        used = schemes | {item.system for item in found}
        return extras_of(used - {"zenml"})  # ZenML puts itself into its images

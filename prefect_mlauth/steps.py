"""Pull steps of a Prefect deployment: credentials for the flow, before it is imported.

Each system has a step, `<name>_login`. It is made from the model of the system's credentials when
somebody first looks it up.

A step sets variables in the environment of the flow run, and nowhere else. It returns names and
facts, which later steps can use (`{{ id.account }}`), and no secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prefect.logging import get_logger
from prefect.logging.configuration import PROCESS_LOGGING_CONFIG
from pydantic import TypeAdapter, ValidationError

from mlauth.activation import prepare
from mlauth.deadline import Deadline
from mlauth.environment import Activating
from mlauth.errors import InvalidCredentials, MLAuthError
from mlauth.folders import remove_at_exit
from mlauth.masking import guard_output
from mlauth.profiles import DEFAULT_FILE
from mlauth.report import CheckReport
from prefect_mlauth import handlers, runs

if TYPE_CHECKING:
    from prefect_mlauth._logins import *  # noqa: F403 - the steps of our systems, for type checkers


def __getattr__(name: str) -> Any:
    """Make the step of a system: Prefect and `import` look it up by its name."""
    system, login, rest = name.rpartition("_login")
    if login and not rest:
        from prefect_mlauth import logins

        if logins.is_known(system):
            globals()[name] = step = _step_of(system)
            return step
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the steps of all systems, too."""
    from prefect_mlauth import logins

    return sorted({*globals(), *(f"{system}_login" for system in logins.names())})


def _step_of(system: str) -> Callable[..., dict[str, Any]]:
    """Make the step that logs in to a system, from the model of its credentials."""
    from mlauth import systems
    from prefect_mlauth import logins

    model = systems.load(system)
    name, signature = f"{system}_login", logins.signature(model)

    def step(*args: Any, **inputs: Any) -> dict[str, Any]:
        # An input that is not known is refused as a field of the credentials.
        known = {each: value for each, value in inputs.items() if each in signature.parameters}
        given = signature.bind_partial(*args, **known)
        given.apply_defaults()
        fields = inputs | given.arguments
        verify, timeout = fields.pop("verify"), fields.pop("timeout")
        return _activate(
            lambda deadline: prepare(
                model.of(name, fields), deadline, verify=_flag("verify", verify)
            ),
            timeout,
        )

    step.__name__ = step.__qualname__ = name
    step.__module__ = __name__
    step.__doc__ = logins.docstring(model, f"{__name__}.{name}")
    step.__annotations__ = {
        **{each: parameter.annotation for each, parameter in signature.parameters.items()},
        "return": signature.return_annotation,
    }
    step.__signature__ = signature  # type: ignore[attr-defined]  # `inspect` reads it
    return step


def export_secrets(env: dict[str, str], *, timeout: float = 30.0) -> dict[str, Any]:
    """Set environment variables to secrets; later steps can use them as `{{ $NAME }}`.

    Args:
        env: a reference for each name of a variable. Names that change how programs work are
            refused.
        timeout: seconds for everything together.

    Returns:
        `variables`, the names of the variables that were set.

    Raises:
        MLAuthError: one line that says what failed, where, why, and what to do; nothing is set.

    Example:
        ```yaml
        pull:
          - prefect_mlauth.steps.export_secrets:
              env:
                HF_TOKEN: file:///run/secrets/huggingface/token
        ```
    """
    from mlauth.systems.env import EnvironmentSecrets

    return _activate(
        lambda deadline: prepare(EnvironmentSecrets.of("export_secrets", {"env": env}), deadline),
        timeout,
    )


def activate_profile(
    profile: str, *, config: str = DEFAULT_FILE, verify: bool = True, timeout: float = 30.0
) -> dict[str, Any]:
    """Set everything that a profile of `mlauth.toml` names.

    Args:
        profile: the profile's name.
        config: the file with the profiles. After `git_clone`, give
            `{{ clone.directory }}/mlauth.toml`, because Prefect changes the directory only after
            the last step.
        verify: prove that the services take the credentials.
        timeout: seconds for everything together.

    Returns:
        The same as a login step. If several systems were asked, `systems` has the facts of each,
        by its name.

    Raises:
        MLAuthError: one line that says what failed, where, why, and what to do; nothing is set.

    Example:
        ```yaml
        pull:
          - prefect.deployments.steps.git_clone:
              id: clone
              repository: https://github.com/acme/flows.git
          - prefect_mlauth.steps.activate_profile:
              profile: prod
              config: "{{ clone.directory }}/mlauth.toml"
        ```
    """
    return _activate(
        lambda deadline: prepare(profile, deadline, verify=_flag("verify", verify), config=config),
        timeout,
    )


def _flag(name: str, value: object) -> bool:
    """Read a flag. It may be a text from a template, and the text "false" is not true."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise InvalidCredentials(f"{name} is neither true nor false") from None


def _activate(prepared: Callable[[Deadline], Activating], timeout: float) -> dict[str, Any]:
    if runs.in_hook():
        get_logger("mlauth").info(
            "mlauth sets nothing here: Prefect runs this step for hooks, in a process whose "
            "environment later runs would inherit; hooks run without credentials"
        )
        return {"variables": []}
    logger = runs.run_logger()
    activating: Activating | None = None
    try:
        guard_output()
        activating = prepared(Deadline(timeout))
        activation = activating.activate(
            lambda activation: runs.tell(logger, activation),
            owner=runs.owner(),
            settings=_masking(),
        )
        if not runs.in_resolver():
            remove_at_exit(activating.folders, lambda: True)
        return {**_facts(activation.report), "variables": list(activation.variables)}
    except BaseException as error:
        if activating is not None:
            activating.undo()
        # The engine logs the error of a step. If something else runs the step, the UI would not
        # show the error.
        if isinstance(error, MLAuthError) and runs.flow_run_id() and not runs.in_engine():
            logger.error("%s", error)  # noqa: TRY400 - one line, as the engine does
        raise


def _facts(report: CheckReport) -> dict[str, Any]:
    """Return account and facts of the services; with several systems, by the system's name."""
    facts = {
        each.system: ({"account": each.account} if each.account else {}) | each.facts
        for each in report.systems
    }
    said = {system: found for system, found in facts.items() if found}
    return {"systems": said} if len(said) > 1 else next(iter(said.values()), {})


def _masking() -> dict[str, str]:
    """Return the variables that make processes which start from here mask, as this one does."""
    handed_on = runs.flow_run_id() and not runs.in_engine()
    return handlers.environment(PROCESS_LOGGING_CONFIG) if handed_on else handlers.for_children()

"""Pull steps of a Prefect deployment: credentials for the flow, before it is imported.

What a step sets is in the environment of the flow run and nowhere else; what it returns are names
and facts, which later steps can use (`{{ id.account }}`), and no secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from prefect.logging import get_logger
from prefect.logging.configuration import PROCESS_LOGGING_CONFIG
from pydantic import TypeAdapter, ValidationError

from mlauth.activation import prepare
from mlauth.checking import DEFAULT_FILE
from mlauth.deadline import Deadline
from mlauth.environment import Activating
from mlauth.errors import InvalidCredentials, MLAuthError
from mlauth.folders import remove_at_exit
from mlauth.masking import guard_output
from mlauth.systems.env import EnvironmentSecrets
from mlauth.systems.zenml import ZenMLCredentials
from prefect_mlauth import handlers, runs


def zenml_login(
    store_url: str,
    api_key: str,
    *,
    service_account: str | None = None,
    stack: str | None = None,
    project: str | None = None,
    verify: bool = True,
    credential: Literal["api_key", "api_token"] = "api_key",
    timeout: float = 30.0,
    ca_bundle: str | None = None,
    allow_insecure: bool = False,
) -> dict[str, Any]:
    """Let the flow work on a ZenML server as a service account.

    Sets `ZENML_STORE_URL` and `ZENML_STORE_API_KEY`, and gives ZenML's client a private
    configuration directory, so that no key reaches the disk and no other run is disturbed.

    Args:
        store_url: the server, `https://…`; `http` only to this machine.
        api_key: a reference to the service account's API key, never the key.
        service_account: the name that the key must belong to.
        stack: the name of the stack to run on.
        project: the name of the project to run in.
        verify: prove with one login that the server takes the key.
        credential: `api_token` gives the flow only the token of that login, so that the
            long-lived key never enters its environment.
        timeout: seconds for everything together.
        ca_bundle: a file with the CA certificates that the server's certificate is from, or their
            PEM text.
        allow_insecure: let `http` go beyond this machine.

    Returns:
        `account` and `server_version` as the server said (with `verify`), `expires_at` (ISO 8601,
        UTC) of a token that expires, and `variables`, the names of what was set.

    Raises:
        MLAuthError: one line that says what failed, where, why, and what to do; nothing is set.

    Example:
        ```yaml
        pull:
          - prefect_mlauth.steps.zenml_login:
              store_url: https://zenml.example.com
              api_key: file:///run/secrets/zenml/api-key
              service_account: prefect-prod
        ```
    """

    def prepared(deadline: Deadline) -> Activating:
        credentials = ZenMLCredentials.of(
            "zenml_login",
            {
                "store_url": store_url,
                "api_key": api_key,
                "service_account": service_account,
                "stack": stack,
                "project": project,
                "credential": credential,
                "ca_bundle": ca_bundle,
                "allow_insecure": allow_insecure,
            },
        )
        return prepare(credentials, deadline, verify=_flag("verify", verify))

    return _activate(prepared, timeout)


def export_secrets(env: dict[str, str], *, timeout: float = 30.0) -> dict[str, Any]:
    """Set environment variables to secrets; later steps can use them as `{{ $NAME }}`.

    Args:
        env: variable name to reference. Names that change what programs do are refused.
        timeout: seconds for everything together.

    Returns:
        `variables`, the names of what was set.

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
        config: the file; after `git_clone` it is `{{ clone.directory }}/mlauth.toml`, because
            Prefect changes the directory only after the last step.
        verify: prove that the services take the credentials.
        timeout: seconds for everything together.

    Returns:
        As `zenml_login`.

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
    """Read a flag that may come from a template, as text: the text "false" is not true."""
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
        facts = activation.report.facts
        known = ("account", "server_version", "expires_at")
        return {name: facts[name] for name in known if name in facts} | {
            "variables": list(activation.variables)
        }
    except BaseException as error:
        if activating is not None:
            activating.undo()
        # The engine logs what a step raises; where it did not run it, the UI would not show it.
        if isinstance(error, MLAuthError) and runs.flow_run_id() and not runs.in_engine():
            logger.error("%s", error)  # noqa: TRY400 - one line, as the engine does
        raise


def _masking() -> dict[str, str]:
    """Return what masks in the processes that start from here; this one masks already."""
    handed_on = runs.flow_run_id() and not runs.in_engine()
    return handlers.environment(PROCESS_LOGGING_CONFIG) if handed_on else handlers.for_children()

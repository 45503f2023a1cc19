"""Registers the stack `prod`, on which only pipelines of one service account start.

Whoever manages the stacks runs this once: `python register_stack.py prefect-prod`.
"""

import sys
from contextlib import suppress

from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.exceptions import EntityExistsError


def register(service_account: str) -> None:
    """Register the flavor, the component and the stack."""
    client = Client()
    with suppress(EntityExistsError):  # all stacks share one flavor
        client.create_flavor("zenml_mlauth.ServiceAccountCheckFlavor", StackComponentType.ALERTER)
    client.create_stack_component(
        "service-account",
        flavor="mlauth",
        component_type=StackComponentType.ALERTER,
        configuration={"service_account": service_account},
    )
    client.create_stack(
        "prod",
        {
            StackComponentType.ORCHESTRATOR: "default",
            StackComponentType.ARTIFACT_STORE: "default",
            StackComponentType.ALERTER: "service-account",
        },
    )


if __name__ == "__main__":
    register(sys.argv[1])

"""A ZenML stack component that checks the account of a pipeline before its first step.

Register it with `zenml alerter flavor register zenml_mlauth.ServiceAccountCheckFlavor`; see
docs/zenml-component.md. Without the component, code can call `zenml_mlauth.check()`.
"""

from importlib.util import find_spec

if find_spec("zenml") is None:
    raise ModuleNotFoundError("zenml_mlauth needs ZenML: install mlauth[zenml]", name="zenml")

from zenml_mlauth.connection import check
from zenml_mlauth.flavor import ServiceAccountCheckFlavor

__all__ = ["ServiceAccountCheckFlavor", "check"]

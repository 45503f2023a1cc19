"""A ZenML stack component that checks as whom a pipeline runs, before its first step.

Register it with `zenml alerter flavor register zenml_mlauth.ServiceAccountCheckFlavor`; see
docs/zenml-component.md. Code that has no such component calls `zenml_mlauth.check()`.
"""

from importlib.util import find_spec

if find_spec("zenml") is None:
    raise ModuleNotFoundError("zenml_mlauth needs ZenML: install mlauth[zenml]", name="zenml")

from zenml_mlauth.connection import check
from zenml_mlauth.flavor import ServiceAccountCheckFlavor

__all__ = ["ServiceAccountCheckFlavor", "check"]

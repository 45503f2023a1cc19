"""Flows of a module that logs in while it is imported."""

from flows import endless, killed

from prefect_mlauth.steps import export_secrets

__all__ = ["endless", "killed"]

export_secrets({"CANARY_AT_IMPORT": "env://HOME"})

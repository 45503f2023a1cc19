"""Flows of a module that logs in for itself, when it is imported."""

from flows import endless, killed

from prefect_mlauth.steps import export_secrets

__all__ = ["endless", "killed"]

export_secrets({"CANARY_AT_IMPORT": "env://HOME"})

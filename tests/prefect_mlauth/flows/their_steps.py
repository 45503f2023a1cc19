"""A pull step of the user's own."""


def use_zenml() -> dict[str, str]:
    """Have ZenML's client imported and in use before mlauth's step: on a local store."""
    from zenml.client import Client

    return {"before": Client().active_user.name}

"""A pull step of the user's own."""


def use_zenml() -> dict[str, str]:
    """Import and use ZenML's client, with a local store, before mlauth's step."""
    from zenml.client import Client

    return {"before": Client().active_user.name}

"""The Prefect flow: runs the ZenML pipeline as the service account that the pull step set."""

from prefect import flow
from training import training
from zenml.client import Client


@flow(name="train-model", log_prints=True)
def train_model() -> float:
    """Run the pipeline and return the model's accuracy."""
    run = training()
    accuracy = run.steps["evaluate"].outputs["accuracy"][0].load()
    print(f"ZenML pipeline run {run.name}: {run.status.value}")
    print(f"ran as {Client().active_user.name}")
    print(f"accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    train_model()

"""The smallest ZenML pipeline."""

from zenml import pipeline, step


@step
def answer() -> int:
    return 42


@pipeline(enable_cache=False)
def one_step() -> None:
    answer()

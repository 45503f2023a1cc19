"""A ZenML pipeline of three steps. It knows nothing about credentials."""

from typing import Annotated

import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from zenml import pipeline, step


@step
def load_data() -> tuple[
    Annotated[np.ndarray, "features_train"],
    Annotated[np.ndarray, "features_test"],
    Annotated[np.ndarray, "labels_train"],
    Annotated[np.ndarray, "labels_test"],
]:
    """Load the wine data set that scikit-learn ships."""
    features, labels = load_wine(return_X_y=True)
    features_train, features_test, labels_train, labels_test = train_test_split(
        features, labels, test_size=0.3, random_state=0
    )
    return features_train, features_test, labels_train, labels_test


@step
def train(features: np.ndarray, labels: np.ndarray) -> Annotated[Pipeline, "model"]:
    """Fit a logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)


@step
def evaluate(
    model: Pipeline, features: np.ndarray, labels: np.ndarray
) -> Annotated[float, "accuracy"]:
    """Score the model on data that it has not seen."""
    return float(model.score(features, labels))


@pipeline
def training() -> None:
    """Load, train, evaluate."""
    features_train, features_test, labels_train, labels_test = load_data()
    model = train(features_train, labels_train)
    evaluate(model, features_test, labels_test)

"""Networks from scikit-learn, through skl2onnx."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES, CLASSES, SAMPLES = 12, 4, 400


def _samples() -> tuple[np.ndarray, np.ndarray]:
    """Return features in unlike units, and values that depend on them."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((SAMPLES, FEATURES))
    values = np.sin(features @ rng.standard_normal((FEATURES, CLASSES)))
    return features.astype(np.float32), values


def _write(estimator: BaseEstimator, path: Path, *, classes: bool, zipmap: bool) -> None:
    features, values = _samples()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it doesn't converge in so few iterations, and needn't
        estimator.fit(features, values.argmax(axis=1) if classes else values)
    options = {id(estimator): {"zipmap": zipmap}} if classes else None
    path.write_bytes(to_onnx(estimator, features[:1], options=options).SerializeToString())


def networks() -> dict[str, Callable[[Path], None]]:
    """Return what writes each network, by its name."""
    layers = {"hidden_layer_sizes": (32, 16), "max_iter": 50, "random_state": 0}
    classifier, regressor = MLPClassifier(**layers), MLPRegressor(activation="tanh", **layers)
    scaled = make_pipeline(StandardScaler(), MLPClassifier(**layers))
    return {
        "sklearn_classifier": partial(_write, classifier, classes=True, zipmap=False),
        "sklearn_pipeline": partial(_write, scaled, classes=True, zipmap=False),
        "sklearn_pipeline_zipmap": partial(_write, scaled, classes=True, zipmap=True),
        "sklearn_regressor_tanh": partial(_write, regressor, classes=False, zipmap=False),
    }

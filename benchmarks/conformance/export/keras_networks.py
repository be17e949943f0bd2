"""Networks from Keras, through its own exporter (which uses tf2onnx)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tf2onnx  # noqa: F401  # what the exporter needs; without it this family is left out
from keras import layers


def _cnn() -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", strides=2)(x))
    y = layers.BatchNormalization()(layers.Conv2D(16, 1)(layers.ReLU(6.0)(y)))
    x = layers.ReLU()(layers.Add()([layers.AveragePooling2D(2)(x), y]))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu")(layers.MaxPooling2D(2)(x)))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def _gru() -> keras.Model:
    features = keras.Input((12, 8))
    x = layers.Conv1D(16, 3, activation="elu")(features)
    return keras.Model(features, layers.Dense(4)(layers.Dense(16, activation="relu")(layers.GRU(24)(x))))


def _write(build: Callable[[], keras.Model], path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = build()
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((64, *network.input_shape[1:])).astype(np.float32)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0  # take the statistics of the one batch
    network(batch, training=True)
    network.export(str(path), format="onnx", verbose=False)


def networks() -> dict[str, Callable[[Path], None]]:
    """Return what writes each network, by its name."""
    return {"keras_cnn": partial(_write, _cnn), "keras_gru": partial(_write, _gru)}

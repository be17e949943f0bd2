"""Decoders of grids with anchors.

At each cell and for each anchor the network says tx, ty, tw, th, objectness and a score per class. With cell (i, j) of
a grid whose cells are s pixels wide, and an anchor of (pw, ph) pixels:

    x = s·(j + σ(tx)),  y = s·(i + σ(ty)),  w = pw·exp(tw),  h = ph·exp(th)

YOLOv2 (Redmon and Farhadi 2016, section 2): confidence σ(objectness)·softmax(scores), one grid. YOLOv3 (2018) and the
darknet networks after it: σ(objectness)·σ(scores), several grids.

Parameters: `anchors`, a list of [width, height] in pixels, for a network with one grid; or `grids`, a list of objects
with `output`, `anchors` and, optionally, `stride` (s, else the input's size over the grid's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from snncc.data.spec import format_shape
from snncc.errors import UsageError
from snncc.tasks.candidates import Candidates, Outputs, join, number, numbers, objects, output, pairs

_MOST_GROWTH = 12.0
"""Largest exponent of a box: what is above comes from a broken network and must not overflow."""


def yolov2(outputs: Outputs, size: tuple[int, int], parameters: Mapping[str, Any]) -> Candidates:
    """Decode a grid whose classes exclude each other; see the module."""
    return join(_cells(*grid, classes=softmax) for grid in _grids(outputs, size, parameters))


def yolov3(outputs: Outputs, size: tuple[int, int], parameters: Mapping[str, Any]) -> Candidates:
    """Decode grids whose classes are independent; see the module."""
    return join(_cells(*grid, classes=_sigmoid) for grid in _grids(outputs, size, parameters))


def _sigmoid(scores: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.asarray(expit(scores))


def _grids(
    outputs: Outputs, size: tuple[int, int], parameters: Mapping[str, Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]]:
    """Yield grid [A, 5 + C, H, W], anchors [A, 2] and height and width of a cell."""
    for settings in objects(parameters, "grids") or [parameters]:
        name, grid = output(outputs, settings.get("output"), 3)
        anchors = numbers(settings, "anchors", 2)
        channels, rows, columns = grid.shape
        if channels % len(anchors) or channels // len(anchors) < 6:
            raise UsageError(
                f"output '{name}' is {format_shape(('N', *grid.shape))}: with {len(anchors)} anchors its axis 1 must "
                f"be {len(anchors)}·(5 + classes); correct 'anchors', or 'output'"
            )
        cell = (size[0] / rows, size[1] / columns)
        stride = number(settings, "stride", None)
        if stride is not None and cell != (stride, stride):
            raise UsageError(
                f"output '{name}' is {format_shape(('N', *grid.shape))} and the input {size[0]}x{size[1]}, so a cell "
                f"is {cell[0]:g}x{cell[1]:g} pixels, not {stride:g}: correct 'stride', or 'output'"
            )
        yield grid.astype(np.float64).reshape(len(anchors), -1, rows, columns), anchors, cell


def _cells(
    grid: NDArray[np.float64], anchors: NDArray[np.float64], cell: tuple[float, float], classes: Any
) -> Candidates:
    _, _, rows, columns = grid.shape
    row, column = np.indices((rows, columns))
    x, y = cell[1] * (column + expit(grid[:, 0])), cell[0] * (row + expit(grid[:, 1]))
    half = 0.5 * anchors[:, :, None, None] * np.exp(np.minimum(grid[:, 2:4], _MOST_GROWTH))
    boxes = np.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], axis=-1)
    scores = expit(grid[:, 4:5]) * classes(grid[:, 5:], axis=1)
    return pairs(boxes.reshape(-1, 4), np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1]))

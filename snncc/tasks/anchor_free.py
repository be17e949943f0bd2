"""Decoders of networks without anchors: one box per cell of each grid.

YOLOX (Ge et al. 2021): one output [N, P, 5 + C], the cells of all grids in a row, finest first. With cell (i, j) of a
grid of s pixels: x = s·(j + tx), y = s·(i + ty), w = s·exp(tw), h = s·exp(th), confidence objectness·score. The
authors' export has applied the sigmoid to objectness and scores already.
Parameters: `strides` (default [8, 16, 32]); `logits`, true where the sigmoid is still to be applied; `output`.

FCOS (Tian et al. 2019): per grid, class logits [N, C, H, W], distances of the four sides from the middle of the cell
[N, 4, H, W] (left, top, right, bottom) and centre-ness logits [N, 1, H, W]; confidence √(σ(class)·σ(centre-ness)),
as in its later versions.
Parameters: `levels`, a list of objects with the names of the outputs `scores`, `boxes` and, optionally, `centreness`;
`exp`, true where distances are exponents, as in the paper; `normalised`, false where they are in pixels, not cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from snncc.data.spec import format_shape
from snncc.errors import UsageError
from snncc.tasks.candidates import Candidates, Outputs, flag, join, objects, output, pairs

_MOST_GROWTH = 12.0
_STRIDES = (8, 16, 32)


def yolox(outputs: Outputs, size: tuple[int, int], parameters: Mapping[str, Any]) -> Candidates:
    """Decode the row of all cells; see the module."""
    name, row = output(outputs, parameters.get("output"), 2)
    strides = parameters.get("strides", _STRIDES)
    if not isinstance(strides, list | tuple) or not strides or not all(type(s) is int and s > 0 for s in strides):
        raise UsageError(f"'strides' is {str(strides)[:80]}: it must be a list of whole pixels, such as [8, 16, 32]")
    corners = [_middles(size[0] // s, size[1] // s, 0.0) * s for s in strides]
    cells = np.concatenate(corners)
    if row.shape[0] != len(cells) or row.shape[1] < 6:
        raise UsageError(
            f"output '{name}' is {format_shape(('N', *row.shape))}: with strides {list(strides)} an input of "
            f"{size[0]}x{size[1]} has {len(cells)} cells, so it must be [N, {len(cells)}, 5 + classes]; correct "
            "'strides', or 'output'"
        )
    stride = np.concatenate([np.full(len(c), float(s)) for c, s in zip(corners, strides, strict=True)])[:, None]
    values = row.astype(np.float64)
    middle = cells + stride * values[:, :2]
    half = 0.5 * stride * np.exp(np.minimum(values[:, 2:4], _MOST_GROWTH))
    said = expit(values[:, 4:]) if flag(parameters, "logits", False) else values[:, 4:]
    return pairs(np.concatenate([middle - half, middle + half], axis=1), said[:, :1] * said[:, 1:])


def fcos(outputs: Outputs, size: tuple[int, int], parameters: Mapping[str, Any]) -> Candidates:
    """Decode the levels of a pyramid; see the module."""
    levels = objects(parameters, "levels")
    if levels is None:
        raise UsageError(
            '\'levels\' is missing, a list of objects with the outputs\' names, e.g. [{"scores": "cls3", '
            '"boxes": "reg3", "centreness": "ctr3"}]: give it with --decoder-options FILE.json'
        )
    return join(_level(outputs, size, level, parameters) for level in levels)


def _level(
    outputs: Outputs, size: tuple[int, int], level: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Candidates:
    named = {key: _named(outputs, level, key) for key in ("scores", "boxes", "centreness") if key in level}
    if not {"scores", "boxes"} <= set(named):
        raise UsageError(f"a level of 'levels' is {str(dict(level))[:80]}: it must name 'scores' and 'boxes'")
    rows, columns = named["scores"].shape[1:]
    for key, channels in (("boxes", 4), ("centreness", 1)):
        if key in named and named[key].shape != (channels, rows, columns):
            raise UsageError(
                f"output '{level[key]}' is {format_shape(('N', *named[key].shape))}, and '{level['scores']}' has "
                f"{rows}x{columns} cells: as '{key}' it must be {format_shape(('N', channels, rows, columns))}"
            )
    cell = np.array([size[1] / columns, size[0] / rows])
    middle = _middles(rows, columns, 0.5) * cell
    distances = named["boxes"].astype(np.float64).reshape(4, -1).T
    distances = np.exp(np.minimum(distances, _MOST_GROWTH)) if flag(parameters, "exp", False) else distances
    distances = np.maximum(distances, 0.0) * (np.tile(cell, 2) if flag(parameters, "normalised", True) else 1.0)
    boxes = np.concatenate([middle - distances[:, :2], middle + distances[:, 2:]], axis=1)
    scores = expit(named["scores"].astype(np.float64).reshape(len(named["scores"]), -1).T)
    if "centreness" in named:
        scores = np.sqrt(scores * expit(named["centreness"].astype(np.float64).reshape(-1, 1)))
    return pairs(boxes, scores)


def _named(outputs: Outputs, level: Mapping[str, Any], key: str) -> NDArray[Any]:
    if not isinstance(level[key], str):
        raise UsageError(f"'{key}' of a level is {str(level[key])[:80]!r}: it must be the name of an output")
    return output(outputs, level[key], 3)[1]


def _middles(rows: int, columns: int, offset: float) -> NDArray[np.float64]:
    """Return x and y of every cell, row by row, in cells, float64 [rows · columns, 2]."""
    row, column = np.indices((rows, columns)) + offset
    return np.stack([column.ravel(), row.ravel()], axis=1)

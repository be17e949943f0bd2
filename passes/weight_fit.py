"""Weights that lower a layer's output error, by ridge regression on the calibration set.

What reaches a layer in the SNN, averaged over time, is the ANN's activation with rounding, clipping and what earlier
layers did to it. The mean output is linear in it, so the weights that come nearest to the ANN's output are those of a
linear regression, which is held at the weights W0 that are there (rows x of patches and y of outputs, both centred):

    min_W  Σ |y - x·W|² + λ |W - W0|²,      W - W0 = (XᵀX + λI)⁻¹ (XᵀY - XᵀX·W0)

The shift between the means is left to the corrections that follow. XᵀX and XᵀY are added up over a sample
of the positions. A part of the samples is held back: λ is what lowers the error there most, and where none does, the
weights stay. On samples that neither has seen the whole network is judged (`snncc.weight_guard`). Groups of a
convolution are regressions of their own, as many as there are groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from snncc.graph import constant

ROWS = 1 << 14
"""Positions of a layer's output that the regression sees, over all samples; at least one of each sample."""
VALUES = 1 << 24
"""Values that these rows hold at most, 64 MB, as long as that leaves one of each sample."""
CHOOSE, JUDGE = 4, 8
"""Every so many samples one is held back to choose λ by, and another one to judge the network by."""
LARGEST = 4096
"""Most weights of one output channel that are fitted: the equations take the square of it."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""What λ may be, in units of the mean of XᵀX's diagonal."""


Rows = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Rows of X and of Y."""


@dataclass(frozen=True)
class Layout:
    """How a weighted layer reads its input and keeps its weights.

    Attributes:
        node: a Conv, Gemm or MatMul with constant weights at its second input.
        weight: the weights, as the node keeps them.
    """

    node: gs.Node
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, node: gs.Node) -> Layout | None:
        """Return the layout; None for a layer whose weights can't be fitted."""
        weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if weight is None or node.op not in ("Conv", "Gemm", "MatMul"):
            return None  # a ConvTranspose, or weights on the left
        if node.op != "Conv" and (weight.ndim != 2 or node.attrs.get("transA", 0)):
            return None
        if float(node.attrs.get("alpha", 1.0)) == 0.0:
            return None
        layout = cls(node, np.asarray(weight, np.float64))
        return layout if layout.matrix.shape[1] <= LARGEST else None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.node.attrs.get("group", 1))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The weights as one matrix per group, [G, F, C]: inputs of an output, and outputs."""
        w, groups = self.weight, self.groups
        if self.node.op == "Conv":
            return np.moveaxis(w.reshape(groups, len(w) // groups, -1), 1, 2)
        alpha = float(self.node.attrs.get("alpha", 1.0))
        return (alpha * (w.T if self.node.attrs.get("transB", 0) else w))[None]

    def positions(self, samples: int) -> int:
        """Return how many positions of each sample the regression sees."""
        rows = min(ROWS, VALUES // (self.groups * self.matrix.shape[1]))
        return int(max(1, rows // samples))

    def weights(self, matrix: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return weights as the node keeps them, of what `matrix` looks like."""
        if self.node.op == "Conv":
            return np.ascontiguousarray(np.moveaxis(matrix, 2, 1).reshape(self.weight.shape), np.float32)
        plain = matrix[0] / float(self.node.attrs.get("alpha", 1.0))
        return np.ascontiguousarray(plain.T if self.node.attrs.get("transB", 0) else plain, np.float32)

    def rows(self, value: NDArray[np.float32], output: NDArray[np.float32], first: int, most: int) -> Rows:
        """Return what the layer multiplies and what should come out, at a sample of the positions.

        Args:
            value: the input, [N, ...].
            output: the output that is wanted, [N, ...].
            first: number of the first sample, which the positions depend on.
            most: positions per sample.

        Returns:
            Float32 [N, M, G, F] and [N, M, G, C].
        """
        if self.node.op != "Conv":
            x, y = (a.reshape(len(a), 1, -1, a.shape[-1]) for a in (value, output))
            which = _positions(x.shape[2], most, first, len(x))
            samples = np.arange(len(x))[:, None]
            return x[samples, 0, which][:, :, None], y[samples, 0, which][:, :, None]
        spatial = output.shape[2:]
        where = np.unravel_index(_positions(math.prod(spatial), most, first, len(value)), spatial)
        windows = self._windows(value, spatial)
        samples = np.arange(len(value))[:, None]
        # Of axes that are picked together NumPy wants one block: the channels come behind it.
        x = np.moveaxis(windows, 1, len(spatial) + 1)[(samples, *where)]  # [N, M, C_in, *kernel]
        y = np.moveaxis(output, 1, -1)[(samples, *where)]  # [N, M, C_out]
        return x.reshape(*x.shape[:2], self.groups, -1), y.reshape(*y.shape[:2], self.groups, -1)

    def _windows(self, value: NDArray[np.float32], spatial: Sequence[int]) -> NDArray[np.float32]:
        """Return a view of all patches, [N, C_in, *spatial, *kernel]."""
        kernel = self.weight.shape[2:]
        rank = len(kernel)
        strides, dilations = (list(self.node.attrs.get(k, [1] * rank)) for k in ("strides", "dilations"))
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        mode = self.node.attrs.get("auto_pad", "NOTSET")
        pads = list(self.node.attrs.get("pads", [0] * (2 * rank)))
        if mode == "VALID":
            pads = [0] * (2 * rank)
        elif mode != "NOTSET":
            sizes = zip(spatial, strides, reach, value.shape[2:], strict=True)
            whole = [max(0, (o - 1) * s + r - i) for o, s, r, i in sizes]
            begin = [(p + (mode == "SAME_LOWER")) // 2 for p in whole]
            pads = [*begin, *(p - b for p, b in zip(whole, begin, strict=True))]
        padded = np.pad(value, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
        windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
        steps = [slice(None, o * s, s) for o, s in zip(spatial, strides, strict=True)]
        inner = [slice(None, None, d) for d in dilations]
        return windows[(slice(None), slice(None), *steps, *inner)]


def _positions(count: int, most: int, first: int, samples: int) -> NDArray[np.int64]:
    """Return positions [N, M] that depend on the number of the sample alone; all of them where they are few."""
    if count <= most:
        return np.tile(np.arange(count), (samples, 1))
    picked = [np.random.default_rng([count, first + n]).choice(count, most, replace=False) for n in range(samples)]
    return np.sort(np.stack(picked), axis=1)


@dataclass(frozen=True)
class Equations:
    """The normal equations of a layer, about the means; a matrix per group.

    Attributes:
        count: rows.
        xx: XᵀX, [G, F, F].
        xy: XᵀY, [G, F, C].
        yy: sum of y², [G, C].
    """

    count: int
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]
    yy: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float32], y: NDArray[np.float32]) -> Equations:
        """Add up rows [R, G, F] and [R, G, C], of which there is at least one."""
        wide_x, wide_y = (np.moveaxis(a - a.mean(axis=0, dtype=np.float64), 1, 0) for a in (x, y))
        turned = np.swapaxes(wide_x, 1, 2)
        return cls(len(x), turned @ wide_x, turned @ wide_y, np.square(wide_y).sum(axis=1))


def error(equations: Equations, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ |y - x·W|² about the means of each output channel, [G, C]."""
    cross = equations.xx @ matrix - 2 * equations.xy
    return np.asarray(equations.yy + (matrix * cross).sum(axis=1))


def fit(equations: Equations, held: Equations, start: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the weights [G, F, C] of the ridge whose error on held-back rows is least; None where none is better.

    Args:
        equations: of the rows to fit.
        held: of those held back.
        start: the weights that are there, [G, F, C].
    """
    xx, xy = equations.xx, equations.xy
    gradient = xy - xx @ start
    features = xx.shape[1]
    scale = np.einsum("gii->g", xx)[:, None, None] / features
    best, least = None, error(held, start).sum()
    for ridge in RIDGES:
        # A group that nothing reaches would be singular; of the others, nothing depends on the unit of the values.
        system = xx + np.where(scale > 0, ridge * scale, 1.0) * np.eye(features)
        matrix = start + np.linalg.solve(system, gradient)
        found = error(held, matrix).sum()
        if found < least:
            best, least = matrix, found
    return best


def fitted_weight(
    layout: Layout, rows: Sequence[Rows], held: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
) -> NDArray[np.float32] | None:
    """Return the weights that a layer should have, as the node keeps them; None where it should keep its own.

    Args:
        layout: the layer.
        rows: what `Layout.rows` gave for each chunk, in the order of the chunks.
        held: which rows choose λ and which judge the network; None: those of `held_back`.
    """
    x, y = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    chooses, judges = held_back(0, len(x)) if held is None else held
    if not chooses.any():
        return None
    part, rest = (
        Equations.of(x[which].reshape(-1, *x.shape[2:]), y[which].reshape(-1, *y.shape[2:]))
        for which in (~(chooses | judges), chooses)
    )
    matrix = fit(part, rest, layout.matrix)
    return None if matrix is None else layout.weights(matrix)


def held_back(first: int, samples: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which samples, by their number in the calibration set, choose λ and which judge the network."""
    numbers = np.arange(first, first + samples)
    return numbers % CHOOSE == CHOOSE - 1, numbers % JUDGE == CHOOSE


def presentations_held_back(sizes: Sequence[int], count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the same of rows that hold `count` presentations of each sample (see `snncc.sequences`).

    Args:
        sizes: rows of each chunk: all samples' first presentations, then all samples' second ones, and so on.
        count: presentations of a sample.
    """
    first = np.cumsum([0, *sizes]) // count
    parts = [held_back(int(start), size // count) for start, size in zip(first, sizes, strict=False)]
    chooses, judges = (np.concatenate([np.tile(p[k], count) for p in parts]) for k in (0, 1))
    return chooses, judges


def with_weight(node: gs.Node, weight: NDArray[np.float32]) -> gs.Node:
    """Return a copy of a weighted layer with other weights, which no graph knows of."""

    def copied(tensor: gs.Tensor) -> gs.Tensor:
        if isinstance(tensor, gs.Constant):
            return gs.Constant(tensor.name, tensor.values)
        return gs.Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)

    fitted = gs.Constant(f"{node.name}.fitted", weight)
    inputs = [copied(node.inputs[0]), fitted, *(copied(t) for t in node.inputs[2:])]
    outputs = [copied(t) for t in node.outputs]
    return gs.Node(node.op, name=node.name, attrs=node.attrs, inputs=inputs, outputs=outputs, domain=node.domain)

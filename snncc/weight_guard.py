"""Whether a network with calibrated weights is better than one without, on samples that no fit has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.allocation.metric import Distance, class_output
from snncc.config import Config
from snncc.data import Dataset
from snncc.passes.weight_fit import held_back
from snncc.runtime.executor import OrtExecutor
from snncc.runtime.session import Array, Session
from snncc.sequences import run_ann, samples_of

_NEGLIGIBLE = 1e-6
"""A distance counts as no smaller than this share of their mean: where there is almost none, a factor says nothing."""


def is_better(
    fitted: onnx.ModelProto,
    plain: onnx.ModelProto,
    ann: onnx.ModelProto,
    data: Dataset,
    graph: gs.Graph,
    config: Config,
) -> bool:
    """Compare two artifacts of one network on the held-back samples.

    The one with calibrated weights must agree with the ANN as often, and be nearer to it in the geometric mean of the
    samples' distances. In the arithmetic mean a few samples, whose classes are nearly a tie, outweigh all others.

    Args:
        fitted: the artifact with calibrated weights.
        plain: the one without.
        ann: the network that both were made of.
        data: the calibration set.
        graph: a graph of the network, whose outputs say what a class score is.
        config: options of the compile.
    """
    period = config.period
    session, executors = Session(ann, "the ANN"), [OrtExecutor(model) for model in (fitted, plain)]
    scores = class_output(graph, data)
    losses: list[NDArray[np.float64]] = []
    agreements: list[float] = []  # 1 where only the first agrees with the ANN, -1 where only the second does
    for feeds, rows in _batches(data, config.batch_size):
        found = [executor.run(feeds) for executor in executors]
        expected = _picked(run_ann(session, feeds, data.inputs, period, None), rows)
        both = {name: np.stack([outputs[name][rows] for outputs in found]) for name in _names(found, rows)}
        for i in range(len(rows)):
            sample = Distance(scores, 2)
            sample.add({n: v[i : i + 1] for n, v in expected.items()}, {n: v[:, i : i + 1] for n, v in both.items()})
            losses.append(sample.loss())
            agreements.append(0.0 if (agreement := sample.agreement()) is None else agreement[0] - agreement[1])
    if not losses or sum(agreements) < 0:
        return False
    least = _NEGLIGIBLE * np.mean(losses)
    one, other = np.log(np.maximum(losses, least)).mean(axis=0) if least > 0 else (0.0, 0.0)
    return bool(one < other)


def _batches(data: Dataset, size: int) -> Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.intp]]]:
    """Yield the held-back samples, and which of the outputs are theirs: all, unless the batch is fixed."""
    fixed, first = data.inputs[0].batch, 0
    framed = [spec.name for spec in data.inputs if spec.timesteps is not None]
    for batch in data.batches(fixed or size * 4):
        samples = samples_of(batch, framed)
        rows = np.flatnonzero(held_back(first, samples)[1])
        first += samples
        if not len(rows):
            continue
        if fixed:
            yield batch, rows
        else:
            axes = {name: 1 if name in framed else 0 for name in batch}
            yield {name: value.take(rows, axes[name]) for name, value in batch.items()}, np.arange(len(rows))


def _names(found: Sequence[Mapping[str, Array]], rows: NDArray[np.intp]) -> list[str]:
    """Return the outputs that have a value per sample."""
    return [name for name, value in found[0].items() if value.ndim and len(value) > rows[-1]]


def _picked(outputs: Mapping[str, Array], rows: NDArray[np.intp]) -> dict[str, Array]:
    return {name: outputs[name][rows] for name in _names([outputs], rows)}

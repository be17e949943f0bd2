"""The pipeline: one sequence of passes, and what watches over it between them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Domain, Form, Traffic
from snncc.context import Context
from snncc.errors import ModelError, Obstacle, PassError, ResourceError, SnnccError, UnsupportedModelError
from snncc.graph import export_model, first_line, static_dims
from snncc.packed import write
from snncc.passes.analyse import Analyse
from snncc.passes.base import Pass, Progress
from snncc.passes.calibrate import Calibrate
from snncc.passes.correct_bias import CorrectBias
from snncc.passes.correct_weights import CorrectWeights
from snncc.passes.dead_nodes import RemoveDeadNodes
from snncc.passes.fold_thresholds import FoldThresholds
from snncc.passes.free_batch import FreeBatch
from snncc.passes.generated_inputs import generate_inputs
from snncc.passes.infer_shapes import InferShapes
from snncc.passes.insert_neurons import InsertNeurons
from snncc.passes.int8_weights import QuantiseWeights
from snncc.passes.keep_in_domain import KeepInDomain
from snncc.passes.lower import LowerTime
from snncc.passes.mark_frames import MarkFrames
from snncc.passes.normalise import NORMALISE
from snncc.passes.place_encoders import PlaceEncoders, activation_nodes
from snncc.passes.pool_first import PoolFirst
from snncc.runtime.session import Session

MAX_VALUE_BYTES = 2**32
"""Largest value, of one sample where the batch is open, that a node may make."""


@dataclass(frozen=True)
class Refuse(Pass):
    """Stop before any work is done if a node can't be converted."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Raise `UnsupportedModelError` with every obstacle; change nothing."""
        obstacles = [*ctx.analysis.obstacles, *_too_large(graph)]
        if ctx.config.trace:
            remedy = "compile without --trace"
            obstacles += [Obstacle(graph.name, "trace", line, remedy) for line in ctx.analysis.readout_blockers]
        if ctx.config.period < ctx.config.timesteps and not ctx.analysis.foldable:
            remedy = f"compile with --reset-after {ctx.config.timesteps}, so that they never do"
            lines = [f"neurons can't start anew within a sample: {line}" for line in ctx.analysis.fold_blockers]
            obstacles += [Obstacle(graph.name, "input coding frames", line, remedy) for line in lines]
        if ctx.config.strict:
            obstacles += _not_spiking(graph, ctx)
        if obstacles:
            raise UnsupportedModelError(obstacles)
        return False


def _too_large(graph: gs.Graph) -> list[Obstacle]:
    """Return what makes a tensor so large, for one sample, that it can only be a mistake, or an attack."""
    found = []
    for node in graph.nodes:
        for tensor in node.outputs:
            shape = tensor.shape or []
            dims = static_dims([1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(shape)])
            itemsize = np.dtype(tensor.dtype).itemsize if isinstance(tensor.dtype, np.dtype | type) else 1
            size = math.prod(dims or ()) * itemsize
            if size > MAX_VALUE_BYTES:
                reason = f"its output '{tensor.name}' {list(dims or ())} takes {size / 2**30:.0f} GiB"
                found.append(Obstacle(node.name, node.op, reason, "export the network with the sizes it was made for"))
    return found


def _not_spiking(graph: gs.Graph, ctx: Context) -> list[Obstacle]:
    """Return what stands between neurons and is no spiking layer: `Config.strict` refuses it."""
    analysis, functions = ctx.analysis, activation_nodes(graph, ctx.analysis)
    neurons = {site.node for site in analysis.neurons}
    graded = {layer.node for layer in analysis.layers if layer.driven_by is Traffic.GRADED}
    found = []
    for node in graph.nodes:
        if analysis.domains[node.name] is not Domain.TEMPORAL or node.name in neurons or node.name in functions:
            continue
        if node.outputs and analysis.traffic.get(node.outputs[0].name) is Traffic.FRAMES:
            continue  # what comes before the first neuron, as with a constant input
        if node.name in graded:
            reason, remedy = "graded values, not spikes, drive its weights", "compile without --analog, or --strict"
        elif analysis.modes[node.name] is Form.MEAN:
            reason = "it isn't linear and no activation, so it runs on means over time, not on spikes"
            remedy = "replace it by ReLU, pooling and linear layers, or compile without --strict"
        else:
            continue
        found.append(Obstacle(node.name, node.op, reason, remedy))
    return found


ANALYSE: tuple[Pass, ...] = (
    *NORMALISE,
    # Needs the inferred shapes of a normalised graph: only they prove that a Reshape keeps the samples apart.
    FreeBatch(),
    # The arithmetic on sizes that an opened Reshape read before would look like a node that can't be folded.
    RemoveDeadNodes(),
    # What FreeBatch opened is open in the shapes too.
    InferShapes(),
    # What the normal form does to an input doesn't depend on what it presents; the encoders' places do.
    MarkFrames(),
    # Needs shapes and domains.
    PlaceEncoders(),
    # Only with all marks in place is it known which neurons are the first; the last change before the analysis.
    PoolFirst(),
    Analyse(),
)
"""From a freshly imported network to its analysis: what `snncc inspect` runs."""


def convert(progress: Progress | None = None) -> tuple[Pass, ...]:
    """Return the passes that turn an analysed network into a spiking one that steps through time."""
    return (
        # Nothing is computed for a network that can't be converted.
        Refuse(),
        # Works on the ANN: the activations are still there to compare with.
        Calibrate(progress),
        # Found by name, so it must come before nodes are added.
        CorrectWeights(),
        # Before the biases, which look for the neuron's current.
        InsertNeurons(),
        CorrectBias(),
        # After everything that changes weights and biases; it still finds the layers of the first analysis.
        QuantiseWeights(),
        # What the readout reads is no longer the ANN's value.
        KeepInDomain(),
        # An explicit bias correction is a new node: shapes and domains must cover it.
        InferShapes(),
        Analyse(),
        # From here on axis 0 of a tensor is time and samples.
        LowerTime(),
        # Last: until here each tensor is in the unit that it has in the ANN.
        FoldThresholds(),
    )


@dataclass
class Hook:
    """What happens between passes.

    Attributes:
        verify: check after each pass that promises so that the outputs are numerically equal.
        dump: folder for the graph after each pass, None for none.
        timings: name and seconds of each pass that ran.
    """

    verify: bool = False
    dump: Path | None = None
    timings: list[tuple[str, float]] = field(default_factory=list)
    _graph: gs.Graph | None = None
    _checking: bool = False
    _reference: dict[str, NDArray[Any]] | None = None
    _feeds: dict[str, NDArray[Any]] | None = None

    def run(self, passes: Sequence[Pass], graph: gs.Graph, ctx: Context) -> None:
        """Run passes over a graph in place.

        Raises:
            SnnccError: what a pass raised.
            PassError: a pass failed in an unforeseen way, or changed the outputs although it promises not to.
        """
        if graph is not self._graph:
            self._graph, self._checking, self._feeds = graph, self.verify, None
        for step in passes:
            if self._checking and self._feeds is None:
                self._remember(graph)
            start = time.perf_counter()
            try:
                changed = step.run(graph, ctx)
            except SnnccError:
                raise
            except MemoryError as error:
                raise ResourceError(
                    f"not enough memory in pass {step.name}: try a smaller --batch-size or fewer samples"
                ) from error
            except Exception as error:
                before = ", ".join(name for name, _ in self.timings) or "none"
                raise PassError(
                    f"pass {step.name} failed ({type(error).__name__}: {first_line(error)}) after: {before}; "
                    "this is an error of snncc, please report it with the model"
                ) from error
            # From the first neuron on, the outputs are those of another network.
            self._checking &= step.preserves_outputs or not changed
            self.timings.append((step.name, time.perf_counter() - start))
            if self.dump is not None:
                self._dump(step.name, graph)
            if self._checking:
                self._check(step.name, graph)

    def _remember(self, graph: gs.Graph) -> None:
        self._feeds = generate_inputs(graph, samples=2).batch(0, 2) if _open_batch(graph) else _one_batch(graph)
        self._reference = Session(export_model(graph), "the network before the first pass").run(self._feeds)

    def _check(self, name: str, graph: gs.Graph) -> None:
        if self._reference is None or self._feeds is None:
            return
        now = Session(export_model(graph), f"the network after pass {name}").run(self._feeds)
        for output, expected in self._reference.items():
            error = relative_error(now[output], expected)
            # Reordered float32 sums differ by far less; a wrong pass differs by far more.
            if not error < 1e-3:
                raise PassError(
                    f"pass {name} changed output '{output}': relative error {error:.2g} on generated inputs; "
                    "this is an error of snncc, please report it with the model"
                )

    def _dump(self, name: str, graph: gs.Graph) -> None:
        folder = self.dump or Path()
        number = len(self.timings)
        target = folder / f"{number:02d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.onnx"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(export_model(graph), target)
        except (OSError, ValueError) as error:
            raise ModelError(f"can't write '{target}': {first_line(error)}; choose another --dump-passes") from error


def relative_error(value: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference relative to the largest expected magnitude; infinite for unequal shapes."""
    if value.shape != expected.shape:
        return float("inf")
    if value.size == 0:
        return 0.0
    scale = float(np.abs(expected.astype(np.float64)).max())
    return float(np.abs(value.astype(np.float64) - expected.astype(np.float64)).max()) / (scale or 1.0)


def _open_batch(graph: gs.Graph) -> bool:
    return not isinstance((graph.inputs[0].shape or [None])[0], int)


def _one_batch(graph: gs.Graph) -> dict[str, NDArray[Any]]:
    data = generate_inputs(graph, samples=1)
    return data.batch(0, int(graph.inputs[0].shape[0]))

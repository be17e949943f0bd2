"""A compiled network: load it, run it, look at what it says about itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.artifact import Record, read_record, save
from snncc.data import Dataset, InputSpec
from snncc.data import load as load_data
from snncc.errors import ArtifactError, UsageError
from snncc.exit_threshold import ExitThreshold, find_threshold
from snncc.loader import load_model
from snncc.passes.base import Progress
from snncc.runtime.early_exit import EarlyExit, run_early
from snncc.runtime.executor import InstrumentedExecutor, OrtExecutor
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.reference import ReferenceSimulator
from snncc.runtime.stepper import Stepper
from snncc.runtime.unlower import unlower
from snncc.sources import in_batches, input_specs, resolve_data, sized_graph

BACKENDS = ("fused", "ort", "numpy")
EARLY_SIZE = 128
"""Samples that run at a time where they may leave early: those that stay go on together."""

_ROWS = 512
"""Most samples times timesteps that run together."""


class SpikingNetwork:
    """A compiled network.

    Attributes:
        model: the artifact, which stock ONNX Runtime runs.
        record: what it says about how it was made.
    """

    def __init__(self, model: onnx.ModelProto, record: Record) -> None:
        self.model, self.record = model, record
        self._executors: dict[int, OrtExecutor] = {}
        self._fused: dict[int, FusedExecutor] = {}
        self._network: gs.Graph | None = None

    @property
    def inputs(self) -> list[InputSpec]:
        """The inputs, which are those of the ANN; where they present frames, with `timesteps`."""
        framed = self.record.frames
        return [
            InputSpec(spec.name, spec.dtype, spec.shape[1:], self.record.timesteps) if spec.name in framed else spec
            for spec in input_specs(self.model)
        ]

    @property
    def network(self) -> gs.Graph:
        """The network without time, each neuron a node; see `snncc.runtime.unlower`."""
        if self._network is None:
            self._network = unlower(self.model, self.record)
        return self._network

    def sized(self, data: Dataset) -> gs.Graph:
        """Return the network without time, with the sizes that the data gives to open axes."""
        return sized_graph(unlower(self.model, self.record), data)

    def run(
        self,
        inputs: Any,
        *,
        backend: str = "fused",
        batch_size: int | None = None,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run the network.

        Args:
            inputs: an array for a network with one input, a mapping from input names to arrays, or a `Dataset`. The
                samples are on axis 0; frames, where the network takes some, on axis 1.
            backend: "fused" for the fast executor, "ort" for the artifact as it is in ONNX Runtime, "numpy" for the
                reference simulator. A network with a trace runs in "ort" for "fused".
            batch_size: samples at a time, where the network's own batch is open; None for `run_size`.
            threads: threads for everything, 0 for one per core.
            progress: told about finished batches.

        Returns:
            By output name, an array with the outputs of all samples.

        Raises:
            UsageError: there is no such backend, or a number is out of range.
            DataError: the inputs don't fit the network.
        """
        _check_run(backend, threads)
        data = inputs if isinstance(inputs, Dataset) else load_data(inputs, self.inputs)
        parts: list[dict[str, NDArray[Any]]] = []
        traces = {name for node in self.model.graph.node if node.op_type == "UnfoldTime" for name in node.output}
        if backend == "ort" or (backend == "fused" and traces):
            if threads not in self._executors:
                self._executors[threads] = OrtExecutor(self.model, threads)
            executor = self._executors[threads]
            batch_size = run_size(self.record.timesteps, "ort") if batch_size is None else batch_size
            parts += [executor.run(batch) for batch in in_batches(data, batch_size, progress)]
        else:
            simulator = self.simulator(backend, threads)
            batch_size = run_size(self.record.timesteps, backend) if batch_size is None else batch_size
            parts += [simulator.run(batch).outputs for batch in in_batches(data, batch_size, progress)]
        return {name: _join([p[name] for p in parts], traced=name in traces) for name in parts[0]}

    def run_early(
        self,
        inputs: Any,
        rule: EarlyExit,
        *,
        batch_size: int | None = None,
        threads: int = 0,
        progress: Progress | None = None,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Run the network; each sample leaves as soon as its running output is confident enough.

        Args:
            inputs: see `run`.
            rule: when a sample leaves.
            batch_size: see `run`.
            threads: see `run`.
            progress: told about finished batches.

        Returns:
            By output name, an array with the outputs of all samples; and the timesteps that each took, [N].

        Raises:
            UsageError: no output holds class scores, or a number is out of range.
            DataError: the inputs don't fit the network.
        """
        executor = self.fused(threads)
        data = inputs if isinstance(inputs, Dataset) else load_data(inputs, self.inputs)
        batch_size = EARLY_SIZE if batch_size is None else batch_size
        parts = [run_early(executor, batch, rule) for batch in in_batches(data, batch_size, progress)]
        outputs = {name: _join([p.outputs[name] for p in parts], traced=False) for name in parts[0].outputs}
        return outputs, np.concatenate([p.exits for p in parts if p.exits is not None])

    def exit_rule(
        self, data: Any, max_drop: float = 0.2, *, measure: str = "margin", output: str | None = None, threads: int = 0
    ) -> ExitThreshold:
        """Find how sure the network must be for a sample to leave early.

        Args:
            data: samples that aren't those which the result is judged by; see `run`.
            max_drop: percentage points of them of which another class may be said than after all timesteps.
            measure: what confidence is; see `EarlyExit`.
            output: name of the output with the class scores; None: the first of shape [N, K].
            threads: see `run`.

        Raises:
            UsageError: no output holds class scores, or a number is out of range.
            DataError: the data doesn't fit the network.
        """
        executor = self.fused(threads)
        samples = data if isinstance(data, Dataset) else load_data(resolve_data(data), self.inputs)
        return find_threshold(executor, in_batches(samples, EARLY_SIZE), max_drop / 100, measure, output)

    def simulator(
        self, backend: str = "fused", threads: int = 0
    ) -> FusedExecutor | InstrumentedExecutor | ReferenceSimulator:
        """Return an executor that also reports spikes and outputs over time; for the options see `run`.

        Raises:
            UsageError: there is no such backend, or a number is out of range.
        """
        _check_run(backend, threads)
        if backend == "numpy":
            return ReferenceSimulator(self.network, self.record.timesteps, threads)
        if backend == "fused":
            return self.fused(threads)
        return InstrumentedExecutor(self.model, self.network, self.record.timesteps, threads)

    def stepper(self, batch: int | None = None, *, threads: int = 0) -> Stepper:
        """Return the network before its first timestep, to run one at a time: for input that arrives over time.

        Args:
            batch: number of samples; None for the network's own, or 1 where that is open.
            threads: threads for everything, 0 for one per core.

        Raises:
            UsageError: the network takes another number of samples at a time, or a number is out of range.
        """
        return Stepper(self.fused(threads), self.inputs, batch)

    def fused(self, threads: int = 0) -> FusedExecutor:
        """Return the fast executor; see `run`."""
        _check_run("fused", threads)
        if threads not in self._fused:
            self._fused[threads] = FusedExecutor(self.network, self.record.timesteps, threads)
        return self._fused[threads]

    def report(self) -> dict[str, Any]:
        """Return what the artifact says about itself as plain values: configuration, calibration, layers, warnings."""
        return self.record.to_dict()

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the artifact, whole or not at all; more than 1.5 GiB of weights go into a file beside it.

        Returns:
            The files.

        Raises:
            ArtifactError: the file can't be written.
        """
        return save(self.model, path)


def _join(parts: list[NDArray[Any]], *, traced: bool) -> NDArray[Any]:
    if parts[0].ndim == 0:
        return np.stack(parts)
    return np.concatenate(parts, axis=1 if traced else 0)


def _check_run(backend: str, threads: int) -> None:
    if backend not in BACKENDS:
        raise UsageError(f"backend is {backend!r}: it must be one of {', '.join(BACKENDS)}")
    if threads < 0:
        raise UsageError(f"threads is {threads}: it must be at least 1, or 0 for one per core")


def run_size(timesteps: int, backend: str) -> int:
    """Return how many samples to run at a time: fewer for many timesteps, where all of them are in memory at once."""
    return 32 if backend == "fused" else max(1, min(32, _ROWS // timesteps))


def load(path: str | os.PathLike[str]) -> SpikingNetwork:
    """Load a compiled network.

    Raises:
        ModelError: the file can't be read or is invalid.
        ArtifactError: it was not compiled by snncc.
    """
    loaded = load_model(path)
    if not loaded.is_artifact:
        raise ArtifactError(f"'{path}' is not a network compiled by snncc: make one with `snncc compile {path}`")
    return SpikingNetwork(loaded.model, read_record(loaded.model, f"'{path}'"))

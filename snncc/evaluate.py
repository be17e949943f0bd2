"""Evaluation: what a spiking network gets right, how near it is to its ANN, and what it spends, on given data.

It goes batch by batch and keeps sums only, so memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from snncc.data import Dataset
from snncc.data import load as load_data
from snncc.data.spec import InputSpec, format_shape
from snncc.errors import DataError, UsageError
from snncc.loader import LoadedModel
from snncc.network import EARLY_SIZE, SpikingNetwork, run_size
from snncc.passes.base import Progress
from snncc.runtime.early_exit import EarlyExit, class_output, run_early
from snncc.runtime.executor import InstrumentedExecutor
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.meter import Meter
from snncc.runtime.reference import ReferenceSimulator, Simulation
from snncc.runtime.session import Array, Session
from snncc.sequences import counterpart, run_ann
from snncc.sources import Source, input_specs, read_ann, resolve_data
from snncc.tally import Evaluation, Tally, class_scores

Observer = Callable[[Simulation, dict[str, Array] | None, slice], None]
"""Told about each batch: what the SNN gave, what the ANN gave, and which samples they are."""


def evaluate(
    network: SpikingNetwork,
    data: Any,
    *,
    ann: Source | LoadedModel | None = None,
    backend: str = "fused",
    batch_size: int | None = None,
    observer: Observer | None = None,
    threads: int = 0,
    early_exit: EarlyExit | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a spiking network over data, and its ANN beside it.

    An output [N, K] whose samples are shaped like those of an input (an autoencoder's) holds class scores only if the
    labels reach K - 1.

    Args:
        network: the spiking network.
        data: a `Dataset`, or what `snncc.data.load` takes; with labels for the accuracy.
        ann: the network that it was compiled from, for its accuracy, the agreement and the error of the outputs.
        backend: see `SpikingNetwork.run`.
        batch_size: samples at a time, where the networks' own batches are open; None for `run_size`.
        observer: told about the outputs of each batch, for tasks that need more than sums.
        threads: see `SpikingNetwork.run`.
        early_exit: when a sample leaves before the last timestep; backend "fused" only.
        progress: told about finished batches.

    Raises:
        UsageError: an option is out of range, or the ANN has other inputs or outputs.
        DataError: the data doesn't fit, or a label is no class of the network.
        ModelError: the ANN can't be read or breaks.
    """
    samples = data if isinstance(data, Dataset) else load_data(resolve_data(data), network.inputs)
    other = None if ann is None else _Ann(read_ann(ann), network, threads)
    simulator = network.simulator(backend, threads)
    meter = Meter(network.sized(samples), network.record.timesteps)
    size = _batch_size(samples, other, _run_size(network, backend, early_exit) if batch_size is None else batch_size)
    if not meter.analysis.separable:  # activity is summed run by run, so all runs must have the same size
        size = next(n for n in range(min(size, len(samples)), 0, -1) if len(samples) % n == 0)
    period = network.record.period
    tally: Tally | None = None
    rule: EarlyExit | None = None
    done = 0
    for number, batch in enumerate(samples.batches(size), 1):
        if early_exit is None:
            simulation = simulator.run(batch, trace=True)
        else:
            rule = rule or _rule_for(early_exit, samples, simulator, batch)
            simulation = run_early(_fused(simulator), batch, rule, trace=True)
        if tally is None:
            tally = Tally(samples, simulation)
        meter.add(simulation)
        expected = None if other is None else other.run(batch, network.inputs, period)
        rows = slice(done, done + simulation.samples)
        tally.add(simulation, expected, rows)
        if observer is not None:
            observer(simulation, expected, rows)
        done += simulation.samples
        if progress is not None:
            progress(number, -(-len(samples) // size))
    if tally is None:
        raise DataError(f"{samples.source} holds no samples: give at least one")
    warnings = [*([] if other is None else other.warnings), *tally.warnings()]
    found = tally.evaluation(network.record.timesteps, backend, meter.reading(), warnings)
    return replace(found, counterpart=None if other is None else counterpart(network.record.config))


def _run_size(network: SpikingNetwork, backend: str, early_exit: EarlyExit | None) -> int:
    return run_size(network.record.timesteps, backend) if early_exit is None else EARLY_SIZE


def _fused(simulator: FusedExecutor | InstrumentedExecutor | ReferenceSimulator) -> FusedExecutor:
    if not isinstance(simulator, FusedExecutor):
        raise UsageError("samples can leave early with backend fused only: it runs timestep by timestep")
    return simulator


def _rule_for(
    rule: EarlyExit,
    data: Dataset,
    simulator: FusedExecutor | InstrumentedExecutor | ReferenceSimulator,
    batch: Mapping[str, Array],
) -> EarlyExit:
    """Return a rule that looks at the output with the class scores."""
    if rule.output is not None:
        return rule
    first = _fused(simulator).run(batch)
    return replace(rule, output=class_scores(data, first) or class_output(first.outputs, first.samples))


def _batch_size(data: Dataset, ann: _Ann | None, wanted: int) -> int:
    """Return the batch size that both networks take."""
    fixed = data.inputs[0].batch or (None if ann is None else ann.batch)
    if fixed is not None and len(data) % fixed:
        raise DataError(
            f"{data.source} gives {len(data)} samples, the ANN takes {fixed} at a time: give a multiple of {fixed}, "
            "e.g. with --limit"
        )
    return fixed or wanted


class _Ann:
    """The ANN as it is in its file: neither normalised nor optimised by snncc."""

    def __init__(self, loaded: LoadedModel, network: SpikingNetwork, threads: int) -> None:
        specs = input_specs(loaded.model)
        wanted = [t.name for t in network.network.outputs]
        _check_same_inputs(loaded, specs, network.inputs)
        missing = [name for name in wanted if name not in {t.name for t in loaded.outputs}]
        if missing:
            raise UsageError(
                f"the ANN '{loaded.name}' has no output '{missing[0]}', which the spiking network has: "
                "give the network that it was compiled from"
            )
        self.batch = specs[0].batch
        self.warnings: list[str] = []
        source = network.record.source
        if source.get("sha256") != loaded.sha256:
            self.warnings.append(
                f"the spiking network was compiled from '{source.get('name')}' (SHA-256 "
                f"{str(source.get('sha256'))[:12]}...), not from this '{loaded.name}' ({loaded.sha256[:12]}...): "
                "the comparison is between two different networks"
            )
        self._wanted = wanted
        self._session = Session(loaded.model, f"the ANN '{loaded.name}'", threads)

    def run(self, batch: Mapping[str, Array], inputs: list[InputSpec], period: int) -> dict[str, Array]:
        """Run it on a batch for the spiking network; see `snncc.sequences.run_ann`."""
        return run_ann(self._session, batch, inputs, period, self._wanted)


def _check_same_inputs(loaded: LoadedModel, ann: list[InputSpec], snn: list[InputSpec]) -> None:
    def described(specs: list[InputSpec]) -> str:
        return ", ".join(f"'{s.name}' {s.dtype} {format_shape(s.shape)}" for s in specs)

    def matches(left: InputSpec, right: InputSpec) -> bool:
        if left.dtype != right.dtype or len(left.shape) != len(right.shape):
            return False
        sizes = zip(left.shape[1:], right.shape[1:], strict=True)
        return all(a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int))

    by_name = {spec.name: spec for spec in snn}
    if set(by_name) != {spec.name for spec in ann} or not all(matches(spec, by_name[spec.name]) for spec in ann):
        raise UsageError(
            f"the ANN '{loaded.name}' takes {described(ann)}, the spiking network {described(snn)}: "
            "give the network that it was compiled from"
        )

"""Sensitivity and cost of every candidate of every layer, with all other layers left as they are in the ANN.

The closed form takes currents to be constant over time, which in the real network only the first layer's are. What
uneven arrival adds to the error of an unsigned neuron was measured when the uniform configuration was calibrated; with
`uneven` a random disturbance of that size stands for it, so that candidates are compared by the error of the neuron
that will run. Signed neurons take back what came too early.

One walk through the ANN: at each activation the frontier holds what the rest of the network reads. There θ is fitted
for each candidate, and the rest is run with the layer spiking. So a candidate costs the passes through its suffix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.allocation.candidates import Candidate
from snncc.allocation.metric import Distance
from snncc.allocation.operations import FanOut
from snncc.allocation.suffix import Cut, Neurons, Suffix, cut_behind
from snncc.analysis import Analysis, Domain, NeuronSite
from snncc.artifact import LayerRecord
from snncc.config import Config
from snncc.data import Dataset
from snncc.errors import UsageError
from snncc.graph import is_missing, outer_inputs
from snncc.neurons.spread import spread
from snncc.neurons.threshold import UNEVENNESS
from snncc.passes.channel_sensitivity import channel_sensitivities
from snncc.passes.chunk_pool import ChunkPool
from snncc.passes.frontier import Entry, Frontier
from snncc.passes.layer import Layer
from snncc.passes.layer_fit import saturation, thresholds
from snncc.passes.pattern_thresholds import initial_potential
from snncc.passes.signed_fit import two_sided_thresholds
from snncc.runtime.segments import Segment, SegmentRunner, Step, plan, submodel
from snncc.runtime.session import Array, Session
from snncc.sequences import ann_feeds

_FOLDED = 1 << 19
"""Most values of a layer's output that all candidates of one run have together: it should stay in the cache."""
_MOST_UNEVEN = 2 * UNEVENNESS
"""Multiples of the rounding error beyond this say that the rounding error is hardly there."""
_PENDING = 4
"""Layers that may wait in an executor at a time: each holds its part of the frontier."""

Wanted = Mapping[str, Sequence[Candidate]]
"""Candidates by the name of the layer's node."""
LayerDone = Callable[[str, list["Score"]], None]


@dataclass(frozen=True)
class Score:
    """What one candidate of one layer does, per sample.

    Attributes:
        loss: sensitivity: symmetric KL or relative squared error of the network's output.
        spikes: spikes of the layer over all timesteps.
        operations: synaptic operations that they cause.
    """

    loss: float
    spikes: float
    operations: float


@dataclass(frozen=True)
class LayerJob:
    """One layer, ready to be scored anywhere: it can be pickled.

    Where neurons start anew within a sample, each of its `count` presentations (`snncc.sequences`) is a sample here.
    """

    site: NeuronSite
    suffix: Suffix
    fan_out: FanOut
    folds: bool
    neurons: Neurons
    currents: list[Array]
    inputs: list[dict[str, Array]]
    outputs: list[dict[str, Array]]
    class_output: str | None
    count: int = 1

    def scores(self) -> list[Score]:
        """Run all candidates and return what they do."""
        count = len(self.neurons.theta)
        suffix, fan_out = self.suffix, self.fan_out
        distance = Distance(self.class_output, count)
        spikes = np.zeros((count, *self.currents[0].shape[1:]))
        pooled: dict[str, NDArray[np.float64]] = {}
        runs = [(chunk, which) for chunk, current in enumerate(self.currents) for which in self._runs(current)]

        def run(number: int) -> tuple[dict[str, Array], Array, dict[str, Array]]:
            chunk, which = runs[number]
            found, emitted, levels = suffix.run(
                self.currents[chunk], self.inputs[chunk], which, levels=bool(fan_out.pools)
            )
            return found, emitted, {} if levels is None else fan_out.pooled(levels)

        with ChunkPool(len(runs)) as pool:
            suffix.prepare(pool.session_threads)
            for (chunk, which), (found, emitted, passing) in zip(runs, pool.each(run), strict=True):
                distance.add(self.outputs[chunk], found, which)
                spikes[which] += emitted
                for name, passed in passing.items():
                    pooled.setdefault(name, np.zeros((count, *passed.shape[1:])))[which] += passed
        samples = sum(len(current) for current in self.currents) / self.count
        operations = fan_out.operations(spikes / samples, {name: value / samples for name, value in pooled.items()})
        emitted_each = spikes.reshape(count, -1).sum(axis=1) / samples
        return [Score(*map(float, row)) for row in zip(distance.loss(), emitted_each, operations, strict=True)]

    def _runs(self, current: Array) -> Iterator[slice]:
        """Cut the candidates into those that run together."""
        size = max(1, _FOLDED // max(current.size, 1)) if self.folds else 1
        count = len(self.neurons.theta)
        return (slice(start, min(start + size, count)) for start in range(0, count, size))


def isolated(
    graph: gs.Graph,
    analysis: Analysis,
    data: Dataset,
    config: Config,
    wanted: Wanted,
    class_output: str | None,
    *,
    uniform: Mapping[str, LayerRecord],
    uneven: bool = True,
    score: Callable[[LayerJob], list[Score]] | None = None,
    executor: Executor | None = None,
    done: LayerDone | None = None,
) -> None:
    """Score candidates of layers, each layer alone spiking.

    Args:
        graph: the ANN in normal form.
        analysis: its analysis.
        data: calibration data.
        config: T, v0 and how thresholds are fitted.
        wanted: the candidates of each layer to score.
        class_output: name of the output with class scores, None if there is none.
        uniform: by node, what became of the layers in the uniform configuration: which of them are signed, and what
            uneven arrival costs the others.
        uneven: disturb the neurons as uneven arrival would.
        score: what scores a layer; None: alone, the other layers as in the ANN.
        executor: what runs the layers; None: one after the other, here.
        done: called with each layer's name and its scores, in the order of its candidates, in this thread.

    Raises:
        UsageError: the network mixes the samples of a batch.
    """
    if not analysis.separable:
        raise UsageError(
            "this network's samples can't be taken out of a batch one by one (a recurrent layer, say, or an operation "
            "across the batch), so its layers can't be scored sample by sample: compile it without a search"
        )
    pending: list[tuple[str, Future[list[Score]]]] = []

    def finish(limit: int) -> None:
        while len(pending) > limit:
            name, future = pending.pop(0)
            scores = future.result()
            if done is not None:
                done(name, scores)

    run = score or LayerJob.scores
    for job in _jobs(graph, analysis, data, config, wanted, class_output, uniform, uneven):
        if executor is None:
            scores = run(job)
            if done is not None:
                done(job.site.node, scores)
        else:
            pending.append((job.site.node, executor.submit(run, job)))
            finish(_PENDING)
    finish(0)


def _jobs(
    graph: gs.Graph,
    analysis: Analysis,
    data: Dataset,
    config: Config,
    wanted: Wanted,
    class_output: str | None,
    uniform: Mapping[str, LayerRecord],
    uneven: bool,
) -> Iterator[LayerJob]:
    """Walk through the ANN and yield a job for each layer that has candidates."""
    with_ratio = [name for name, candidates in wanted.items() if any(c.threshold_ratio != 1 for c in candidates)]
    sensitivities = channel_sensitivities(graph, analysis, data, config, with_ratio)
    walk = _Walk(graph, analysis, data, config)
    outputs = walk.outputs()
    folds = analysis.foldable and not analysis.readout_blockers
    for site in walk.sites():
        candidates = wanted.get(site.node, ())
        if not candidates:
            continue
        currents = walk.frontier[site.input].ann
        cut = cut_behind(graph, site.output, walk.finished)
        own = config.of_a_period()
        neurons = fit(site, currents, candidates, own, uniform[site.node], sensitivities.get(site.node), uneven=uneven)
        suffix = Suffix(graph, site, cut, neurons, analysis.batched)
        fan_out = FanOut(graph, analysis, site, currents[0].shape[1:])
        inputs, count = walk.inputs(cut), config.timesteps // config.period
        yield LayerJob(site, suffix, fan_out, folds, neurons, currents, inputs, outputs, class_output, count)


def fit(
    site: NeuronSite,
    currents: Sequence[Array],
    candidates: Sequence[Candidate],
    config: Config,
    uniform: LayerRecord,
    sensitivity: NDArray[np.float64] | None = None,
    *,
    uneven: bool,
) -> Neurons:
    """Fit θ for each candidate, as the calibration does; τ multiplies it afterwards.

    Args:
        site: the layer.
        currents: what reaches it in the ANN, per chunk.
        candidates: its ψ and τ.
        config: the options, with the T of a period.
        uniform: what became of it in the uniform configuration.
        sensitivity: see `snncc.neurons.spread`.
        uneven: disturb unsigned neurons as uneven arrival does.
    """
    with ChunkPool(len(currents)) as pool:
        layer = Layer(site, Entry([*currents]), config, pool)
        positive, negative = layer.positive, layer.negative
    signed = uniform.neuron == "signed"
    sides = (positive, negative) if signed else (positive,)
    fitted: dict[tuple[int, bool], NDArray[np.float32]] = {}
    rows = []
    for max_burst, ratio in candidates:
        own = replace(config, max_burst=max_burst, threshold_ratio=ratio)
        key = (max_burst, ratio == 1)  # an activation that was trained in steps has other thresholds for τ = 1
        if key not in fitted:
            if signed:
                fitted[key] = two_sided_thresholds(positive, negative, site, own)
            else:
                fitted[key] = thresholds(positive, site, own)
        highest = float("inf") if signed else saturation(site, own)
        rows.append(spread(fitted[key], ratio, sides, sensitivity, highest) * np.float32(ratio))
    disturbed = uneven and not site.static_input and not signed  # a signed neuron takes back what came too early
    noise = math.sqrt(_unevenness(uniform) / 12) if disturbed else 0.0
    bursts = np.array([c.max_burst for c in candidates], np.int64)
    return Neurons(np.stack(rows).astype(np.float32), bursts, config.timesteps, initial_potential(site, config), noise)


def _unevenness(uniform: LayerRecord) -> float:
    """Return the error by uneven arrival as a multiple of the rounding error, as it was in the uniform configuration.

    The multiple is taken to be the same for all candidates: both errors grow with the step θe/T, but for the part of
    the first that comes of bursts that ψ holds back. A layer whose neurons were chosen by their error has little of it:
    where there was more, they became signed.
    """
    if uniform.unevenness is None or not uniform.quantisation or min(uniform.unevenness, uniform.quantisation) <= 0:
        return 0.0
    return min(uniform.unevenness / uniform.quantisation, _MOST_UNEVEN)


class _Walk:
    """The ANN's activations layer by layer, as long as somebody needs them."""

    def __init__(self, graph: gs.Graph, analysis: Analysis, data: Dataset, config: Config) -> None:
        self._graph, self._analysis = graph, analysis
        self._sites = {site.node: site for site in analysis.neurons}
        self._steps = plan(graph, analysis, lambda node: node.name in self._sites)
        batches = data.batches(data.inputs[0].batch or config.batch_size)
        self._feeds = [ann_feeds(batch, data.inputs, config.period) for batch in batches]
        self.chunks = len(self._feeds)
        self.finished: set[str] = set()
        self.frontier = Frontier(self._steps)
        for tensor in graph.inputs:
            self.frontier.put(tensor.name, Entry([feed[tensor.name] for feed in self._feeds]))

    def outputs(self) -> list[dict[str, Array]]:
        """Return the ANN's outputs per chunk."""
        session = Session(submodel(self._graph, self._graph.nodes, self._graph.inputs, self._graph.outputs), "the ANN")
        return [session.run(feed) for feed in self._feeds]

    def sites(self) -> Iterator[NeuronSite]:
        """Yield each layer when the frontier has come to it."""
        left = len(self._sites)
        for step in self._steps:
            if not isinstance(step, Segment):
                yield self._sites[step.name]
                left -= 1
            if not left:
                return
            self._run(step)

    def _run(self, step: Step) -> None:
        if isinstance(step, Segment):
            segment = step
        else:
            inputs = tuple(t for t in outer_inputs(step) if not isinstance(t, gs.Constant))
            made = tuple(t for t in step.outputs if not is_missing(t))
            segment = Segment(Domain.TEMPORAL, (step,), inputs, made)
        runner = SegmentRunner(self._graph, segment, self._analysis)
        names = [t.name for t in segment.inputs]
        parts = [runner.run({name: self.frontier[name].ann[chunk] for name in names}) for chunk in range(self.chunks)]
        for tensor in segment.outputs:
            self.frontier.put(tensor.name, Entry([part[tensor.name] for part in parts]))
        self.frontier.done(step)
        self.finished.update(n.name for n in segment.nodes)

    def inputs(self, cut: Cut) -> list[dict[str, Array]]:
        """Return per chunk what a suffix reads besides the layer's output, computing what isn't there yet."""
        ready = [t.name for t in cut.inputs if t.name in self.frontier]
        values = [{name: self.frontier[name].ann[chunk] for name in ready} for chunk in range(self.chunks)]
        missing = [t for t in cut.inputs if t.name not in ready]
        if missing:
            made = {t.name for n in cut.beside for t in n.outputs}
            read = {t.name: t for n in cut.beside for t in outer_inputs(n) if t.name not in made}
            sources = [t for t in read.values() if not isinstance(t, gs.Constant)]
            session = Session(submodel(self._graph, cut.beside, sources, missing), "a branch of the ANN")
            for chunk, known in enumerate(values):
                known |= session.run({t.name: self.frontier[t.name].ann[chunk] for t in sources})
        return values

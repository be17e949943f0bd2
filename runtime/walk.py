"""A few samples on their way through a network and through time, block by block of timesteps.

What must be known of the timesteps before is the walk's state: membranes, and the sums of signed neurons, of running
means and of pools. So memory doesn't grow with the number of timesteps, and a walk can stand still after any of them.
It doesn't matter how long the blocks are: the state and all that comes of it are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.analysis import Form
from snncc.runtime.carried import Carried
from snncc.runtime.chain import Chain, Program
from snncc.runtime.forms import gains, running_mean
from snncc.runtime.increments import absolute_sum, increments
from snncc.runtime.int8_conv import Coded
from snncc.runtime.reference import Simulation
from snncc.runtime.route import Route, Runners
from snncc.runtime.segments import Segment, Step
from snncc.runtime.session import Array

_PERIODS = ":periods"
"""Where the state keeps what the readout reads, summed over the periods that are over; no node bears that name."""


class Walk:
    """Some samples on their way.

    Attributes:
        done: timesteps so far.
        carried: the state, by node or by tensor and form.
        result: spikes so far.
    """

    def __init__(self, route: Route, runners: Runners) -> None:
        self.route, self.runners = route, runners
        self.done = 0
        self.carried: dict[str, Carried] = {}
        self.result = Simulation({})
        self._static: dict[str, Array] = {}
        self._shown: dict[str, Array] = {}
        self._means: dict[str, Array] = {}

    @property
    def phase(self) -> int:
        """Timesteps since all neurons started, or started anew."""
        return self.done if self.route.period is None else self.done % self.route.period

    def present(self, feeds: Mapping[str, Array]) -> None:
        """Show an input [N, ...], which stays until another one comes."""
        self._shown = {name: feeds[name] for name in self.route.frames if name in feeds}
        self._static = {name: value for name, value in feeds.items() if name not in self.route.frames}
        for step in self.route.static:
            runner = self.runners.by_step[id(step)]
            self._static.update(runner.run({t.name: self._static[t.name] for t in step.inputs}))
        self._static = {name: value for name, value in self._static.items() if name in self.route.static_kept}

    def advance(
        self, timesteps: int, frames: Mapping[str, Array] | None = None, *, last: bool = False, trace: bool = False
    ) -> dict[str, Array]:
        """Run timesteps.

        Args:
            timesteps: their number.
            frames: what the inputs of frames present at each of them, [timesteps, N, ...]; None: what is shown.
            last: there won't be more, so that no state need be kept.
            trace: return the outputs after each of them.

        Returns:
            By name, the outputs [timesteps, N, ...], if they are asked for.
        """
        begun, traced = 0, []
        while begun < timesteps:
            left = timesteps - begun
            together = left if self.route.period is None else min(left, self.route.period - self.phase)
            now = {n: v[begun : begun + together] for n, v in (frames or {}).items()}
            traced += self._advance(together, now, last=last and together == left, trace=trace)
            begun += together
        return {name: np.stack([s[name] for s in traced]) for name in self.route.outputs} if trace else {}

    def _advance(
        self, timesteps: int, frames: Mapping[str, Array], *, last: bool, trace: bool
    ) -> list[dict[str, Array]]:
        """Run timesteps of one period."""
        ends = self.route.period is not None and self.phase + timesteps == self.route.period
        held = {n: np.broadcast_to(v, (timesteps, *v.shape)) for n, v in self._shown.items()}
        # The block's arrays are used again: what comes from outside is copied.
        block = _Block(self, timesteps, {n: np.array(v, order="C") for n, v in {**held, **frames}.items()}, not last)
        for step in self.route.groups:
            block.run(step)
        within = {name: block.in_form(name, Form.MEAN) for name in self.route.leaving}
        sums = self.carried.get(_PERIODS)
        means = within if sums is None else {n: self._over_periods(v, sums.get(n)) for n, v in within.items()}
        self._means = {name: np.array(value[-1]) for name, value in means.items()}
        steps = [self._outputs({n: v[t] for n, v in means.items()}) for t in range(timesteps if trace else 0)]
        if ends:
            self._start_anew({n: v[-1] for n, v in within.items() if v.dtype.kind == "f"}, sums or {})
        block.give_back()
        self.done += timesteps
        return steps

    def _over_periods(self, within: Array, sums: Array | None) -> Array:
        """Return the means over all timesteps so far, of those within this period [timesteps, N, ...]."""
        if sums is None:
            return within
        numbers = np.arange(1, len(within) + 1).reshape(-1, *[1] * (within.ndim - 1))
        means = (sums + within * (self.phase + numbers)) / (self.done + numbers)
        return np.asarray(means.astype(within.dtype))

    def _start_anew(self, means: Mapping[str, Array], sums: Mapping[str, Array]) -> None:
        """Forget the state, but for the sums over the periods that are over."""
        period = np.float64(self.route.period or 0)
        self.carried = {_PERIODS: {name: value * period + sums.get(name, 0.0) for name, value in means.items()}}

    def outputs(self) -> dict[str, Array]:
        """Return the outputs as if the run ended here."""
        return self._outputs(self._means)

    def finish(self) -> Simulation:
        """Return what the walk gave, and forget the rest: other walks of the batch may still be on their way."""
        self.carried, self._static, self._means = {}, {}, {}
        return self.result

    def select(self, rows: NDArray[np.int64]) -> None:
        """Go on with some of the samples, which must be able to go apart."""
        batched = self.route.analysis.batched
        self.carried = {k: {n: v[rows] for n, v in carried.items()} for k, carried in self.carried.items()}
        self._static = {n: v[rows] if n in batched else v for n, v in self._static.items()}
        self._shown = {n: v[rows] if n in batched else v for n, v in self._shown.items()}
        self._means = {n: v[rows] if n in batched else v for n, v in self._means.items()}

    def _outputs(self, means: Mapping[str, Array]) -> dict[str, Array]:
        values = {**self._static, **means}
        done = {**values, **self.runners.readout.run(dict(values))}
        constants = {t.name: t.values for t in self.route.graph.outputs if isinstance(t, gs.Constant)}
        return {n: np.array(constants[n] if n in constants else done[n]) for n in self.route.outputs}


@dataclass
class _Block:
    """Some timesteps of a walk."""

    walk: Walk
    timesteps: int
    frames: dict[str, Array]
    keep: bool

    def __post_init__(self) -> None:
        self._route, self._buffers = self.walk.route, self.walk.runners.buffers
        self._left = dict(self._route.readers)
        self._values: dict[str, Any] = {**self.walk._static, **self.frames}  # arrays, or codes
        self._decoded: dict[str, Array] = {}
        self._converted: dict[tuple[str, Form], Array] = {}
        self._programs: list[tuple[Chain, Program]] = []
        self._lent: set[str] = set()

    def run(self, step: Step | Chain) -> None:
        if isinstance(step, Chain):
            self._run_chain(step)
            return
        if isinstance(step, Segment):
            self._run_segment(step)
        elif self._route.coded.runs(step.name):
            self._run_coded(step)
        elif step.name in self._route.neurons:
            self._run_neuron(step)
        else:
            self._run_pool(step)
        self._done_with(self._route.reads[id(step)])

    def _done_with(self, names: Iterable[str]) -> None:
        """Drop tensors that nobody will read again."""
        for name in names:
            self._left[name] -= 1
            if not self._left[name] and name not in self._route.kept:
                self._drop(name)

    def in_form(self, name: str, form: Form) -> Array:
        """Return a tensor [timesteps, N, ...] in a form; one that isn't temporal as it is."""
        value, walk = self._value(name), self.walk
        if not self._route.is_temporal(name) or not self._route.analysis.needs_conversion(name, form, value.dtype):
            return value
        if (name, form) not in self._converted:
            convert = running_mean if form is Form.MEAN else gains
            self._converted[name, form] = convert(value, self._carried(f"{name}:{form.value}"), walk.phase)
        return self._converted[name, form]

    def _value(self, name: str) -> Array:
        value: Array | Coded = self._values[name]
        if not isinstance(value, Coded):
            return value
        if name not in self._decoded:
            self._decoded[name] = self.walk.runners.on_codes.dense(value)
        return self._decoded[name]

    def give_back(self) -> None:
        for name in [n for n in self._values if self._route.is_temporal(n)]:
            self._drop(name)
        for chain, program in self._programs:
            chain.give(program)

    def _carried(self, key: str) -> Carried | None:
        """Return the state of a node, or of a tensor's conversion; None where nobody wants it."""
        if not self.keep and not self.walk.phase:
            return None
        return self.walk.carried.setdefault(key, {})

    def _run_segment(self, segment: Segment) -> None:
        feeds = {t.name: self.in_form(t.name, segment.mode) for t in segment.inputs}
        temporal = {name for name in feeds if self._route.is_temporal(name)}
        runner = self.walk.runners.by_step[id(segment)]
        self._values.update(runner.run_over_time(feeds, temporal, self.timesteps))

    def _run_neuron(self, node: gs.Node) -> None:
        route, source = self._route, node.inputs[0].name
        value = self.in_form(source, route.analysis.modes[node.name])
        if not route.is_temporal(source):
            value = value[None]
        mine = value is self._values[source] and self._left[source] == 1 and source not in route.kept
        spikes = value if mine else self._buffers.take((self.timesteps, *value.shape[1:]))
        carried = self._carried(node.name)
        fired = route.fused[node.name].fire(self._apart(value), self._apart(spikes), carried, self.walk.phase)
        self._add(self.walk.result.spikes, node.name, fired)
        self._values[node.outputs[0].name] = spikes
        if mine:
            del self._values[source]

    def _run_chain(self, chain: Chain) -> None:
        walk, runners = self.walk, self.walk.runners
        given = {name: runners.on_codes.given(self._term(name)) for name in chain.reads}
        program = chain.take(given, self.timesteps, runners.threads)
        self._programs.append((chain, program))
        carried = {job.name: self._carried(job.name) for job in chain.jobs}
        found = program.run(given, carried, walk.phase, runners.pool)
        for name, spikes in found.items():
            sums = walk.result.spikes if name in self._route.neurons else walk.result.increments
            self._add(sums, name, spikes)
        self._values.update(program.outputs)
        self._lent.update(program.outputs)
        self._done_with(self._route.reads[id(chain)])

    def _run_coded(self, node: gs.Node) -> None:
        coded, on_codes, name = self._route.coded, self.walk.runners.on_codes, node.name
        if name in coded.layers:
            self._values[node.outputs[0].name] = on_codes.layer(name, self._term(node.inputs[0].name))
            return
        terms, carried = [self._term(term) for term in coded.terms[name]], self._carried(name)
        counts, fired = on_codes.neurons(name, terms, self.timesteps, carried, self.walk.phase)
        self._values[node.outputs[0].name] = counts
        self._add(self.walk.result.spikes, name, fired)

    def _term(self, name: str) -> Coded | Array:
        """Return what arrives, in codes or as floats [T or 1, N, ...]."""
        value: Coded | Array = self._values[name]
        if isinstance(value, Coded):
            return value
        value = self.in_form(name, Form.STEP)
        return value if self._route.is_temporal(name) else value[None]

    def _run_pool(self, node: gs.Node) -> None:
        source, target = node.inputs[0].name, node.outputs[0].name
        runner = self.walk.runners.by_step[id(node)]

        def pooled(x: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.asarray(runner.run_over_time({source: x}, {source}, self.timesteps)[target])

        gained = increments(np.asarray(self.in_form(source, Form.STEP)), pooled, self._carried(node.name))
        self._values[target] = gained
        self._add(self.walk.result.increments, node.name, absolute_sum(self._apart(gained)))

    def _apart(self, values: Array) -> Array:
        """Return values whose axis 1 enumerates samples: there is but one where samples are mixed."""
        return values if self._route.analysis.separable else values[:, None]

    def _add(self, sums: dict[str, NDArray[np.float64]], name: str, more: NDArray[np.float64]) -> None:
        sums[name] = sums[name] + more if name in sums else more

    def _drop(self, name: str) -> None:
        value = self._values.pop(name, None)
        if isinstance(value, Coded):
            if name not in self._lent:
                self._buffers.give(value.values)
            value = self._decoded.pop(name, None)
        if self._converted:
            for form in Form:
                self._converted.pop((name, form), None)
        if value is not None and self._route.is_temporal(name) and value.dtype == np.float32:
            self._buffers.give(value)

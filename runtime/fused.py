"""The fused executor: the network layer by layer over blocks of timesteps, each part by what does it fastest.

On processors with AVX2, layers that follow each other on spike counts, convolutions with the neurons behind them and
pools, are one call of compiled code: from counts to counts, channels last, part by part of a layer in the cache; see
`snncc.runtime.chain`. The convolutions run on a unit for matrices of bytes where there is one, or else in vectors.
Layers with 8-bit weights run on whole numbers; see `snncc.runtime.coded_plan`. Other linear pieces between neurons run
in ONNX Runtime with time folded into the batch axis, into arrays that are used again and again, and neurons there are
one compiled loop over all timesteps of a block, in place.

Samples go through in chunks small enough for the cache, several chunks side by side; a single one has all threads,
which share the work of each layer where there is enough of it. What is static is computed once, and so is what follows
the last neuron. Networks whose time can't be folded step through it, all samples of a batch together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.passes.analyse import analyse
from snncc.runtime.buffers import BufferPool
from snncc.runtime.int8_conv import alone
from snncc.runtime.presented import Presented
from snncc.runtime.reference import Simulation
from snncc.runtime.route import Route, Runners
from snncc.runtime.session import Array
from snncc.runtime.threads import available_cores
from snncc.runtime.walk import Walk

_SAMPLES = 8
"""Samples of a chunk."""

_ROWS = 64
"""Most samples times timesteps of a block, or all samples of one timestep."""

_PARTS = 2
"""Parts that a layer is cut into for each thread: on a busy machine one is soon done and another isn't."""

A = TypeVar("A")
B = TypeVar("B")


class FusedExecutor:
    """Simulates a network without time (as `unlower` returns it).

    The spikes are those of `ReferenceSimulator`, up to the rounding of the linear pieces. Where time can be folded into
    the batch axis, a sample's result doesn't depend on the samples that run with it, nor on the number of threads.
    """

    def __init__(self, graph: gs.Graph, timesteps: int, threads: int = 0) -> None:
        """Prepare the pieces; their sessions are opened when they are first needed.

        Args:
            graph: the network.
            timesteps: T.
            threads: threads for everything, 0 for one per core.
        """
        self.graph, self.timesteps = graph, timesteps
        self.threads = threads or available_cores()
        self.route = Route(graph, analyse(graph))
        self.presented = Presented.of(graph, self.route.analysis, timesteps)
        self._buffers = BufferPool()
        self._pool = ThreadPoolExecutor(self.threads, "snncc-fused")
        self._opened: dict[int, Runners] = {}

    def run(self, feeds: Mapping[str, Array], *, trace: bool = False) -> Simulation:
        """Run one batch; see `ReferenceSimulator.run`."""
        samples = self.presented.samples(feeds)

        def through(walk_of: tuple[Walk, slice]) -> Simulation:
            walk, rows = walk_of
            constant, frames = self.presented.apart(feeds, rows)
            walk.present(constant)
            return self._through(walk, frames, rows.stop - rows.start, trace)

        return self.gather(through, self.walks(samples), samples)

    def walks(self, samples: int, most: int = _SAMPLES) -> list[tuple[Walk, slice]]:
        """Return what takes a batch through time: walks that haven't begun, each with its part of the samples.

        Args:
            samples: number of samples of the batch.
            most: number of samples that a walk takes at most, where samples can go apart.
        """
        size = min(most, -(-samples // self.threads)) if self.route.splits else samples
        parts = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
        runners = self._runners(self.threads if len(parts) == 1 else 1)
        return [(Walk(self.route, runners), rows) for rows in parts]

    def each(self, work: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """Do something with each item, side by side."""
        return [work(items[0])] if len(items) == 1 else list(self._pool.map(work, items))

    def gather(self, work: Callable[[A], Simulation], items: Sequence[A], samples: int) -> Simulation:
        """Return what parts of a batch of so many samples give as one; their spikes are added up as they come."""
        spikes: dict[str, NDArray[np.float64]] = {}
        lock = threading.Lock()

        def add(item: A) -> Simulation:
            part = work(item)
            with lock:  # whole numbers: in any order, their sum is the same
                for name, more in part.spikes.items():
                    spikes[name] = spikes[name] + more if name in spikes else more
            part.spikes = {}
            return part

        result = _joined(self.each(add, items), samples)
        result.spikes = {name: spikes[name] for name in self.route.fused}
        return result

    def _through(self, walk: Walk, frames: Mapping[str, Array], samples: int, trace: bool) -> Simulation:
        together = max(1, _ROWS // samples)
        traced = []
        while walk.done < self.timesteps:
            steps = min(together, self.timesteps - walk.done)
            now = {name: value[walk.done : walk.done + steps] for name, value in frames.items()}
            traced.append(walk.advance(steps, now, last=walk.done + steps == self.timesteps, trace=trace))
        walk.result.outputs = walk.outputs()
        walk.result.trace = {name: np.concatenate([part[name] for part in traced]) for name in traced[0]}
        return walk.finish()

    def _runners(self, threads: int) -> Runners:
        """Return what runs the steps that are no neurons; opened with the first batch."""
        if threads not in self._opened:
            parallel, pool = (alone, None) if threads == 1 else (self._parallel, self._pool)
            self._opened[threads] = Runners(self.route, threads, self._buffers, parallel, pool)
        return self._opened[threads]

    def _parallel(self, work: Callable[[int, int], None], items: int) -> None:
        """Run work on parts of the items, side by side, in this thread too; not from within the pool."""
        size = -(-items // (self.threads * _PARTS))
        starts = iter(range(0, items, size))

        def take() -> None:
            for start in starts:
                work(start, min(start + size, items))

        others = [self._pool.submit(take) for _ in range(self.threads - 1)]
        take()
        for other in others:
            if not other.cancel():
                other.result()


def _joined(parts: list[Simulation], samples: int) -> Simulation:
    """Return what parts of a batch of so many samples gave as one, spikes aside."""
    first = parts[0]
    if len(parts) == 1:
        first.samples = samples
        return first
    result = Simulation({n: np.concatenate([p.outputs[n] for p in parts]) for n in first.outputs}, samples=samples)
    result.trace = {n: np.concatenate([p.trace[n] for p in parts], axis=1) for n in first.trace}
    result.increments = {n: np.sum([p.increments[n] for p in parts], axis=0) for n in first.increments}
    if first.exits is not None:
        result.exits = np.concatenate([p.exits for p in parts if p.exits is not None])
    return result

"""Layers on counts that run one after another in one call of compiled code."""

from __future__ import annotations

import collections
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snncc.runtime.buffers import BufferPool, aligned
from snncc.runtime.carried import Carried
from snncc.runtime.coded import Floats
from snncc.runtime.conv_neurons import ConvNeurons, Layer
from snncc.runtime.int8_conv import Coded
from snncc.runtime.layer_table import CONV, LAYER, address

Given = Coded | Floats

_WORK = 1 << 25
"""Multiplications below which calling for other threads takes longer than they help."""
_IDLE = 8
"""Programs that are kept for the next inputs of their shape."""


@dataclass(frozen=True)
class Job:
    """A layer of a chain.

    Attributes:
        name: its node.
        layer: what it does.
        reads: names of the tensors that it reads: what is convolved comes first, the rest is added.
        writes: name of the tensor that it writes.
    """

    name: str
    layer: Layer
    reads: tuple[str, ...]
    writes: str


class Chain:
    """Layers that run one after another.

    Attributes:
        jobs: the layers, each behind those that it reads.
        wanted: names of the tensors that are read outside.
        reads: names of the tensors that come from outside.
    """

    def __init__(self, jobs: Sequence[Job], wanted: set[str]) -> None:
        self.jobs, self.wanted = tuple(jobs), wanted
        made = {job.writes for job in jobs}
        self.reads = list(dict.fromkeys(name for job in jobs for name in job.reads if name not in made))
        self._idle: list[tuple[object, Program]] = []
        self._lock = threading.Lock()

    def take(self, given: Mapping[str, Given], timesteps: int, threads: int) -> Program:
        """Return a program for inputs of these shapes, which nobody else runs."""
        shapes = tuple((name, isinstance(x, Coded), x.shape) for name, x in given.items())
        key = (shapes, timesteps, threads)
        with self._lock:
            for place, (kept, program) in enumerate(self._idle):
                if kept == key:
                    del self._idle[place]
                    return program
            return Program(self, key, given, timesteps, threads)  # one at a time: layers lay their weights out once

    def give(self, program: Program) -> None:
        """Take a program back whose outputs nobody will look at again."""
        with self._lock:
            self._idle.append((program.key, program))
            del self._idle[:-_IDLE]


class Program:
    """A chain for inputs of certain shapes, with the arrays that it needs.

    Attributes:
        outputs: by name, the tensors that are read outside, overwritten by each run.
    """

    def __init__(self, chain: Chain, key: object, given: Mapping[str, Given], timesteps: int, threads: int) -> None:
        """Write the table; see `Chain.take`."""
        self.key, self._chain = key, chain
        self._layers, self._convs = np.zeros(len(chain.jobs), LAYER), np.zeros((len(chain.jobs), 2), CONV)
        buffers, values, written = BufferPool(), dict(given), []
        left = collections.Counter(name for job in chain.jobs for name in job.reads)
        self._given: list[tuple[str, int, int]] = []  # name, layer, which of its terms
        for place, job in enumerate(chain.jobs):
            layer, convs = self._layers[place], self._convs[place]
            terms = [values[name] for name in job.reads]
            written.append(job.layer.write(layer, convs, terms, timesteps, buffers, threads))
            values[job.writes] = written[-1].output
            self._given += [(name, place, k) for k, name in enumerate(job.reads) if name in given]
            for name in job.reads:
                left[name] -= 1
                value = values[name]
                if not left[name] and name not in given and name not in chain.wanted and isinstance(value, Coded):
                    buffers.give(value.values)
        self.outputs = {
            name: value for name, value in values.items() if name in chain.wanted and isinstance(value, Coded)
        }
        self._written = written
        self._sizes = [tuple(int(layer[n]) for n in ("height", "width", "features")) for layer in self._layers]
        self._ends = np.cumsum([0, *(h * w * c for h, w, c in self._sizes)])
        threads = threads if sum(w.work for w in written) > _WORK and self._layers["parts"].max() > 1 else 1
        room = max(w.room for w in written)
        self._scratch = [aligned(np.empty(room, np.float32)) for _ in range(threads)]
        self._sync = np.zeros(1 + len(written), np.int64)

    def run(
        self, given: Mapping[str, Given], carried: Mapping[str, Carried | None], done: int, pool: Executor | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Run the timesteps.

        Args:
            given: what comes from outside: counts, or floats [T or 1, N, ..., C], channels last.
            carried: by name of a layer its state, or None where it need not be kept.
            done: timesteps before.
            pool: where other threads wait for work.

        Returns:
            By name of a layer, the number of spikes of each element over time and samples, or what a pool passed on,
            absolute, float64 [C, H, W].
        """
        from snncc.runtime.layer_loop import run

        emitted = np.empty(self._ends[-1])
        layers, convs, jobs = self._layers, self._convs, self._chain.jobs
        layers["emitted"], layers["done"] = address(emitted) + 8 * self._ends[:-1], done
        for name, place, term in self._given:
            self._point(place, term, given[name])
        states = [job.layer.begin(layers[k], carried[job.name]) for k, job in enumerate(jobs)]
        self._sync[:] = 0
        others = (
            []
            if pool is None
            else [pool.submit(run, layers, convs, self._sync, scratch, False) for scratch in self._scratch[1:]]
        )
        run(layers, convs, self._sync, self._scratch[0], True)
        for other in others:
            if not other.cancel():
                other.result()
        for job, state in zip(jobs, states, strict=True):
            job.layer.end(carried[job.name], state)
        found = {}
        for job, a, b, size, written in zip(jobs, self._ends, self._ends[1:], self._sizes, self._written, strict=False):
            part: NDArray[np.float64] = emitted[a:b].reshape(size)
            if not isinstance(job.layer, ConvNeurons):
                part = part * written.output.step
            found[job.name] = part.transpose(2, 0, 1)
        return found

    def _point(self, place: int, term: int, value: Given) -> None:
        """Write where a tensor from outside stands."""
        job, layer = self._chain.jobs[place], self._layers[place]
        if not isinstance(value, Coded):
            layer["added"] = address(value)
        elif not isinstance(job.layer, ConvNeurons):
            layer["source"][0] = address(value.values)
        elif term < len(job.layer.convolutions):
            self._convs[place, term]["values"] = address(value.values)
        else:
            layer["residual"] = address(value.values)

"""A network that runs one timestep at a time, for input that arrives over time.

    stepper = network.stepper(batch=1)
    for frame in frames:                   # [1, ...] each; step() shows the last one again
        logits = stepper.step(frame)["logits"]

After t steps the output is bit for bit that of a run of t timesteps on the same samples: both are the same code on the
same state, and a sample doesn't depend on how many rows run together (`snncc.runtime.rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncc.data import InputSpec
from snncc.data import load as load_data
from snncc.errors import DataError, UsageError
from snncc.runtime.fused import FusedExecutor
from snncc.runtime.session import Array
from snncc.runtime.walk import Walk

_DONE, _FRAME = "timesteps", "frame:"


class Stepper:
    """A network on its way through time.

    Attributes:
        batch: number of samples N.
        timesteps: timesteps so far.
    """

    def __init__(self, executor: FusedExecutor, inputs: Sequence[InputSpec], batch: int | None = None) -> None:
        """Begin before the first timestep.

        Args:
            executor: what runs the network.
            inputs: the network's inputs.
            batch: number of samples; None for the network's own, or 1 where that is open.

        Raises:
            UsageError: the network takes another number of samples at a time.
        """
        own = inputs[0].batch
        self.batch = own or 1 if batch is None else batch
        if self.batch < 1 or self.batch != (own or self.batch):
            wanted = "at least 1" if own is None else f"{own}, the number that the network takes at a time"
            raise UsageError(f"batch is {batch}: it must be {wanted}")
        self._executor = executor
        self._inputs = [replace(spec, timesteps=None) for spec in inputs]  # each step takes one frame
        self.reset()

    @property
    def timesteps(self) -> int:
        """Timesteps so far."""
        return self._walks[0][0].done

    def reset(self) -> None:
        """Go back to before the first timestep: no input, no state."""
        self._walks = self._executor.walks(self.batch)
        self._frame: dict[str, Array] | None = None

    def step(self, frame: Any = None) -> dict[str, NDArray[Any]]:
        """Run one timestep.

        Args:
            frame: what arrives at this timestep, as `SpikingNetwork.run` takes it, [N, ...]; None: what arrived last.

        Returns:
            By output name, [N, ...]: the output as if the run ended here.

        Raises:
            DataError: the frame doesn't fit the network or the batch.
            UsageError: there was no frame yet, or the network was compiled for an input that doesn't change.
        """
        if frame is not None:
            self._present(self._read(frame))
        elif self._frame is None:
            raise UsageError("there is no input yet: give the first step a frame")

        def advance(part: tuple[Walk, slice]) -> dict[str, Array]:
            part[0].advance(1)
            return part[0].outputs()

        parts = self._executor.each(advance, self._walks)
        return {name: np.concatenate([p[name] for p in parts]) if parts[1:] else parts[0][name] for name in parts[0]}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the next step depends on, in arrays of its own; `numpy.savez(path, **state)` keeps it.

        The names are "timesteps", "frame:INPUT" for what arrived last, and for each layer of neurons "NODE:v_mem", or
        "NODE:count" and "NODE:total"; pools over time and means over time have sums of their own.
        """
        found: dict[str, NDArray[Any]] = {_DONE: np.array(self.timesteps, np.int64)}
        found.update({f"{_FRAME}{name}": value.copy() for name, value in (self._frame or {}).items()})
        parts = [_named(walk) for walk, _ in self._walks]
        for name in parts[0]:
            found[name] = np.concatenate([p[name] for p in parts])
        return found

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a state that `state` returned for the same network and batch; where it fails, nothing changes.

        Raises:
            UsageError: it is that of another network or another batch.
        """
        other = Stepper(self._executor, self._inputs, self.batch)
        values = {name: np.asarray(value) for name, value in state.items()}
        done = values.pop(_DONE, np.zeros(1))
        if done.shape != () or done.dtype.kind not in "iu" or done < 0:
            raise UsageError("the state names no number of timesteps: give what Stepper.state() returned")
        frame = {n: values.pop(f"{_FRAME}{n}") for n in (s.name for s in self._inputs) if f"{_FRAME}{n}" in values}
        if frame:
            try:
                other._present(other._read(frame))
            except DataError as error:
                raise UsageError(f"the state doesn't fit the network: {error}") from error
        if done > 0:
            if not frame:
                raise UsageError("the state holds no frame: give what Stepper.state() returned")
            for _ in range(_steps_to(int(done), self._executor.route.period)):
                other.step()  # tells which arrays there must be
        other._take(values, int(done))
        self._walks, self._frame = other._walks, other._frame

    def _take(self, values: Mapping[str, NDArray[Any]], done: int) -> None:
        wanted = {n: v for n, v in self.state().items() if n != _DONE and not n.startswith(_FRAME)}
        kinds = {name: (value.shape, value.dtype) for name, value in values.items()}
        odd = sorted(wanted.keys() ^ kinds.keys())
        odd += [name for name, value in wanted.items() if kinds.get(name) != (value.shape, value.dtype)]
        if odd:
            raise UsageError(f"the state doesn't fit the network and a batch of {self.batch}: see '{odd[0]}'")
        for walk, rows in self._walks:
            walk.done = done
            for key, carried in walk.carried.items():
                for name in carried:
                    value = values[f"{key}:{name}"]
                    carried[name] = np.array(value[rows] if self._walks[1:] else value, order="C")

    def _read(self, frame: Any) -> dict[str, Array]:
        data = load_data(frame, self._inputs)
        if len(data) != self.batch:
            raise DataError(f"the frame holds {len(data)} samples, the stepper was made for {self.batch}")
        return {name: np.array(data.arrays[name]) for name in (s.name for s in self._inputs)}

    def _present(self, frame: dict[str, Array]) -> None:
        if self._frame is not None and all(_is_same(frame[name], v) for name, v in self._frame.items()):
            return
        needs = self._executor.route.needs_constant
        if self.timesteps and needs is not None:
            raise UsageError(
                f"the input changed, but {needs} holds values that the network was compiled to take as constant over "
                "time: show the same frame at every step, or call reset() first"
            )
        for walk, rows in self._walks:
            walk.present({name: value[rows] for name, value in frame.items()})
        self._frame = frame


def _steps_to(done: int, period: int | None) -> int:
    """Return how many steps bring a stepper to as much state as `done` do: neurons may start anew after each period."""
    return 1 if period is None else min(done, period + done % period)


def _is_same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _named(walk: Walk) -> dict[str, NDArray[Any]]:
    return {f"{key}:{name}": value for key, carried in walk.carried.items() for name, value in carried.items()}

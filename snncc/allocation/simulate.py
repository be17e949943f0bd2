"""Compiling and simulating real networks at points of the front."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from snncc.allocation.cache import Cache
from snncc.allocation.metric import Distance
from snncc.allocation.result import Assignment, Measurement
from snncc.compiling import compile
from snncc.config import Config
from snncc.data import Dataset
from snncc.loader import LoadedModel
from snncc.network import SpikingNetwork
from snncc.runtime.meter import Meter
from snncc.runtime.session import Array, Session
from snncc.sequences import run_ann
from snncc.sources import in_batches


def quick(config: Config) -> Config:
    """Return options without the fit of the weights, which takes longest: it is made for the choice, not for all."""
    return replace(config, weight_calibration=False)


class Simulations:
    """Measures choices on the calibration set; what the cache knows isn't measured again."""

    def __init__(
        self,
        loaded: LoadedModel,
        data: Dataset,
        config: Config,
        class_output: str | None,
        cache: Cache,
        known: tuple[Assignment, SpikingNetwork] | None = None,
    ) -> None:
        """Prepare.

        Args:
            loaded: the ANN.
            data: calibration data.
            config: options of the compile.
            class_output: name of the output with class scores, None if there is none.
            cache: what was measured before.
            known: a choice that was compiled already, and its network.
        """
        self._loaded, self._data, self._config = loaded, data, quick(config)
        self._class_output, self._cache, self._known = class_output, cache, known
        self._expected: list[dict[str, Array]] | None = None

    def measure(self, assignment: Assignment, layers: Sequence[str]) -> Measurement:
        """Compile the network with an assignment, run it, and return what it does.

        Args:
            assignment: ψ and τ of every layer.
            layers: names of the layers, in topological order.
        """
        key = hashlib.sha256(json.dumps([[name, *assignment[name]] for name in layers]).encode()).hexdigest()
        row = self._cache.rows.get(key)
        if row is None or len(row) != 4 + len(layers):
            row = self._run(assignment, layers)
            self._cache.add({key: row})
        loss, agreement, operations, macs, *spikes = row
        return Measurement(
            dict(assignment), loss, None if np.isnan(agreement) else agreement, tuple(spikes), operations, macs
        )

    def _run(self, assignment: Assignment, layers: Sequence[str]) -> tuple[float, ...]:
        if self._known is not None and self._known[0] == assignment:
            network = self._known[1]
        else:
            network = compile(
                self._loaded,
                calibration=self._data,
                config=self._config,
                assignment=assignment,
            )
        simulator = network.simulator()
        meter = Meter(network.sized(self._data), self._config.timesteps)
        distance = Distance(self._class_output, 1)
        batches = in_batches(self._data, self._config.batch_size)
        for batch, expected in zip(batches, self._ann_outputs(), strict=True):
            simulation = simulator.run(batch)
            meter.add(simulation)
            distance.add(expected, {name: value[None] for name, value in simulation.outputs.items()})
        reading = meter.reading()
        by_layer = {neuron.name: neuron.spikes for neuron in reading.neurons}
        agreement = distance.agreement()
        return (
            float(distance.loss()[0]),
            float("nan") if agreement is None else float(agreement[0]),
            reading.synaptic_operations,
            reading.snn_macs,
            *(by_layer[name] for name in layers),
        )

    def _ann_outputs(self) -> list[dict[str, Array]]:
        if self._expected is None:
            session = Session(self._loaded.model, f"the ANN '{self._loaded.name}'")
            inputs, period = self._data.inputs, self._config.period
            batches = in_batches(self._data, self._config.batch_size)
            self._expected = [run_ann(session, batch, inputs, period, None) for batch in batches]
        return self._expected

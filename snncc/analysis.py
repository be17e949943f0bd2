"""What the analysis finds out about a network: data only; `snncc.passes.analyse` computes it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snncc.activations import Activation
from snncc.errors import Obstacle
from snncc.neurons.quantised import QuantisedActivation


class Domain(enum.Enum):
    """When a node runs."""

    STATIC = "static"  # does not change over time: computed once
    TEMPORAL = "temporal"  # once per timestep
    READOUT = "readout"  # after the last neuron: once, on the mean over time


class Form(enum.Enum):
    """How a temporal tensor holds time."""

    STEP = "step"  # what arrives at each timestep: spikes, currents
    MEAN = "mean"  # the mean over the timesteps so far, on which what isn't linear works


class Traffic(enum.Enum):
    """What a tensor carries."""

    ANALOG = "analog"  # values that don't change over time
    FRAMES = "frames"  # what the input presents, new at each timestep, before any neuron
    SPIKES = "spikes"  # spikes, possibly moved, merged, pooled or scaled
    GRADED = "graded"  # arbitrary values, new ones at each timestep
    READOUT = "readout"  # values computed once, from means over time


@dataclass(frozen=True)
class NeuronSite:
    """A place where a neuron goes, or is.

    Attributes:
        node: name of the activation node.
        input: name of its input tensor, the current.
        output: name of its output tensor.
        activation: what it computes in the ANN.
        static_input: the current doesn't change over time.
        channel_axis: axis of the channels in input and output.
        channels: their number; None if it isn't known.
        rank: rank of the current.
        dims: sizes of the current of one sample; None if one isn't known or the samples of a batch are mixed.
        form: how the current holds time.
        quantised: what the activation was in training, if it was trained in steps.
    """

    node: str
    input: str
    output: str
    activation: Activation
    static_input: bool
    channel_axis: int
    channels: int | None
    rank: int
    dims: tuple[int, ...] | None
    form: Form = Form.STEP
    quantised: QuantisedActivation | None = None


@dataclass(frozen=True)
class WeightedLayer:
    """A Conv, ConvTranspose, Gemm or MatMul.

    Attributes:
        node: its name.
        op: its operator.
        macs: multiply-accumulates of one sample of the ANN; None if a size isn't known.
        driven_by: what arrives at its input.
        source: name of the tensor that arrives.
        learned: its weights are constant; else it multiplies two values that depend on the input (attention).
    """

    node: str
    op: str
    macs: int | None
    driven_by: Traffic
    source: str
    learned: bool = True


@dataclass
class Analysis:
    """The result of `snncc.passes.analyse.Analyse`.

    Attributes:
        domains: the domain of each node, by its name.
        tensors: the domain of each variable tensor, by its name.
        neurons: the neurons in topological order.
        layers: the weighted layers in topological order.
        forms: how each temporal tensor holds time, by its name.
        modes: for each temporal node, the form of the tensors that it works on, by its name.
        sizes: names of the tensors that depend on the shapes of temporal tensors only, not on their values.
        traffic: what each variable tensor carries.
        batched: names of the tensors whose axis 0 enumerates samples.
        obstacles: nodes that this version can't convert.
        fold_blockers: why time can't be folded into the batch axis, a line per node; empty where it can.
        readout_blockers: the same for the nodes after the last neuron, which only an output trace folds.
        batch: the number of samples per run; None where it is open.
    """

    domains: dict[str, Domain] = field(default_factory=dict)
    tensors: dict[str, Domain] = field(default_factory=dict)
    neurons: list[NeuronSite] = field(default_factory=list)
    layers: list[WeightedLayer] = field(default_factory=list)
    forms: dict[str, Form] = field(default_factory=dict)
    modes: dict[str, Form] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    batched: set[str] = field(default_factory=set)
    obstacles: list[Obstacle] = field(default_factory=list)
    fold_blockers: list[str] = field(default_factory=list)
    readout_blockers: list[str] = field(default_factory=list)
    batch: int | None = None

    @property
    def foldable(self) -> bool:
        """Whether time can be folded into the batch axis."""
        return not self.fold_blockers

    @property
    def separable(self) -> bool:
        """Whether axis 0 of every temporal tensor can be taken to enumerate samples."""
        return self.foldable or (self.batch is None and all(site.input in self.batched for site in self.neurons))

    def needs_conversion(self, tensor: str, mode: Form, dtype: Any) -> bool:
        """Whether a node that works on `mode` must convert a tensor, given by name and type, before it reads it.

        What isn't floating point has no mean: it is what it is at each timestep.
        """
        kind = "f" if dtype is None else np.dtype(dtype).kind
        return self.forms.get(tensor) not in (None, mode) and tensor not in self.sizes and kind == "f"

    def macs(self) -> dict[str, int]:
        """Sum the multiply-accumulates of one sample by what drives them (`Traffic` values) and in `total`."""
        sums = {traffic.value: 0 for traffic in Traffic if traffic is not Traffic.FRAMES}
        for layer in self.layers:  # "frames" are named only where there are some
            sums[layer.driven_by.value] = sums.get(layer.driven_by.value, 0) + (layer.macs or 0)
        return {**sums, "total": sum(sums.values())}

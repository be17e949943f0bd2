"""What passes share: the configuration, and the results of analysis and calibration in typed fields."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from snncc.activations import Activation
from snncc.analysis import Analysis
from snncc.config import Config
from snncc.neurons.quantised import QuantisedActivation

if TYPE_CHECKING:
    from snncc.data import Dataset


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation per channel of a tensor, as a BatchNormalization promised them.

    Attributes:
        mean: float32 [C].
        std: float32 [C], not negative.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


@dataclass(frozen=True)
class ErrorParts:
    """Where the squared error of a layer's mean output comes from; each part relative to the activation's energy.

    Attributes:
        clipping: values beyond what the neuron can say at most.
        quantisation: the steps in which it says them.
        inherited: the SNN's mean current isn't the ANN's; negative where that makes up for the first two.
        unevenness: spikes arrive unevenly over time, or ψ holds bursts back.
    """

    clipping: float
    quantisation: float
    inherited: float
    unevenness: float


@dataclass(frozen=True)
class LayerCalibration:
    """What calibration found for one neuron layer.

    Attributes:
        v_threshold: θ, float32, [C] or [1].
        source: where θ comes from: "data", "batchnorm", "generated", or "pattern" for an activation trained in steps.
        v_init: initial membrane potential as a fraction of θe.
        bias_shift: what is added to the current, float32 [C]; None if there is no correction.
        mean_error: mean of SNN minus ANN activation after the correction, relative to the ANN's mean; None without
            data.
        error: squared error of the mean SNN output against the ANN's activation, relative to the activation's
            energy; None without data.
        firing_rate: spikes per neuron and timestep on the calibration data; None without data.
        signed: the neuron can take spikes back.
        parts: where `error` comes from; None without data.
        max_burst: ψ of this layer.
        threshold_ratio: τ of this layer.
    """

    v_threshold: NDArray[np.float32]
    source: str
    v_init: float
    bias_shift: NDArray[np.float32] | None = None
    mean_error: float | None = None
    error: float | None = None
    firing_rate: float | None = None
    signed: bool = False
    parts: ErrorParts | None = None
    max_burst: int = field(kw_only=True)
    threshold_ratio: float = field(kw_only=True)


@dataclass(frozen=True)
class WeightCorrection:
    """What brings the output of one weighted layer back to the ANN's, per channel: y -> gain * y + shift.

    Attributes:
        gain: float32 [C], positive.
        shift: float32 [C].
        weight: float32, the weights that take the place of those in the file before the gain; None for the latter.
        low: smallest output of each channel after the gain and without any bias, float64 [C]; None if that wasn't
            measured. Weights of 8 bits need it.
        high: largest.
    """

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


@dataclass
class Context:
    """State that travels through the pipeline beside the graph.

    Attributes:
        config: options of the compile.
        calibration: calibration data, None if there is none.
        assignment: ψ and τ of single layers of neurons, by the name of the node; the others have the configuration's.
        fit_weights: calibrate the weights too.
        batchnorm: moments of the outputs of the BatchNormalization nodes that were in the file, by tensor name.
        analysis: result of the latest analysis.
        sensitivities: what an error of each channel does to the layers that read it, float64 [C], by the name of the
            neuron's node, where τ isn't 1; see `snncc.passes.channel_sensitivity`.
        layers: result of calibration, by the name of the neuron's node.
        quantised: activations that were trained in steps, by the name of the Clip that stands for each.
        corrections: corrections of weighted layers that calibration found, by the name of the layer's node.
        activations: what each neuron stands for, by the name of its node: an inserted one doesn't say.
        float_layers: why weighted layers keep weights in single precision although 8 bits were asked for, by name.
        warnings: what the user should know; printed at the end and kept in the report.
    """

    config: Config
    calibration: Dataset | None = None
    assignment: dict[str, tuple[int, float]] = field(default_factory=dict)
    fit_weights: bool = False
    batchnorm: dict[str, Moments] = field(default_factory=dict)
    analysis: Analysis = field(default_factory=Analysis)
    sensitivities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    layers: dict[str, LayerCalibration] = field(default_factory=dict)
    quantised: dict[str, QuantisedActivation] = field(default_factory=dict)
    corrections: dict[str, WeightCorrection] = field(default_factory=dict)
    activations: dict[str, Activation] = field(default_factory=dict)
    float_layers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def layer_config(self, node: str) -> Config:
        """Return the options for one layer of neurons: the configuration, with the layer's own ψ, τ and v0.

        The timesteps are those from one start of the neurons to the next.

        Raises:
            UsageError: they are out of range.
        """
        config, quantised = self.config.of_a_period(), self.quantised.get(node)
        if node in self.assignment:
            max_burst, threshold_ratio = self.assignment[node]
            config = replace(config, max_burst=max_burst, threshold_ratio=threshold_ratio)
        if quantised is not None and quantised.decides(config):
            config = replace(config, v_init=quantised.v_init)
        return config

    def warn(self, message: str) -> None:
        """Note something the user should know, once."""
        if message not in self.warnings:
            self.warnings.append(message)

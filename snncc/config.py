"""What a compile can be told: the options, their defaults and their ranges."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from snncc.errors import UsageError

MAX_TIMESTEPS = 4096
"""Longest simulation that is accepted."""
MAX_BURST = 255
"""Largest ψ: spike counts are kept as uint8."""
NEURONS = ("auto", "burst", "signed")
"""What a ReLU may become."""
WEIGHTS = ("float32", "int8")
"""How the weights that spikes reach are kept."""
INPUT_CODINGS = ("constant", "frames")
"""What an input presents: the same values at every timestep, or a frame of its own at each."""
THRESHOLD_METHODS = ("mse", "max", "percentile")
"""How θ is found: least squared error, or ψ spikes reach the activation's maximum or a percentile of it."""
_SWITCHES = (
    "per_channel",
    "ratio_per_channel",
    "bias_correction",
    "gain_correction",
    "weight_calibration",
    "analog",
    "strict",
    "trace",
)


@dataclass(frozen=True)
class Config:
    """Options of a compile. The symbols are those of the paper; all are checked on construction.

    Numbers may be NumPy's; they are kept as Python's own.

    Attributes:
        timesteps: T, simulation length, 1 to `MAX_TIMESTEPS`.
        max_burst: ψ, most spikes of one neuron in one timestep, 1 to `MAX_BURST`.
        v_init: v0, initial membrane potential as a fraction of the effective threshold, in [0, 1).
            0.5 turns the floor of the neuron into a rounding; 0 is the paper's equation.
        threshold_ratio: τ, multiplier of every threshold, at least 1.
        threshold_method: one of `THRESHOLD_METHODS`.
        percentile: of an activation's values, which θ·ψ reaches with the method "percentile", in [1, 100].
        per_channel: one threshold per channel (True) or one per layer.
        ratio_per_channel: spread a layer's τ over its channels by what they matter to the layers that read them
            (`snncc.neurons.spread`): the same share of spikes is saved, and less is lost. False is the paper's, τ for
            each channel. Needs calibration data and a threshold per channel.
        bias_correction: fold the mean conversion error of each layer into its bias. Needs calibration data.
        gain_correction: with the bias correction, also match the standard deviation of each weighted layer's output
            to the ANN's, by a factor per channel that is folded into the weights.
        weight_calibration: with the bias correction, also fit the weights of each layer to what reaches it in the
            SNN. It is kept only if it helps on a part of the calibration data that the fit doesn't see. Takes several
            times as long.
        weights: "int8" rounds the weights of the layers that spikes drive to 8 bits, and their outputs too; calibration
            sees the rounded weights. Needs calibration data and the bias correction.
        neuron: what a ReLU becomes: "burst" (unsigned spikes only), "signed" (a neuron that can take a spike back), or
            "auto": signed where that lowers the error. Every other activation becomes a signed neuron.
        analog: let values that no activation makes (of a Softmax, say) reach weights as they are, not as spikes.
        strict: refuse a network unless spikes drive every weighted layer between its first and last neuron, and nothing
            but neurons, linear operators and pooling stands there.
        trace: add an output `<name>_trace` [T, ...] with the running mean of each output after each timestep.
        batch_size: samples per calibration chunk; a matter of memory and speed, not of results.
        input_coding: one of `INPUT_CODINGS`.
        reset_after: with frames, the number of timesteps after which all neurons start anew, a divisor of T; None: the
            compile decides (see `snncc.sequences`), T: never within a sample.

    Raises:
        UsageError: an option is out of range.
    """

    timesteps: int = 8
    max_burst: int = 4
    v_init: float = 0.5
    threshold_ratio: float = 1.0
    threshold_method: str = "mse"
    percentile: float = 99.9
    per_channel: bool = True
    ratio_per_channel: bool = True
    bias_correction: bool = True
    gain_correction: bool = True
    weight_calibration: bool = False
    weights: str = "float32"
    neuron: str = "auto"
    analog: bool = False
    strict: bool = False
    trace: bool = False
    batch_size: int = 32
    input_coding: str = "constant"
    reset_after: int | None = None

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            _check_bool(name, getattr(self, name))
        if self.neuron not in NEURONS:
            raise UsageError(f"neuron is {self.neuron!r}: it must be one of {', '.join(NEURONS)}")
        if self.weights not in WEIGHTS:
            raise UsageError(f"weights is {self.weights!r}: it must be one of {', '.join(WEIGHTS)}")
        if self.weights == "int8" and not self.bias_correction:
            raise UsageError("weights is 'int8' without the bias correction, which measures the range of the currents")
        self._keep_whole("timesteps", 1, MAX_TIMESTEPS)
        self._keep_whole("max_burst", 1, MAX_BURST)
        self._keep_whole("batch_size", 1, 65536)
        self._keep_number("v_init", 0.0, 1.0, open_top=True)
        self._keep_number("threshold_ratio", 1.0, 1e6)
        self._keep_number("percentile", 1.0, 100.0)
        if self.threshold_method not in THRESHOLD_METHODS:
            raise UsageError(
                f"threshold_method is {self.threshold_method!r}: it must be one of {', '.join(THRESHOLD_METHODS)}"
            )
        if self.input_coding not in INPUT_CODINGS:
            raise UsageError(f"input_coding is {self.input_coding!r}: it must be one of {', '.join(INPUT_CODINGS)}")
        if self.reset_after is not None:
            self._check_reset()

    def _check_reset(self) -> None:
        if not self.has_frames:
            raise UsageError("reset_after is for frames, and the input is constant: give the input coding frames too")
        if self.timesteps % self._keep_whole("reset_after", 1, self.timesteps):
            raise UsageError(f"reset_after is {self.reset_after}: it must divide the {self.timesteps} timesteps")

    def _keep_whole(self, name: str, low: int, high: int) -> int:
        """Check a whole number and keep it as Python's own, which JSON can hold."""
        value = getattr(self, name)
        whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else low - 1
        if not low <= whole <= high:
            raise UsageError(f"{name} is {value!r}: it must be a whole number from {low} to {high}")
        object.__setattr__(self, name, whole)
        return whole

    def _keep_number(self, name: str, low: float, high: float, *, open_top: bool = False) -> None:
        """Check a number and keep it as Python's own float."""
        value = getattr(self, name)
        ok = isinstance(value, Real) and not isinstance(value, bool)
        # As float32, which is how neurons keep it.
        if not ok or not low <= value <= high or (open_top and np.float32(value) == high):
            bracket = ")" if open_top else "]"
            raise UsageError(f"{name} is {value!r}: it must be a number in [{low:g}, {high:g}{bracket}")
        object.__setattr__(self, name, float(value))

    @property
    def has_frames(self) -> bool:
        """Whether each timestep has a frame of its own."""
        return self.input_coding == "frames"

    @property
    def period(self) -> int:
        """Timesteps from one start of the neurons to the next: T unless they are reset within a sample."""
        return self.reset_after or self.timesteps

    def of_a_period(self) -> Config:
        """Return the options as a neuron sees them, which knows nothing of what was before its last start."""
        return dataclasses.replace(self, timesteps=self.period, reset_after=None)

    def to_dict(self) -> dict[str, int | float | bool | str | None]:
        """Return the options as plain values, for JSON; those that are about frames only where there are some."""
        values = dataclasses.asdict(self)
        if not self.has_frames:
            del values["input_coding"], values["reset_after"]
        return values


def checked_config(config: Config | None) -> Config:
    """Return options as a caller gave them; the defaults for None.

    Raises:
        UsageError: they are something else.
    """
    if config is not None and not isinstance(config, Config):
        raise UsageError(f"config is {config!r}: it must be a snncc.Config, or None for the defaults")
    return config or Config()


def _check_bool(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}: it must be True or False")

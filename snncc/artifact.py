"""The artifact: a spiking network as one ONNX file that stock ONNX Runtime runs, and the record that it carries.

Keys of `metadata_props`, each holding JSON:

    snncc.version        version of snncc that made the file
    snncc.source         name and SHA-256 of the network it was made of
    snncc.config         the options of the compile
    snncc.calibration    source, number of samples and fingerprint of the calibration data, or null
    snncc.network        multiply-accumulates by what drives them, and of the ANN; how time is lowered; the inputs that
                         present frames
    snncc.layers         a record per layer of neurons
    snncc.warnings       what the compile warned about
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import EncodeError

from snncc.context import Context
from snncc.errors import ArtifactError, ModelError, ResourceError
from snncc.external_data import MAX_TOTAL_BYTES
from snncc.graph import DOMAIN, export_model, first_line
from snncc.loader import MAX_MESSAGE_BYTES
from snncc.neurons.functions import functions
from snncc.packed import described, write

VERSION = "0.1.0"
FUNCTIONS_VERSION = 1
"""Version of the domain `snncc` that artifacts import."""

_PREFIX = "snncc."
_MAX_TENSOR_BYTES = MAX_MESSAGE_BYTES - 2**16  # some for its name and shape


@dataclass(frozen=True)
class LayerRecord:
    """What an artifact says about one layer of neurons.

    Attributes:
        name: name of the node, in the ANN and in the artifact.
        activation: "relu" or "clip", which the neuron computes itself, or what it encodes: "sigmoid", "softmax", ...
        neuron: "burst", or "signed" where it can take spikes back.
        neurons: number of neurons for one sample; None if a size isn't known.
        theta_min: smallest threshold θ of a channel.
        theta_max: largest threshold.
        thresholds: number of thresholds (channels, or 1).
        threshold_source: "data", "batchnorm", "generated" or "pattern".
        max_burst: ψ.
        threshold_ratio: τ.
        v_init: initial membrane potential as a fraction of the effective threshold.
        bias_shift: mean absolute shift of the bias correction over the channels; None if there is none.
        error: squared error of the SNN's mean output on the calibration data, relative to the ANN's energy.
        mean_error: mean of SNN minus ANN on the calibration data, relative to the ANN's mean.
        firing_rate: spikes per neuron and timestep on the calibration data.
        clipping: part of `error` that comes of values beyond what the neuron can say at most.
        quantisation: part that comes of the steps in which it says them.
        inherited: part that arrives with the current, from the layers before.
        unevenness: part that comes of spikes that arrive unevenly over time, or of bursts that ψ holds back.
    """

    name: str
    activation: str
    neuron: str
    neurons: int | None
    theta_min: float
    theta_max: float
    thresholds: int
    threshold_source: str
    max_burst: int
    threshold_ratio: float
    v_init: float
    bias_shift: float | None = None
    error: float | None = None
    mean_error: float | None = None
    firing_rate: float | None = None
    clipping: float | None = None
    quantisation: float | None = None
    inherited: float | None = None
    unevenness: float | None = None

    @property
    def entering(self) -> float | None:
        """The part of `error` that this layer adds to what reaches it."""
        parts = (self.clipping, self.quantisation, self.unevenness)
        return None if any(part is None for part in parts) else sum(part or 0.0 for part in parts)


@dataclass(frozen=True)
class Record:
    """Everything that an artifact says about itself; see the module's docstring for the keys."""

    version: str
    source: dict[str, Any]
    config: dict[str, Any]
    calibration: dict[str, Any] | None
    network: dict[str, Any]
    layers: list[LayerRecord]
    warnings: list[str] = field(default_factory=list)

    @property
    def timesteps(self) -> int:
        """T."""
        return int(self.config["timesteps"])

    @property
    def frames(self) -> list[str]:
        """The inputs that present a frame at each timestep, [T, N, ...]."""
        return list(self.network.get("frames", []))

    @property
    def period(self) -> int:
        """R, timesteps from one start of the neurons to the next: T unless they start anew within a sample."""
        return int(self.config.get("reset_after") or self.timesteps)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, for JSON."""
        return asdict(self)


def layer_records(ctx: Context) -> list[LayerRecord]:
    """Describe every layer of neurons that calibration found."""
    records = []
    for site in ctx.analysis.neurons:
        layer = ctx.layers[site.node]
        records.append(
            LayerRecord(
                name=site.node,
                activation=ctx.activations.get(site.node, site.activation).kind,
                neuron="signed" if layer.signed else "burst",
                neurons=None if site.dims is None else int(np.prod(site.dims, dtype=np.int64)),
                theta_min=float(layer.v_threshold.min()),
                theta_max=float(layer.v_threshold.max()),
                thresholds=len(layer.v_threshold),
                threshold_source=layer.source,
                max_burst=layer.max_burst,
                threshold_ratio=float(layer.threshold_ratio),
                v_init=float(layer.v_init),
                bias_shift=None if layer.bias_shift is None else float(np.abs(layer.bias_shift).mean()),
                error=layer.error,
                mean_error=layer.mean_error,
                firing_rate=layer.firing_rate,
                **asdict(layer.parts) if layer.parts is not None else {},
            )
        )
    return records


def build(graph: gs.Graph, record: Record, metadata: dict[str, str]) -> onnx.ModelProto:
    """Make the artifact of a lowered graph.

    Args:
        graph: the lowered graph.
        record: what the artifact says about itself.
        metadata: the original model's own metadata, kept.

    Raises:
        ModelError: the result is too large for a file, or no valid model (an error of the compiler, not of the user).
        ResourceError: there is too little memory to write it.
    """
    model = export_model(graph)
    model.functions.extend(used_functions(graph))
    kept = [entry for entry in model.opset_import if entry.domain not in (DOMAIN, "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    if not any(entry.domain == "" for entry in kept):
        model.opset_import.append(onnx.helper.make_opsetid("", graph.opset))
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, FUNCTIONS_VERSION))
    model.ir_version = max(8, graph.ir_version or 8)
    model.producer_name, model.producer_version = "snncc", VERSION
    _write_metadata(model, record, metadata)
    check_size(graph)
    try:
        onnx.checker.check_model(described(model), full_check=True)
    except (EncodeError, MemoryError) as error:  # without its large weights it isn't too large for a message
        raise ResourceError("not enough memory to write the compiled network") from error
    except Exception as error:
        raise ModelError(f"the compiled network is not valid ONNX, please report this: {first_line(error)}") from error
    return model


def check_size(graph: gs.Graph, *, limited: bool = True) -> None:
    """Refuse a graph whose constants are larger than what can be held, and would be read again.

    Args:
        graph: the graph.
        limited: whether all together may be too large, as weights that become 8-bit ones may not.

    Raises:
        ModelError: one of them is larger than a message, or all together than external data may be.
    """
    sizes = {
        name: math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        for name, tensor in graph.tensors().items()
        if isinstance(tensor, gs.Constant)
    }
    largest = max(sizes, key=sizes.__getitem__, default="")
    if sizes.get(largest, 0) > _MAX_TENSOR_BYTES:
        raise ModelError(
            f"tensor '{largest}' takes {sizes[largest] / 2**30:.1f} GiB, more than the 2 GiB that "
            "protobuf holds of one tensor: split it into several, which a Concat or a sum joins"
        )
    size = sum(sizes.values())
    if limited and size > MAX_TOTAL_BYTES:
        raise ModelError(
            f"the weights of the compiled network take {size / 2**30:.1f} GiB, more than the "
            f"{MAX_TOTAL_BYTES >> 30} GiB that snncc reads and writes: `--weights int8` needs a quarter of that"
        )


def used_functions(graph: gs.Graph) -> list[onnx.FunctionProto]:
    """Return the functions of the domain `snncc` that a lowered graph needs."""
    graphs = (graph, *graph.subgraphs(recursive=True))
    return functions({node.op for one in graphs for node in one.nodes if node.domain == DOMAIN}, graph.opset)


def _write_metadata(model: onnx.ModelProto, record: Record, metadata: dict[str, str]) -> None:
    entries = {k: v for k, v in metadata.items() if not k.startswith(_PREFIX)}
    entries |= {_PREFIX + key: json.dumps(value, sort_keys=True) for key, value in record.to_dict().items()}
    del model.metadata_props[:]
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)


def read_record(model: onnx.ModelProto, what: str) -> Record:
    """Read the record of an artifact.

    Args:
        model: the artifact.
        what: what it is, for error messages.

    Raises:
        ArtifactError: the model is no artifact of snncc or its record is damaged.
    """
    entries = {p.key: p.value for p in model.metadata_props if p.key.startswith(_PREFIX)}
    if not entries or not any(f.domain == DOMAIN for f in model.functions):
        raise ArtifactError(f"{what} is not a network compiled by snncc: make one with `snncc compile`")
    try:
        values = {key.removeprefix(_PREFIX): json.loads(value) for key, value in entries.items()}
        values["layers"] = [LayerRecord(**layer) for layer in values["layers"]]
        record = Record(**values)
        _check_types(record)
        for layer in record.layers:
            _check_types(layer)
        if record.timesteps < 1:
            raise ValueError("timesteps is less than 1")
        if record.period < 1 or record.timesteps % record.period:
            raise ValueError("reset_after doesn't divide the timesteps")
        if not all(isinstance(name, str) for name in record.frames):
            raise ValueError("the inputs that present frames are no names")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{what} has a damaged record ({type(error).__name__}: {first_line(error)}): compile the network again"
        ) from error
    return record


def _check_types(part: Record | LayerRecord) -> None:
    for name, hint in get_type_hints(type(part)).items():
        kinds = tuple(get_origin(kind) or kind for kind in (get_args(hint) if isinstance(hint, UnionType) else (hint,)))
        if not isinstance(getattr(part, name), kinds):
            raise TypeError(f"'{name}' is a {type(getattr(part, name)).__name__}")


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> list[Path]:
    """Write a model whole or not at all: to temporary files beside the target, which then take their names.

    Weights that an ONNX file can't hold, as there are more than 1.5 GiB of them, go into a file beside it.

    Returns:
        The files.

    Raises:
        ArtifactError: the target can't be written.
    """
    target = Path(path)
    try:
        return write(model, target)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"can't write '{target}': {first_line(error)}; choose another place with -o") from error

"""How far the outputs of a spiking network are from its ANN's, and whether both have the same signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def is_real(value: NDArray[Any]) -> bool:
    """Whether an output holds real numbers: others, such as class labels, have no distance."""
    return value.dtype.kind == "f" or value.dtype.name == "bfloat16"


def relative_errors(snn: Arrays, ann: Arrays) -> dict[str, float]:
    """Return ‖SNN - ANN‖ / ‖ANN‖ (L2, over all samples) for each floating-point output; infinite for other shapes."""
    return {name: _relative(snn[name], value) for name, value in ann.items() if is_real(value)}


def _relative(value: NDArray[Any], expected: NDArray[Any]) -> float:
    if value.shape != expected.shape:
        return float("inf")
    target = expected.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities in both: NaN says it
        distance = float(np.linalg.norm(value.astype(np.float64) - target))
    size = float(np.linalg.norm(target))
    if size == 0.0:
        return 0.0 if distance == 0.0 else float("inf")
    return distance / size


def differing(snn: Arrays, ann: Arrays) -> dict[str, float]:
    """Return the share of entries that differ for each output that holds no real numbers; 1 for other shapes."""
    others = {name: value for name, value in ann.items() if not is_real(value)}
    return {name: _share(snn[name], value) for name, value in others.items()}


def _share(value: NDArray[Any], expected: NDArray[Any]) -> float:
    if value.shape != expected.shape:
        return 1.0
    return float(np.mean(value != expected)) if expected.size else 0.0


def variations(ann: Arrays, samples: int) -> dict[str, float]:
    """Return ‖y - mean over the samples‖ / ‖y‖ for each floating-point output whose axis 0 goes with the samples."""
    found = {}
    for name, value in ann.items():
        if not is_real(value) or value.ndim == 0 or len(value) % samples or samples < 2:
            continue
        rows = value.astype(np.float64).reshape(samples, -1)
        size = float(np.linalg.norm(rows))
        found[name] = float(np.linalg.norm(rows - rows.mean(axis=0))) / size if size else 0.0
    return found


def signature_changes(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """Say what differs between the declared inputs and outputs of two models; initializers are no inputs.

    A fixed axis must keep its size, and an open one stay open, unless all inputs are fixed, which settles it. A shape
    that was not declared may be added.
    """
    found = []
    settled = all("?" not in (shape or ["?"]) for _, shape in _declared(before, "input").values())
    for side in ("input", "output"):
        old, new = (_declared(model, side) for model in (before, after))
        if list(old) != list(new):
            found.append(f"{side}s are {', '.join(new)} instead of {', '.join(old)}")
            continue
        for name, (dtype, shape) in old.items():
            other, shape_now = new[name]
            if dtype != other:
                found.append(f"{side} '{name}' is of type {other} instead of {dtype}")
            if shape is not None and not _same_shape(shape, shape_now, settled=settled and side == "output"):
                found.append(f"{side} '{name}' is {shape_now} instead of {shape}")
    return found


def _same_shape(old: list[int | str], new: list[int | str] | None, *, settled: bool) -> bool:
    if new is None or len(old) != len(new):
        return False
    return all(was == now or (settled and was == "?") for was, now in zip(old, new, strict=True))


def _declared(model: onnx.ModelProto, side: str) -> dict[str, tuple[str, list[int | str] | None]]:
    defaults = {tensor.name for tensor in model.graph.initializer} if side == "input" else set()
    infos = model.graph.input if side == "input" else model.graph.output
    return {info.name: _type(info) for info in infos if info.name not in defaults}


def _type(info: onnx.ValueInfoProto) -> tuple[str, list[int | str] | None]:
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind), None
    tensor = info.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return name, None
    return name, [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else "?" for dim in tensor.shape.dim]

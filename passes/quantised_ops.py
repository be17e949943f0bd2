"""Operators on quantised tensors, each written as DequantizeLinear, the operator on floats, QuantizeLinear.

    QLinearConv(x, w, b) -> y     becomes     DQ(x), DQ(w), DQ(b) -> Conv -> Q -> y

The rules follow the definitions of ONNX (QLinearConv, QLinearMatMul, MatMulInteger, ConvInteger) and of ONNX Runtime's
contrib operators (domain com.microsoft), as far as its quantiser and its graph optimiser make them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc.graph import Names, constant, is_missing
from snncc.passes.quantisation import Array, Scheme, dequantised

MICROSOFT = "com.microsoft"


class Builder:
    """Collects the nodes of the rewritten graph in topological order."""

    def __init__(self, graph: gs.Graph) -> None:
        self.names = Names(graph)
        self.nodes: list[gs.Node] = []

    def emit(self, op: str, name: str, inputs: list[gs.Tensor], attrs: dict[str, object] | None = None) -> gs.Tensor:
        """Add a node with one output and return that."""
        output = gs.Variable(self.names.new(f"{name}.float"))
        self.nodes.append(gs.Node(op, name, dict(attrs or {}), inputs, [output]))
        return output

    def constant(self, name: str, values: Array) -> gs.Tensor:
        """Return a new constant."""
        return gs.Constant(self.names.new(name), np.asarray(values))

    def dequantise(self, tensor: gs.Tensor, scheme: Scheme) -> gs.Tensor:
        """Return the floats that a quantised tensor stands for."""
        values = constant(tensor)
        if values is not None:
            return self.constant(f"{tensor.name}.float", dequantised(values, scheme))
        return self.emit(
            "DequantizeLinear",
            self.names.new(f"{tensor.name}.dequantize"),
            [tensor, *self._parameters(tensor.name, scheme)],
            {} if scheme.is_scalar else {"axis": scheme.axis},
        )

    def quantise(self, tensor: gs.Tensor, scheme: Scheme, output: gs.Tensor) -> None:
        """Make `output` of floats."""
        name = self.names.new(f"{output.name}.quantize")
        inputs = [tensor, *self._parameters(output.name, scheme)]
        attrs = {} if scheme.is_scalar else {"axis": scheme.axis}
        self.nodes.append(gs.Node("QuantizeLinear", name, attrs, inputs, [output]))

    def _parameters(self, name: str, scheme: Scheme) -> tuple[gs.Tensor, gs.Tensor]:
        shape = () if scheme.is_scalar else (-1,)
        zero = np.broadcast_to(scheme.zero.reshape(-1), scheme.scale.reshape(-1).shape)
        return (
            self.constant(f"{name}.scale", scheme.scale.reshape(shape)),
            self.constant(f"{name}.zero_point", zero.reshape(shape)),
        )


def scheme_of(node: gs.Node, position: int, axis: int = 1, dtype: np.dtype[Any] | None = None) -> Scheme | None:
    """Return the scheme that two inputs of a node describe, scale first; None if they aren't constant.

    Args:
        node: the node.
        position: position of the scale.
        axis: axis that the scheme belongs to unless it is scalar.
        dtype: type of the zero point where none is given; None: uint8.
    """
    scale = optional(node, position)
    zero = optional(node, position + 1)
    if scale is None or not scale.size or (zero is None and _given(node, position + 1)):
        return None
    if zero is None:
        zero = np.zeros_like(scale, dtype=dtype or np.uint8)
    fits = zero.size in (1, scale.size) and np.issubdtype(scale.dtype, np.floating)
    return Scheme(scale, zero, axis) if fits else None


def optional(node: gs.Node, position: int) -> Array | None:
    """Return the value of an input; None if it is left out or no constant."""
    return constant(node.inputs[position]) if _given(node, position) else None


def _given(node: gs.Node, position: int) -> bool:
    return len(node.inputs) > position and not is_missing(node.inputs[position])


@dataclass(frozen=True)
class QuantisedOp:
    """An operator that takes quantised operands, each followed by its scale and zero point.

    Attributes:
        op: the operator on floats.
        operands: positions of the quantised operands.
        result: position of the result's scale; without one, the result is floating-point already.
        bias: position of an int32 bias, whose scale is the product of the operands'.
        plain: inputs that come first and aren't quantised.
        rest: attributes that only hold for the quantised form, with the one value for which both mean the same.
    """

    op: str
    operands: tuple[int, ...]
    result: int
    bias: int | None = None
    plain: int = 0
    rest: tuple[tuple[str, int], ...] = ()

    def __call__(self, node: gs.Node, build: Builder) -> bool:
        """Rewrite the node; False, with nothing done, if it can't be."""
        axes = [self._axis(node, number) for number in range(len(self.operands))]
        schemes = [scheme_of(node, p + 1, axis) for p, axis in zip(self.operands, axes, strict=True)]
        result = scheme_of(node, self.result) if _given(node, self.result) else None
        known = [scheme for scheme in schemes if scheme is not None]
        if len(known) < len(schemes) or (result is None and _given(node, self.result)):
            return False
        if any(node.attrs.get(name, value) != value for name, value in self.rest):
            return False
        bias = None
        if self.bias is not None and _given(node, self.bias):
            bias = self._bias(node, known)
            if bias is None:
                return False
        attrs = {k: v for k, v in node.attrs.items() if k not in dict(self.rest)}
        inputs = list(node.inputs[: self.plain])
        inputs += [build.dequantise(node.inputs[p], s) for p, s in zip(self.operands, known, strict=True)]
        if bias is not None:
            inputs.append(build.constant(f"{node.name}.bias", bias))
        _finish(node, build, build.emit(self.op, node.name, inputs, attrs), result)
        return True

    def _axis(self, node: gs.Node, number: int) -> int:
        """Return the axis of an operand's scales: that of its output channels."""
        if self.op == "Conv":
            return 0
        if self.op == "MatMul":
            return -1 if number else -2
        return 0 if node.attrs.get("transB", 0) else 1

    def _bias(self, node: gs.Node, schemes: list[Scheme]) -> Array | None:
        values = optional(node, self.bias or 0)
        if values is None:
            return None
        scale = schemes[0].scale.reshape(-1).astype(np.float64) * schemes[1].scale.reshape(-1)
        alpha = float(node.attrs.get("alpha", 1.0)) if self.op == "Gemm" else 1.0
        result: Array = (values.astype(np.float64) * scale * alpha).astype(schemes[0].scale.dtype)
        return result


def _finish(node: gs.Node, build: Builder, value: gs.Tensor, scheme: Scheme | None) -> None:
    """Let `value`, quantised where a scheme is given, take the place of the node's output."""
    output = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    if scheme is not None:
        build.quantise(value, scheme, output)
    else:
        build.nodes[-1].outputs = [output]


def _concat(node: gs.Node, build: Builder) -> bool:
    """QLinearConcat: scale and zero point of the result, then (x, scale, zero point) for each operand."""
    result = scheme_of(node, 0)
    schemes = [scheme_of(node, p + 1) for p in range(2, len(node.inputs), 3)]
    known = [scheme for scheme in schemes if scheme is not None]
    if result is None or len(known) < len(schemes):
        return False
    operands = [build.dequantise(node.inputs[2 + 3 * i], s) for i, s in enumerate(known)]
    _finish(node, build, build.emit("Concat", node.name, operands, node.attrs), result)
    return True


def _matmul_with_float(node: gs.Node, build: Builder) -> bool:
    """DynamicQuantizeMatMul(A float, B, B scale, B zero point, bias): a float product in the end."""
    scheme = scheme_of(node, 2, -1, optional_type(node.inputs[1]))
    if scheme is None or constant(node.inputs[1]) is None:
        return False
    inputs = [node.inputs[0], build.dequantise(node.inputs[1], scheme)]
    bias = node.inputs[4] if _given(node, 4) else None
    value = build.emit("MatMul", node.name, inputs)
    if bias is not None:
        value = build.emit("Add", build.names.new(f"{node.name}.bias"), [value, bias])
    _finish(node, build, value, None)
    return True


def optional_type(tensor: gs.Tensor) -> np.dtype[Any] | None:
    """Return the type of a quantised tensor, None where it isn't known."""
    return None if tensor.dtype is None else np.dtype(tensor.dtype)


def _integer_product(op: str) -> Callable[[gs.Node, Builder], bool]:
    """MatMulInteger and ConvInteger followed by a Cast: the sum of products of integers, less the zero points.

    A DynamicQuantizeLinear at an operand has no scale that is known; its scale is divided out again, and `dynamic`
    below cancels that against the Mul that multiplies with it.
    """

    def rule(node: gs.Node, build: Builder) -> bool:
        readers = list(node.outputs[0].outputs)
        if not readers or any(r.op != "Cast" or r.attrs.get("to") != onnx.TensorProto.FLOAT for r in readers):
            return False
        zeros = [optional(node, 2), optional(node, 3)]
        sources = [_dynamic_source(t) for t in node.inputs[:2]]
        for position in (0, 1):
            if zeros[position] is None and _given(node, 2 + position) and sources[position] is None:
                return False
        operands: list[gs.Tensor] = []
        scales: list[gs.Tensor] = []
        for tensor, zero, source, axis in zip(node.inputs[:2], zeros, sources, _AXES[op], strict=True):
            if source is not None:
                operands.append(source.inputs[0])
                scales.append(source.outputs[1])
                continue
            zero = np.zeros((), optional_type(tensor) or np.uint8) if zero is None else zero
            operands.append(build.dequantise(tensor, Scheme(np.ones(zero.shape, np.float32), zero, axis)))
        value = build.emit(op, node.name, operands, node.attrs)
        for scale in scales:
            value = build.emit("Div", build.names.new(f"{node.name}.unscale"), [value, scale])
        for reader in readers:
            reader.op, reader.attrs, reader.inputs = "Identity", {}, [value]
        node.inputs.clear()
        node.outputs.clear()
        return True

    return rule


_AXES = {"MatMul": (-2, -1), "Conv": (0, 0)}


def _dynamic_source(tensor: gs.Tensor) -> gs.Node | None:
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return node if node is not None and node.op == "DynamicQuantizeLinear" else None


RULES: dict[tuple[str, str], Callable[[gs.Node, Builder], bool]] = {
    ("", "QLinearConv"): QuantisedOp("Conv", (0, 3), 6, bias=8),
    ("", "QLinearMatMul"): QuantisedOp("MatMul", (0, 3), 6),
    ("", "MatMulInteger"): _integer_product("MatMul"),
    ("", "ConvInteger"): _integer_product("Conv"),
    (MICROSOFT, "QLinearConv"): QuantisedOp("Conv", (0, 3), 6, bias=8, rest=(("channels_last", 0),)),
    (MICROSOFT, "QLinearAdd"): QuantisedOp("Add", (0, 3), 6),
    (MICROSOFT, "QLinearMul"): QuantisedOp("Mul", (0, 3), 6),
    (MICROSOFT, "QGemm"): QuantisedOp("Gemm", (0, 3), 7, bias=6),
    (MICROSOFT, "QLinearSigmoid"): QuantisedOp("Sigmoid", (0,), 3),
    (MICROSOFT, "QLinearLeakyRelu"): QuantisedOp("LeakyRelu", (0,), 3),
    (MICROSOFT, "QLinearSoftmax"): QuantisedOp("Softmax", (0,), 3, rest=(("opset", 13),)),
    (MICROSOFT, "QLinearAveragePool"): QuantisedOp("AveragePool", (0,), 3, rest=(("channels_last", 0),)),
    (MICROSOFT, "QLinearGlobalAveragePool"): QuantisedOp("GlobalAveragePool", (0,), 3, rest=(("channels_last", 0),)),
    (MICROSOFT, "QLinearWhere"): QuantisedOp("Where", (1, 4), 7, plain=1),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "DynamicQuantizeMatMul"): _matmul_with_float,
}
"""How each operator on quantised tensors is rewritten, by domain and name: whether it could be."""

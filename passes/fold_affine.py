"""BatchNormalization and other per-channel affine nodes are folded into the weighted layer beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context, Moments
from snncc.errors import ModelError
from snncc.graph import constant, is_missing, shape_of, unique_name
from snncc.passes.affine import Affine, Float, identity, response, scale_inputs, scale_outputs
from snncc.passes.affine_nodes import Layer, affine_kind, affine_of, batch_norm_of, layer_of
from snncc.passes.base import Pass


@dataclass(frozen=True)
class FoldAffine(Pass):
    """Fold per-channel affine nodes y = s·x + b into Conv, ConvTranspose, Gemm and MatMul with constant weights.

    After a layer: BatchNormalization, and Mul, Div, Add and Sub with a constant per channel, in chains:

        x -> Conv(W, c) -> BatchNormalization -> Mul -> y     becomes     x -> Conv(s·W, s·c + b) -> y

    Before a layer, where no other layer could take it, BatchNormalization alone:

        x -> BatchNormalization -> Conv(W, c) -> y            becomes     x -> Conv(W·s, c + W b) -> y

    which is exact only where the layer doesn't pad the shift with zeros. What has other readers, makes an output of the
    network or has weights that aren't constant stays. The sums are done in float64; shared weights are copied.

    The mean β and standard deviation |γ| that each BatchNormalization promises are noted in `ctx.batchnorm` under its
    output's name, and under the name of the tensor that takes its place where affine nodes that follow it are folded.

    Attributes:
        matmul_to_gemm: MatMul with a shift after it becomes a Gemm where its input is a matrix, so that the shift has a
            place in the layer; else an Add is left after it.
    """

    matmul_to_gemm: bool = True

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`. It needs shapes for MatMul.

        Raises:
            ModelError: a BatchNormalization or a folded weight isn't a finite number.
        """
        _record_batchnorm(graph, ctx)
        fold = _Fold(graph, ctx, self.matmul_to_gemm)
        modified = False
        for node in list(graph.nodes):
            modified |= fold.after(node)
        for node in list(graph.nodes):
            modified |= fold.before(node)
        return modified


@dataclass(frozen=True)
class _Fold:
    graph: gs.Graph
    ctx: Context
    matmul_to_gemm: bool

    def after(self, node: gs.Node) -> bool:
        """Fold the chain of affine nodes that follows a layer into it."""
        reader = self._sole_reader(node.outputs[0]) if node.outputs else None
        if reader is None or affine_kind(reader) is None:
            return False  # before the weights are looked at: there may be gigabytes of them
        layer = layer_of(node)
        if layer is None:
            return False
        chain, total, moments = self._chain(layer)
        if not chain or (layer.layout.op == "MatMul" and not self._helps(layer, chain, total)):
            return False
        last = chain[-1].outputs[0]
        weight = scale_outputs(layer.weight, total.scale)
        bias = total.shift if layer.bias is None else layer.bias * total.scale + total.shift
        if moments is not None:
            self.ctx.batchnorm[last.name] = moments
        if layer.layout.op == "MatMul" and bias.any() and not self._can_be_gemm(layer):
            self._replace_weight(layer, weight)
            self._keep_add(node, chain, bias)
            return True
        self._replace(layer, weight, bias if layer.layout.op != "MatMul" or bias.any() else None)
        self._remove(chain)
        node.outputs[0] = last
        return True

    def before(self, node: gs.Node) -> bool:
        """Fold a BatchNormalization into the one layer that reads it."""
        if affine_kind(node) != "BatchNormalization" or not node.outputs:
            return False
        reader = self._sole_reader(node.outputs[0])
        layer = None if reader is None or reader.inputs[0] is not node.outputs[0] else layer_of(reader)
        if layer is None:
            return False
        affine = batch_norm_of(node, int(layer.weight.shape[0] * layer.weight.shape[2]))
        if affine is None or not self._exact_before(layer, affine):
            return False
        bias: Float | None = layer.bias
        if affine.shift.any():
            shift = layer.alpha * response(layer.weight, affine.shift)
            bias = shift if bias is None else bias + shift
        self._replace(layer, scale_inputs(layer.weight, affine.scale), bias)
        source = node.inputs[0]
        self._remove([node])
        layer.node.inputs[0] = source
        return True

    def _chain(self, layer: Layer) -> tuple[list[gs.Node], Affine, Moments | None]:
        """Follow the affine nodes after a layer; return them, their composition and the last one's moments."""
        chain: list[gs.Node] = []
        total = identity(layer.channels)
        tensor = layer.node.outputs[0]
        moments = self.ctx.batchnorm.get(tensor.name)
        while (reader := self._sole_reader(tensor)) is not None:
            affine = affine_of(reader, tensor, layer)
            if affine is None:
                break
            chain.append(reader)
            total = total.then(affine)
            tensor = reader.outputs[0]
            if reader.op == "BatchNormalization":
                moments = self.ctx.batchnorm.get(tensor.name)
            elif moments is not None:
                moments = transformed(moments, affine)
        return chain, total, moments

    def _sole_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the one node that reads a tensor; None if it is an output, or read elsewhere or in a subgraph."""
        if len(tensor.outputs) != 1 or any(tensor.name == t.name for t in self.graph.outputs):
            return None
        return next((n for n in self.graph.nodes if n is tensor.outputs[0]), None)

    def _can_be_gemm(self, layer: Layer) -> bool:
        shape = shape_of(layer.node.inputs[0])
        return self.matmul_to_gemm and shape is not None and len(shape) == 2

    def _helps(self, layer: Layer, chain: list[gs.Node], total: Affine) -> bool:
        """Whether folding shortens MatMul and what follows: a single Add is what would be left."""
        lone_add = len(chain) == 1 and bool(np.all(total.scale == 1)) and bool(total.shift.any())
        return not lone_add or self._can_be_gemm(layer)

    def _exact_before(self, layer: Layer, affine: Affine) -> bool:
        attrs, op = layer.node.attrs, layer.layout.op
        if op == "Gemm":
            return not attrs.get("transA", 0)
        if op == "MatMul":
            rank = shape_of(layer.node.inputs[0])
            return rank is not None and len(rank) == 2 and (self._can_be_gemm(layer) or not affine.shift.any())
        padded = any(attrs.get("pads", ())) or attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return not affine.shift.any() or (op == "Conv" and not padded)

    def _replace(self, layer: Layer, weight: Float, bias: Float | None) -> None:
        """Give a layer new weights and a new bias; a MatMul that gets one becomes a Gemm."""
        node = layer.node
        self._replace_weight(layer, weight)
        if bias is None:
            return
        if node.op == "MatMul":
            node.op, node.attrs = "Gemm", {}
        node.attrs.pop("beta", None)  # it is in the bias now
        old = node.inputs[2] if len(node.inputs) > 2 and not is_missing(node.inputs[2]) else None
        name = old.name if old is not None and self._is_private(old) else unique_name(self.graph, f"{node.name}_bias")
        tensor = gs.Constant(name, _finite(bias, node, node.inputs[1].values.dtype))
        if len(node.inputs) > 2:
            node.inputs[2] = tensor
        else:
            node.inputs.append(tensor)

    def _replace_weight(self, layer: Layer, weight: Float) -> None:
        node, old = layer.node, layer.node.inputs[1]
        values = layer.layout.stored(weight, tuple(old.shape))
        name = old.name if self._is_private(old) else unique_name(self.graph, f"{node.name}_weight")
        node.inputs[1] = gs.Constant(name, _finite(values, node, old.values.dtype))

    def _is_private(self, tensor: gs.Tensor) -> bool:
        return len(tensor.outputs) == 1 and all(tensor.name != t.name for t in self.graph.outputs)

    def _keep_add(self, node: gs.Node, chain: list[gs.Node], bias: Float) -> None:
        """Let MatMul be followed by one Add in place of a chain."""
        last = chain[-1].outputs[0]
        place = next(i for i, n in enumerate(self.graph.nodes) if n is chain[-1])
        name = chain[-1].name
        dtype = node.inputs[1].values.dtype
        self._remove(chain[:-1])
        place -= len(chain) - 1
        chain[-1].inputs.clear()
        chain[-1].outputs.clear()
        shift = gs.Constant(unique_name(self.graph, f"{node.name}_bias"), _finite(bias, node, dtype))
        self.graph.nodes[place] = gs.Node("Add", name, {}, [node.outputs[0], shift], [last])

    def _remove(self, nodes: list[gs.Node]) -> None:
        for node in nodes:
            node.inputs.clear()
            node.outputs.clear()
        gone = {id(node) for node in nodes}
        self.graph.nodes[:] = [n for n in self.graph.nodes if id(n) not in gone]


def transformed(moments: Moments, affine: Affine) -> Moments:
    """Return the moments of s·x + b: the mean goes through the map, the deviation is scaled by |s|."""
    mean = moments.mean * affine.scale + affine.shift
    return Moments(mean.astype(np.float32), (moments.std * np.abs(affine.scale)).astype(np.float32))


def _finite(values: Float, node: gs.Node, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        raise ModelError(
            f"node '{node.name}' ({node.op}): with the affine nodes around it folded in, its weights or bias aren't "
            "finite numbers; check the trained weights for NaN, infinity and vanishing variances"
        )
    return stored


def _record_batchnorm(graph: gs.Graph, ctx: Context) -> None:
    for node in graph.nodes:
        if affine_kind(node) != "BatchNormalization" or len(node.inputs) < 3 or node.attrs.get("training_mode", 0):
            continue
        gamma, beta = constant(node.inputs[1]), constant(node.inputs[2])
        if gamma is not None and beta is not None:
            mean, std = beta.astype(np.float32).reshape(-1), np.abs(gamma.astype(np.float32)).reshape(-1)
            ctx.batchnorm[node.outputs[0].name] = Moments(mean, std)

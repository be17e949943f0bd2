"""What every test of a pass does: read ONNX text, run the pass, compare with ONNX Runtime on the original graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort

from snncc.config import Config
from snncc.context import Context
from snncc.graph import constant, export_model, import_graph, infer_shapes
from snncc.network import SpikingNetwork
from snncc.ops import Role, spec_of
from snncc.passes.base import Pass

OPSET_17 = '<ir_version: 8, opset_import: ["" : 17]>'
EXACT = 0.0
ROUNDING = 1e-5
"""Tolerance, relative to the largest output, for sums that a pass has reordered: some tens of float32 roundings."""


@dataclass(frozen=True)
class Transformed:
    """A graph after a pass, with what the pass said and left."""

    graph: gs.Graph
    modified: bool
    ctx: Context
    model: onnx.ModelProto

    @property
    def ops(self) -> list[str]:
        return [node.op for node in self.graph.nodes]

    def node(self, name: str) -> gs.Node:
        return next(node for node in self.graph.nodes if node.name == name)

    def constant(self, name: str) -> np.ndarray:
        return np.asarray(self.graph.tensors()[name].values)


def parse(text: str, constants: Mapping[str, np.ndarray] | tuple[str, ...] = (), seed: int = 0) -> onnx.ModelProto:
    """Parse ONNX text; inputs named in `constants` become initializers, random ones where no value is given."""
    model = onnx.parser.parse_model(text if text.lstrip().startswith("<") else f"{OPSET_17}\n{text}")
    rng = np.random.default_rng(seed)
    for info in [i for i in model.graph.input if i.name in constants]:
        model.graph.input.remove(info)
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        value = rng.standard_normal(dims)
        if info.name.startswith("var"):
            value = np.abs(value) + 0.1
        given = constants[info.name] if isinstance(constants, Mapping) else value
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(given, dtype=dtype), info.name))
    onnx.checker.check_model(model, full_check=True)
    return model


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a session that computes the graph as it stands."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feed_of(model: onnx.ModelProto, seed: int = 0, free: int = 2) -> dict[str, np.ndarray]:
    """Return random inputs; sizes that aren't fixed are `free`."""
    rng = np.random.default_rng(seed)
    feed = {}
    initialized = {t.name for t in model.graph.initializer}
    for info in (i for i in model.graph.input if i.name not in initialized):
        shape = [d.dim_value or free for d in info.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        whole = np.issubdtype(dtype, np.integer) or dtype == np.bool_
        value = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
        feed[info.name] = np.asarray(np.abs(value) if info.name.startswith("var") else value, dtype=dtype)
    return feed


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(value) for value in session(model).run(None, feed)]


def signature(model: onnx.ModelProto) -> list[tuple[str, str]]:
    opened = session(model)
    return [(v.name, v.type) for v in (*opened.get_inputs(), *opened.get_outputs())]


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, tolerance: float = EXACT) -> None:
    """Compare two networks on random inputs: signature, and values relative to the largest of each output."""
    assert signature(before) == signature(after)
    for seed, free in ((1, 1), (2, 2), (3, 3)):
        feed = feed_of(before, seed, free)
        for want, got in zip(run(before, feed), run(after, feed), strict=True):
            assert want.shape == got.shape
            assert want.dtype == got.dtype
            if tolerance == EXACT:
                np.testing.assert_array_equal(got, want)
            else:
                scale = max(float(np.abs(want).max(initial=0)), 1e-30)
                np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance * scale)


def transform(
    step: Pass,
    model: str | onnx.ModelProto,
    constants: Mapping[str, Any] | tuple[str, ...] = (),
    *,
    tolerance: float = EXACT,
    infer: bool = True,
    compare: bool = True,
) -> Transformed:
    """Run a pass and check what holds for every pass.

    The result is valid under the checker's full check, has the signature of the original and its numbers, and a second
    run changes nothing.
    """
    before = parse(model, constants) if isinstance(model, str) else model
    graph, ctx = import_graph(before), Context(Config())
    if infer:
        infer_shapes(graph)
    modified = step.run(graph, ctx)
    assert isinstance(modified, bool)
    after = export_model(graph)
    onnx.checker.check_model(after, full_check=True)
    if compare:
        assert_same(before, after, tolerance)
    if infer:
        infer_shapes(graph)
    assert step.run(graph, ctx) is False
    assert export_model(graph).graph.node == after.graph.node
    return Transformed(graph, modified, ctx, after)


def thresholds_of(network: SpikingNetwork) -> dict[str, np.ndarray]:
    """θe by neuron, as it stands in the artifact."""
    return {
        n.name: np.asarray(constant(n.inputs[1])) * np.float32(n.attrs["threshold_ratio"])
        for n in network.network.nodes
        if spec_of(n).role is Role.NEURON
    }

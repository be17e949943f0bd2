"""Constant folding: what depends on constants and static shapes alone is computed once, now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from snncc.context import Context
from snncc.graph import Dim, constant, is_missing, shape_of, static_dims, subgraphs_of
from snncc.ops import SIZED_BY_VALUES
from snncc.passes.base import Pass

Array = NDArray[np.generic]

MAX_BYTES = 16 * 2**20
"""Largest result that is kept if it has more elements than what it is made of."""

# Their results differ from run to run. (The schema's own mark is newer than the oldest onnx that is supported.)
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_DESCRIBED_ELEMENTS = 1024  # constants above this size are only described to shape inference


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes whose inputs are all constant, or whose result depends on static sizes only, by initializers.

        c1, c2 -> Mul -> Add(x, .) -> y                     becomes    Add(x, c) -> y
        x [N, 8, 4] -> Shape -> Gather(., 1) -> ...         becomes    8 -> ...

    Nodes are evaluated with ONNX Runtime, those it has no kernel for with onnx's reference implementation. Left alone
    are random operators, nodes with subgraphs (though not the nodes in these), strings, nodes that make an output of
    the graph, and divisions of integers by 0, which end some runtimes' process.

    Attributes:
        max_bytes: a larger result is only kept if it has no more elements than one of its inputs. Its size is inferred
            before it is computed: a file of a few bytes can describe a tensor of any size.
    """

    max_bytes: int = MAX_BYTES

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`. It needs shapes to fold what depends on them."""
        return _fold(graph, graph.opset, self.max_bytes)


def _fold(graph: gs.Graph, opset: int, max_bytes: int) -> bool:
    outputs = {tensor.name for tensor in graph.outputs}
    folded: set[int] = set()
    modified = False
    for node in graph.nodes:
        subgraphs = list(subgraphs_of(node))
        for subgraph in subgraphs:
            modified |= _fold(subgraph, opset, max_bytes)
        if subgraphs or any(tensor.name in outputs for tensor in node.outputs):
            continue
        values = known_outputs(node, opset, max_bytes)
        if values is None:
            continue
        tensors = list(node.outputs)
        node.inputs.clear()
        node.outputs.clear()
        for tensor, value in zip(tensors, values, strict=True):
            if not is_missing(tensor):
                tensor.to_constant(value)
        folded.add(id(node))
    graph.nodes[:] = [node for node in graph.nodes if id(node) not in folded]
    return modified or bool(folded)


def known_outputs(node: gs.Node, opset: int, max_bytes: int = MAX_BYTES) -> list[Array] | None:
    """Return the values of a node's outputs if they don't depend on what the network is fed with, else None."""
    if node.domain not in (None, "") or node.op in _RANDOM or not node.outputs or node.op == "Constant":
        return None
    if node.op in ("Shape", "Size"):
        return _shape_values(node)
    partial = _part_of_shape(node, opset)
    if partial is not None:
        return [partial]
    if not all(is_missing(t) or isinstance(t, gs.Constant) for t in node.inputs):
        return None  # before any weight is read
    inputs = [None if is_missing(t) else constant(t) for t in node.inputs]
    if any(value is not None and value.dtype == np.dtype(object) for value in inputs):
        return None
    if _divides_by_zero(node, inputs) or not _affordable(node, inputs, opset, max_bytes):
        return None
    values = evaluate(node, inputs, opset)
    if values is None or not all(_fits(v.size, v.itemsize, inputs, max_bytes) for v in values):
        return None
    return values


# --- shapes -------------------------------------------------------------------------------------------------------


def _shape_values(node: gs.Node) -> list[Array] | None:
    """Return the value of Shape (with `start` and `end`) or Size where the sizes it needs are static."""
    dims = _dims_of_shape(node) if node.op == "Shape" else shape_of(node.inputs[0])
    sizes = static_dims(dims)
    if sizes is None:
        return None
    value = np.array(sizes, dtype=np.int64) if node.op == "Shape" else np.array(math.prod(sizes), dtype=np.int64)
    return [value]


def _dims_of_shape(node: gs.Node) -> tuple[Dim, ...] | None:
    shape = shape_of(node.inputs[0])
    if shape is None:
        return None
    start, end = int(node.attrs.get("start", 0)), int(node.attrs.get("end", len(shape)))
    return shape[start:end]  # Python's slices clamp the bounds just as ONNX does


def _part_of_shape(node: gs.Node, opset: int) -> Array | None:
    """Return what Gather or Slice takes of a Shape with some sizes unknown, if it takes known ones only."""
    source = node.inputs[0] if node.op in ("Gather", "Slice") and node.inputs else None
    if source is None or len(source.inputs) != 1 or source.inputs[0].op != "Shape":
        return None
    dims = _dims_of_shape(source.inputs[0])
    picks = [None if is_missing(t) else constant(t) for t in node.inputs[1:]]
    if dims is None or any(p is None and not is_missing(t) for t, p in zip(node.inputs[1:], picks, strict=True)):
        return None
    chosen = evaluate(node, [np.arange(len(dims)), *picks], opset)  # which positions it takes
    sizes = None if chosen is None else static_dims(dims[int(i)] for i in chosen[0].reshape(-1))
    return None if chosen is None or sizes is None else np.array(sizes, dtype=np.int64).reshape(chosen[0].shape)


# --- evaluation ---------------------------------------------------------------------------------------------------


def evaluate(node: gs.Node, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    """Run one node on constants.

    Args:
        node: the node.
        inputs: its inputs, None for those left out.
        opset: opset of the default domain.

    Returns:
        Its outputs, an empty array for those left out; None if nothing can run it.
    """
    model = _one_node_model(node, inputs, opset, described=range(len(inputs)))
    feed = {f"in{i}": value for i, value in enumerate(inputs) if value is not None}
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, feed)
    except Exception:  # no kernel for these types, or invalid input: the reference decides
        results = _evaluate_by_reference(model, feed)
    if results is None or any(not isinstance(r, np.ndarray | np.generic) for r in results):
        return None
    arrays = iter([np.asarray(r) for r in results])
    values = [np.zeros(0) if is_missing(t) else next(arrays) for t in node.outputs]
    return None if any(v.dtype == np.dtype(object) for v in values) else values


def _evaluate_by_reference(model: onnx.ModelProto, feed: dict[str, Array]) -> list[object] | None:
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, feed))
    except Exception:  # what can't be evaluated stays in the graph; it is no error of this pass
        return None


def _one_node_model(
    node: gs.Node, inputs: Sequence[Array | None], opset: int, described: Sequence[int]
) -> onnx.ModelProto:
    """Return a model of one node; inputs at the positions `described` are inputs, the others initializers."""
    proto = OnnxExporter.export_node(node)
    del proto.input[:], proto.output[:]
    proto.input.extend("" if value is None else f"in{i}" for i, value in enumerate(inputs))
    proto.output.extend("" if is_missing(t) else f"out{i}" for i, t in enumerate(node.outputs))
    infos, initializers = [], []
    for i, value in enumerate(inputs):
        if value is not None and i in described:
            dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            infos.append(onnx.helper.make_tensor_value_info(f"in{i}", dtype, value.shape))
        elif value is not None:
            initializers.append(onnx.numpy_helper.from_array(value, f"in{i}"))
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "fold", infos, outputs, initializer=initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


# --- limits -------------------------------------------------------------------------------------------------------


def _fits(elements: int, itemsize: int, inputs: Sequence[Array | None], max_bytes: int) -> bool:
    """Whether a result is small, or no larger than an input (a weight that is dequantised may take more bytes)."""
    largest = max((value.size for value in inputs if value is not None), default=0)
    return elements * itemsize <= max_bytes or elements <= largest


def _divides_by_zero(node: gs.Node, inputs: Sequence[Array | None]) -> bool:
    if node.op not in ("Div", "Mod") or len(inputs) != 2:
        return False
    divisor = inputs[1]
    return divisor is not None and np.issubdtype(divisor.dtype, np.integer) and not divisor.all()


def _affordable(node: gs.Node, inputs: Sequence[Array | None], opset: int, max_bytes: int) -> bool:
    """Whether the outputs are small enough, by shape inference. An output of unknown size is not.

    Exceptions are operators that pick from their input, whose output can't be much larger than it.
    """
    if node.op in SIZED_BY_VALUES:
        return True
    described = [i for i, v in enumerate(inputs) if v is not None and v.size > _DESCRIBED_ELEMENTS]
    model = _one_node_model(node, inputs, opset, described)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)  # data_prop would compute a Range
    except Exception:  # an invalid node: the checks of the whole network name it
        return False
    for output in inferred.graph.output:
        kind = output.type.tensor_type
        if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
            return False
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        if not _fits(math.prod(dim.dim_value for dim in kind.shape.dim), itemsize, inputs, max_bytes):
            return False
    return True

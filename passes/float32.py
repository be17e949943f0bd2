"""One floating-point type inside the network: float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.context import Context
from snncc.graph import constant, subgraphs_of, unique_name
from snncc.passes.base import Pass
from snncc.protos import TYPE_ATTRIBUTES

_OTHER_FLOATS = (np.dtype(np.float16), np.dtype(np.float64))
_OTHER_CODES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class ComputeInFloat32(Pass):
    """Let a network in float16 or float64 compute in float32; its signature keeps its types.

        x (float16) -> Conv -> y (float16)
        becomes
        x (float16) -> Cast -> x_float32 -> Conv -> y_float32 -> Cast -> y (float16)

    Constants, the types that operators name (Cast, ConstantOfShape, RandomNormal, ...) and subgraphs follow. Against
    float16 the results are the better ones; against float64 they lose what float32 can't hold (see `to_float32`).
    """

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        """Apply the pass; see `Pass.run`."""
        modified = _cast_inputs(graph)
        modified |= _cast_outputs(graph)
        kept = {id(t) for t in (*graph.inputs, *graph.outputs)}
        return _retype(graph, kept, _boundary_casts(graph)) or modified


def to_float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Convert an array to float32.

    Finite values stay finite: those too large, such as a mask of -1e308, become the largest float32. Values that aren't
    zero stay so: those too small, such as a guard of 1e-300 against division by zero, become the smallest normal
    float32. Infinities and NaN stay what they are.
    """
    info = np.finfo(np.float32)
    wide = np.asarray(values, dtype=np.float64)
    clipped = np.where(np.isfinite(wide), np.clip(wide, float(info.min), float(info.max)), wide)
    with np.errstate(under="ignore", invalid="ignore"):  # invalid: a signalling NaN
        narrow = clipped.astype(np.float32)
    lost = (narrow == 0) & (wide != 0)
    return np.where(lost, np.copysign(info.tiny, wide).astype(np.float32), narrow)


def _is_other_float(tensor: gs.Tensor) -> bool:
    return tensor.dtype is not None and not isinstance(tensor.dtype, int) and np.dtype(tensor.dtype) in _OTHER_FLOATS


def _code(dtype: object) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))  # type: ignore[call-overload]


def _cast_inputs(graph: gs.Graph) -> bool:
    """Cast every float16 or float64 input once; everyone who read it, in subgraphs too, reads the cast tensor."""
    modified = False
    for tensor in graph.inputs:
        readers = [n for n in tensor.outputs if not _is_cast_from(n, graph)]
        if not _is_other_float(tensor) or not readers:
            continue
        name = unique_name(graph, f"{tensor.name}_float32")
        inner = gs.Variable(name, dtype=np.dtype(np.float32), shape=tensor.shape)
        for reader in readers:
            for position, read in enumerate(reader.inputs):
                if read is tensor:
                    reader.inputs[position] = inner
        attributes = {"to": int(onnx.TensorProto.FLOAT)}
        graph.nodes.insert(0, gs.Node("Cast", f"{name}_cast", attributes, [tensor], [inner]))
        modified = True
    return modified


def _cast_outputs(graph: gs.Graph) -> bool:
    """Let the producer of a float16 or float64 output make a float32 tensor, and cast that to the output."""
    modified = False
    inputs = {id(t) for t in graph.inputs}
    for tensor in graph.outputs:
        if not _is_other_float(tensor) or id(tensor) in inputs or not tensor.inputs:
            continue
        producer = tensor.inputs[0]
        if _is_cast_to(producer, tensor):
            continue
        name = unique_name(graph, f"{tensor.name}_float32")
        inner = gs.Variable(name, dtype=np.dtype(np.float32), shape=tensor.shape)
        for reader in list(tensor.outputs):
            for position, read in enumerate(reader.inputs):
                if read is tensor:
                    reader.inputs[position] = inner
        position = next(i for i, t in enumerate(producer.outputs) if t is tensor)
        producer.outputs[position] = inner
        graph.nodes.append(gs.Node("Cast", f"{name}_cast", {"to": _code(tensor.dtype)}, [inner], [tensor]))
        modified = True
    return modified


def _is_cast_from(node: gs.Node, graph: gs.Graph) -> bool:
    """Whether a node of the main graph casts to float32 already."""
    return node.op == "Cast" and node.attrs.get("to") == onnx.TensorProto.FLOAT and any(node is n for n in graph.nodes)


def _is_cast_to(node: gs.Node, output: gs.Tensor) -> bool:
    """Whether a node casts to the type of an output already, from another type."""
    return node.op == "Cast" and node.attrs.get("to") == _code(output.dtype) and not _is_other_float(node.inputs[0])


def _boundary_casts(graph: gs.Graph) -> set[int]:
    """Return the casts that make an output, which keep their type."""
    return {id(n) for t in graph.outputs if _is_other_float(t) for n in t.inputs if _is_cast_to(n, t)}


def _retype(graph: gs.Graph, kept: set[int], casts: set[int]) -> bool:
    modified = False
    tensors = [*graph.inputs, *graph.outputs]
    for node in graph.nodes:
        tensors += [*node.inputs, *node.outputs]
        for subgraph in subgraphs_of(node):
            modified |= _retype(subgraph, kept, casts)
        if id(node) not in casts:
            modified |= _retype_attributes(node)
    for tensor in {id(t): t for t in tensors if id(t) not in kept}.values():
        if not _is_other_float(tensor):
            continue
        if isinstance(tensor, gs.Constant):
            tensor.values = to_float32(tensor.values)
        else:
            tensor.dtype = np.dtype(np.float32)
        modified = True
    return modified


def _retype_attributes(node: gs.Node) -> bool:
    modified = False
    for key, value in node.attrs.items():
        if isinstance(value, gs.Constant) and _is_other_float(value):
            array = constant(value)
            assert array is not None  # noqa: S101 - a Constant has a value
            node.attrs[key] = gs.Constant(value.name, to_float32(array))
        elif key in TYPE_ATTRIBUTES and isinstance(value, int) and value in _OTHER_CODES:
            node.attrs[key] = int(onnx.TensorProto.FLOAT)
        else:
            continue
        modified = True
    return modified

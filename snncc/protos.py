"""Work on ONNX messages, before a model is imported as a graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from google.protobuf.message import Message

from snncc.errors import ModelError

MAX_DENSE_BYTES = 2**30
"""Largest sparse initializer that is made dense."""

TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})
"""Attributes that name an element type, in whichever operator they stand."""

# Kinds of attributes that graphsurgeon keeps; it would lose the others.
_HELD = tuple(onnx.AttributeProto.AttributeType.Value(name) for name in ("FLOAT", "INT", "STRING", "TENSOR"))


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and every subgraph, those in the bodies of functions included."""
    yield model.graph
    for nodes in (model.graph.node, *(f.node for f in model.functions)):
        yield from _subgraphs(nodes)


def nested_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield every subgraph of a graph."""
    yield from _subgraphs(graph.node)


def all_nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, dict[str, int]]]:
    """Yield every node of the model with the opset versions, by domain, that hold where it stands."""
    opsets = opset_versions(model.opset_import)
    for node in _nested(model.graph.node):
        yield node, opsets
    for function in model.functions:
        own = opset_versions(function.opset_import)
        for node in _nested(function.node):
            yield node, own


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in the model: initializers and attributes, the parts of sparse ones included."""
    for graph in all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node, _ in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors


def opset_versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Return version by domain; the default domain is "", whichever of its two names the model uses."""
    return {domain_of(entry.domain): entry.version for entry in imports}


def domain_of(domain: str) -> str:
    """Return the domain's short name: "" for the default domain."""
    return "" if domain == "ai.onnx" else domain


def describe(node: onnx.NodeProto) -> str:
    """Return how messages name a node: 'name' (op)."""
    label = node.name or next((name for name in node.output if name), "?")
    return f"node '{label}' ({node.op_type})"


def _nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in _graphs_of(node):
            yield from _nested(graph.node)


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in _nested(nodes):
        yield from _graphs_of(node)


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def widen_bfloat16(model: onnx.ModelProto) -> None:
    """Write bfloat16 as float32, in place: every value is exact in it, and no runtime computes with less."""
    narrow, wide = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    for tensor in all_tensors(model):
        if tensor.data_type == narrow:
            name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    for graph in all_graphs(model):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type == narrow:
                info.type.tensor_type.elem_type = wide
    for node, _ in all_nodes(model):
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == narrow:
                attribute.i = wide


_TYPES = dict(onnx.TensorProto.DataType.items())
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
PACKED_BITS = {_TYPES[name]: bits for name, bits in _BITS.items() if name in _TYPES}
"""Bits of the types of which several numbers share a byte, as far as this version of onnx knows them."""
_IN_BYTES = {"INT4": "INT8", "UINT4": "UINT8", "INT2": "INT8", "UINT2": "UINT8"}


def narrow_weights(model: onnx.ModelProto) -> dict[str, int]:
    """Return the initializers of 2 or 4 bits that are weights, by name: the types that hold the same numbers in a byte.

    Weights are dequantised and nothing else; what saturates a type, as QuantizeLinear does, isn't the same in another.
    """
    wider = {_TYPES[narrow]: _TYPES[wide] for narrow, wide in _IN_BYTES.items() if narrow in _TYPES}
    graphs = list(all_graphs(model))
    found = {t.name: wider[t.data_type] for g in graphs for t in g.initializer if t.data_type in wider}
    if not found:
        return {}
    # A name that means something else in another graph, or that leaves one, is left alone.
    defined = Counter(t.name for g in graphs for t in g.initializer)
    defined.update(name for node, _ in all_nodes(model) for name in node.output)
    defined.update(info.name for g in graphs for info in g.output)
    defined.update(name for function in model.functions for name in function.input)
    for node, _ in all_nodes(model):
        dequantises = node.op_type == "DequantizeLinear" and not domain_of(node.domain)
        weights = dequantises and len(node.input) > 0 and node.input[0] in found
        for position, name in enumerate(node.input):
            if name in found and not (weights and position in (0, 2)):
                del found[name]
    return {name: kind for name, kind in found.items() if defined[name] == 1}


def widen_weights(model: onnx.ModelProto) -> None:
    """Write weights of 2 or 4 bits as bytes, in place: every value is exact, and NumPy knows them."""
    found = narrow_weights(model)
    for graph in all_graphs(model) if found else ():
        for tensor in graph.initializer:
            if tensor.name in found:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(found[tensor.name])
                values = onnx.numpy_helper.to_array(tensor).astype(dtype)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        for info in (*graph.input, *graph.value_info):
            if info.name in found:
                info.type.tensor_type.elem_type = found[info.name]


LARGE_ELEMENTS = 1024
"""Initializers above this size are described, not copied, for shape inference, conversion and import."""


def is_large(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor has more than `LARGE_ELEMENTS` elements."""
    return bool(math.prod(tensor.dims) > LARGE_ELEMENTS)


def without_large_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model in which the main graph's large initializers are mere inputs.

    The weights themselves are never copied: there may be gigabytes of them.
    """
    light = onnx.ModelProto()
    copy_fields(model, light, except_for="graph")
    copy_fields(model.graph, light.graph, except_for="initializer")
    initialized = {t.name for t in model.graph.initializer}
    inputs = [info for info in light.graph.input if info.name not in initialized]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    for tensor in model.graph.initializer:
        if is_large(tensor):
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(info)
        else:
            light.graph.initializer.append(tensor)
    return light


def copy_fields(source: Message, target: Message, except_for: str) -> None:
    """Copy what a message holds, but one field, into an empty one."""
    for field, value in source.ListFields():
        if field.name == except_for:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def importable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without what graphsurgeon would lose or stumble over.

    Large initializers of the main graph are inputs of the copy, see `without_large_initializers`.

    Raises:
        ModelError: a node has an attribute of type TypeProto, TensorProto[] or the like.
    """
    copy = without_large_initializers(model)
    _use_default_domain((*copy.opset_import, *(o for f in copy.functions for o in f.opset_import)))
    _clean_graph(copy.graph)
    for function in copy.functions:
        _clean_nodes(function.node)
    return copy


def dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return a sparse tensor as a dense one.

    Raises:
        ModelError: it would take more than a GiB.
    """
    values, indices = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    size = int(np.prod(sparse.dims, dtype=object)) * values.itemsize
    if size > MAX_DENSE_BYTES:
        raise ModelError(f"sparse initializer '{sparse.values.name}' takes {size} bytes when dense: that is too large")
    array = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:  # positions in the flattened tensor
        array.reshape(-1)[indices] = values
    else:  # [number of values, rank]
        array[tuple(indices.T)] = values
    return onnx.numpy_helper.from_array(array, sparse.values.name)


def _use_default_domain(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    for entry in imports:
        if entry.domain == "ai.onnx":  # the long name of the default domain
            entry.domain = ""


def _clean_graph(graph: onnx.GraphProto) -> None:
    graph.initializer.extend(dense(sparse) for sparse in graph.sparse_initializer)
    del graph.sparse_initializer[:]
    tensors = [info for info in graph.value_info if info.type.WhichOneof("value") == "tensor_type"]
    if len(tensors) != len(graph.value_info):  # an Optional or Map can't be held; its type is inferred again
        del graph.value_info[:]
        graph.value_info.extend(tensors)
    for info in (*graph.input, *graph.output):
        if info.type.WhichOneof("value") is None:  # graphsurgeon can't export what says nothing
            info.ClearField("type")
    _clean_nodes(graph.node)


def _clean_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.domain == "ai.onnx":
            node.domain = ""
        for attribute in list(node.attribute):
            _clean_attribute(node, attribute)


def _clean_attribute(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    kind = attribute.type
    if attribute.ref_attr_name:
        return
    if kind == onnx.AttributeProto.GRAPH:
        _clean_graph(attribute.g)
    elif kind == onnx.AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
        value = onnx.helper.make_attribute("value", dense(attribute.sparse_tensor))
        attribute.CopyFrom(value)
    elif kind in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS):
        if not (attribute.ints or attribute.floats or attribute.strings):
            _replace_empty_list(node, attribute)
    elif kind not in _HELD:
        name = onnx.AttributeProto.AttributeType.Name(kind)
        raise ModelError(
            f"{describe(node)}: its attribute '{attribute.name}' of type {name} "
            "isn't supported; export the network without Optional and Sequence types"
        )


def _replace_empty_list(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    """An empty list has no type once it is a Python list. In every operator but Constant it says the default."""
    if node.op_type == "Constant":
        dtype = {"value_ints": np.int64, "value_floats": np.float32}.get(attribute.name, np.object_)
        empty = onnx.numpy_helper.from_array(np.zeros(0, dtype=dtype))
        attribute.CopyFrom(onnx.helper.make_attribute("value", empty))
    else:
        node.attribute.remove(attribute)

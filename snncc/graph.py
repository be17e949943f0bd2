"""Small helpers around onnx-graphsurgeon graphs that every pass and runtime needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter, update_import_domains
from onnx_graphsurgeon.importers.onnx_importer import OnnxImporter
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from snncc.errors import ModelError
from snncc.protos import LARGE_ELEMENTS, all_graphs, importable, is_large

G_LOGGER.severity = G_LOGGER.CRITICAL + 1  # it prints; what matters reaches the user as an exception or a warning

DOMAIN = "snncc"
"""Domain of the model-local functions (neurons and their kin)."""

INT8_CONV, INT8_MATMUL = "Int8Conv", "Int8MatMul"
"""Functions of that domain: layers with 8-bit weights, see `snncc.passes.int8_weights`."""
FLOAT_OF = {INT8_CONV: "Conv", INT8_MATMUL: "MatMul"}
"""The operator that does the same in single precision."""

ML_DOMAIN = "ai.onnx.ml"
"""Domain of the operators for classical machine learning."""
SCALERS = ("Binarizer", "Imputer", "Normalizer", "Scaler")
"""Operators of that domain that keep the shape, for which onnx infers none."""

Dim = int | str | None
"""A dimension: its size, the name of a symbolic size, or unknown."""

_VAGUE_NAMES = ("", "?", "*", "-1", "None", "none")  # names that exporters give to a dimension they know nothing of


def import_graph(model: onnx.ModelProto, *, functions: bool = True) -> gs.Graph:
    """Import a model; every node gets a unique name, so that messages and records can point at it.

    Dimensions that say nothing (-1, 0, "?") become unknown (None): two "?" needn't be the same size. Sparse
    initializers become dense. The model itself is left alone. Without its functions, if they aren't asked for.

    Raises:
        ModelError: a node has an attribute that can't be held (of type TypeProto or sparse tensor).
    """
    light = importable(model)
    if not functions:
        del light.functions[:]
    graph = gs.import_onnx(light)
    large = {t.name: t for t in model.graph.initializer if is_large(t)}
    for tensor in [t for t in graph.inputs if t.name in large]:
        tensor.to_constant(LazyValues(large[tensor.name]))  # the model's own bytes, read when they are asked for
    graph.inputs[:] = [t for t in graph.inputs if t.name not in large]
    name_nodes(graph)
    for tensor in (*graph.inputs, *graph.outputs, *graph.tensors().values()):
        if not isinstance(tensor, gs.Constant) and tensor.shape is not None:
            tensor.shape = [known_dim(dim) for dim in tensor.shape]
    return graph


def name_nodes(graph: gs.Graph) -> None:
    """Give every node of the main graph a non-empty, unique name, keeping the names that are so already."""
    taken: set[str] = set()
    for node in graph.nodes:
        base = node.name or (node.outputs[0].name if node.outputs and node.outputs[0].name else node.op)
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        taken.add(name)


def export_model(graph: gs.Graph) -> onnx.ModelProto:
    """Export a graph as a model with the opset and domains that it says."""
    model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    return model


def constant(tensor: gs.Tensor) -> NDArray[np.generic] | None:
    """Return the value of a constant tensor, None if it is no constant."""
    if not isinstance(tensor, gs.Constant):
        return None
    lazy = tensor._values
    if isinstance(lazy, LazyValues) and lazy.dtype == np.dtype(object):
        return np.asarray(lazy.load())  # strings: once cached as an array they can't be exported again
    return np.asarray(tensor.values)


def shape_of(tensor: gs.Tensor) -> tuple[Dim, ...] | None:
    """Return the shape of a tensor, None if its rank is unknown."""
    if isinstance(tensor, gs.Constant):
        return tuple(int(dim) for dim in tensor.shape)
    return None if tensor.shape is None else tuple(known_dim(dim) for dim in tensor.shape)


def known_dim(dim: Dim) -> Dim:
    """Return a dimension, None where it says nothing: negative, zero or a placeholder such as "?"."""
    if isinstance(dim, str):
        return None if dim in _VAGUE_NAMES else dim
    return int(dim) if dim is not None and dim > 0 else None


def is_missing(tensor: gs.Tensor) -> bool:
    """Whether the tensor stands for an optional input or output that was left out."""
    return not isinstance(tensor, gs.Constant) and tensor.name == ""


def node_inputs(node: gs.Node) -> list[gs.Tensor]:
    """Return the inputs that are really there."""
    return [t for t in node.inputs if not is_missing(t)]


def outer_inputs(node: gs.Node) -> list[gs.Tensor]:
    """Return everything a node reads: its inputs and what its subgraphs capture from the graph around them."""
    found = node_inputs(node)
    seen = {id(t) for t in found}
    for subgraph in subgraphs_of(node):
        for tensor in captured(subgraph):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found.append(tensor)
    return found


def subgraphs_of(node: gs.Node) -> Iterator[gs.Graph]:
    """Yield the subgraphs held in a node's attributes."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            yield value
        elif isinstance(value, list) and value and isinstance(value[0], gs.Graph):
            yield from value


def captured(subgraph: gs.Graph) -> list[gs.Tensor]:
    """Return the tensors that a subgraph reads from the graphs around it."""
    own = {id(t) for t in subgraph.inputs}
    reads: list[gs.Tensor] = []
    for node in subgraph.nodes:
        own.update(id(t) for t in node.outputs)
    for node in subgraph.nodes:
        reads += outer_inputs(node)
    reads += list(subgraph.outputs)
    outside = [t for t in reads if id(t) not in own and not isinstance(t, gs.Constant)]
    return list({id(t): t for t in outside}.values())


def replace_reads(node: gs.Node, replaced: Mapping[str, gs.Tensor]) -> None:
    """Let a node, and the subgraphs that it holds, read other tensors in place of those with the given names."""
    for position, tensor in enumerate(node.inputs):
        if tensor.name in replaced:
            node.inputs[position] = replaced[tensor.name]
    for subgraph in subgraphs_of(node):
        for inner in subgraph.nodes:
            replace_reads(inner, replaced)
        for position, tensor in enumerate(subgraph.outputs):
            if tensor.name in replaced:
                subgraph.outputs[position] = replaced[tensor.name]


def consumers(graph: gs.Graph) -> dict[str, list[gs.Node]]:
    """Map each tensor's name to the nodes that read it, subgraph captures included, in graph order."""
    table: dict[str, list[gs.Node]] = {}
    for node in graph.nodes:
        for tensor in {t.name: t for t in outer_inputs(node)}.values():
            table.setdefault(tensor.name, []).append(node)
    return table


def producers(graph: gs.Graph) -> dict[str, gs.Node]:
    """Map each tensor's name to the node that makes it."""
    return {t.name: node for node in graph.nodes for t in node.outputs if not is_missing(t)}


def unique_name(graph: gs.Graph, base: str) -> str:
    """Return `base`, or `base` with a number, such that no tensor or node of the graph or its subgraphs bears it."""
    return Names(graph).new(base)


class Names:
    """The names in a graph and its subgraphs, for a pass that adds many nodes: the graph is searched once."""

    def __init__(self, graph: gs.Graph) -> None:
        self._taken = _names(graph)

    def new(self, base: str) -> str:
        """Return `base`, or `base` with a number, such that nothing bears it; it is taken from now on."""
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def _names(graph: gs.Graph) -> set[str]:
    names = {t.name for t in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        names.add(node.name)
        names.update(t.name for t in (*node.inputs, *node.outputs))
        for subgraph in subgraphs_of(node):
            names |= _names(subgraph)
    return names


def infer_shapes(graph: gs.Graph) -> None:
    """Infer the type and shape of every tensor of `graph`, in place.

    Large initializers are only described to the inference, so its cost and the 2 GB limit of a message do not depend
    on the size of the weights. What is known already is kept unless the inference knows more.

    Raises:
        ModelError: the shapes or types of the network contradict each other.
    """
    model = _without_large_initializers(graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # the C++ side raises several unrelated types
        raise ModelError(f"shape inference failed, so the network contradicts itself: {first_line(error)}") from error
    known = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.output)}
    promised = {d for t in graph.inputs for d in t.shape or () if isinstance(d, str)}
    outputs = {id(t) for t in graph.outputs}
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Constant) or any(tensor is t for t in graph.inputs):
            continue
        # Inference makes up names for sizes, and other ones in each run: an old one may mean something else now, and
        # none of them belongs into the signature.
        old = tensor.shape if id(tensor) in outputs else _without_other_names(tensor.shape, promised)
        info = known.get(name)
        if info is None or not info.type.HasField("tensor_type"):
            tensor.shape = old
            # Only what the file describes comes with its type.
            tensor.type = (None if info is None else info.type.WhichOneof("value")) or tensor.type
            continue
        imported = OnnxImporter.import_tensor(info)
        tensor.dtype = imported.dtype if imported.dtype is not None else tensor.dtype
        is_output = id(tensor) in outputs
        new = _without_other_names(imported.shape, promised) if is_output else imported.shape
        tensor.shape = merge_shapes(old, new, keep_names=is_output)


def _without_other_names(shape: Sequence[Dim] | None, promised: set[str]) -> list[Dim] | None:
    if shape is None:
        return None
    return [None if isinstance(dim, str) and dim not in promised else dim for dim in shape]


def merge_shapes(old: Sequence[Dim] | None, new: Sequence[Dim] | None, *, keep_names: bool = False) -> list[Dim] | None:
    """Combine two descriptions of one shape: sizes before names before nothing, and the new one before the old one.

    `keep_names` keeps the old names of sizes: those of the network's outputs belong to its signature.
    """
    if new is None:
        return None if old is None else [known_dim(d) for d in old]
    fresh = [d if isinstance(d, int) and d == 0 else known_dim(d) for d in new]
    if old is None or len(old) != len(fresh):
        return fresh
    return [_merge_dims(known_dim(a), b, keep_names) for a, b in zip(old, fresh, strict=True)]


def _merge_dims(old: Dim, new: Dim, keep_names: bool) -> Dim:
    if isinstance(new, int):
        return new
    if isinstance(old, int) or new is None or (keep_names and old is not None):
        return old
    return new


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return the first non-empty line of an error's message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]


def _without_large_initializers(graph: gs.Graph) -> onnx.ModelProto:
    """Return the graph as a model for shape inference.

    Large initializers are inputs that only say what they are. The declared shapes of the outputs are left out: some
    exporters write wrong ones, which runtimes overlook. Of the shapes in between only those of foreign operators are
    given, the rest is inferred afresh.
    """
    exporter = OnnxExporter
    constants = {n: t for n, t in graph.tensors().items() if isinstance(t, gs.Constant)}
    heavy = {n: t for n, t in constants.items() if int(np.prod(t.shape, dtype=np.int64)) > LARGE_ELEMENTS}
    fixed = {t.name for t in (*graph.inputs, *graph.outputs)}
    foreign = [t for n in graph.nodes if n.domain not in (None, "", "ai.onnx", DOMAIN) for t in n.outputs]
    foreign = [t for t in foreign if t.name not in fixed and t.dtype is not None and not is_missing(t)]
    inputs = [exporter.export_value_info_proto(t, False) for t in graph.inputs]
    inputs += [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), list(t.shape))
        for n, t in heavy.items()
    ]
    outputs = [exporter.export_value_info_proto(t, False) for t in graph.outputs]
    passed_on = {t.name for t in graph.inputs}
    for output in outputs:
        if output.type.HasField("tensor_type") and output.name not in passed_on:
            output.type.tensor_type.ClearField("shape")
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [_shape_alike(node) for node in graph.nodes],
            graph.name or "graph",
            inputs,
            outputs,
            initializer=[exporter.export_tensor_proto(t) for n, t in constants.items() if n not in heavy],
            value_info=[exporter.export_value_info_proto(t, False) for t in foreign],
        ),
        opset_imports=update_import_domains(graph),
        functions=[exporter.export_function(f) for f in graph.functions],
    )
    model.ir_version = graph.ir_version or 8
    for nodes in (*(f.node for f in model.functions), *(g.node for g in all_graphs(model))):
        _hide_ranges(nodes)
    return model


def _shape_alike(node: gs.Node) -> onnx.NodeProto:
    """Export a node for shape inference: a neuron, whose function isn't there yet, as what leaves shapes alone."""
    if node.domain == DOMAIN and node.op in FLOAT_OF:
        attributes = dict(node.attrs)
        names = [t.name for t in node.inputs[:2]]
        return onnx.helper.make_node(FLOAT_OF[node.op], names, [node.outputs[0].name], name=node.name, **attributes)
    if node.domain == DOMAIN:
        return onnx.helper.make_node("Identity", [node.inputs[0].name], [node.outputs[0].name], name=node.name)
    if node.domain == ML_DOMAIN and node.op in SCALERS:
        return onnx.helper.make_node("Cast", [node.inputs[0].name], [node.outputs[0].name], to=onnx.TensorProto.FLOAT)
    exported: onnx.NodeProto = OnnxExporter.export_node(node)
    return exported


def _hide_ranges(nodes: MutableSequence[onnx.NodeProto]) -> None:
    """Let inference know nothing of the values of a Range: it would list them, however many there are."""
    hidden = [node for node in nodes if node.op_type == "Range"]
    for number, node in enumerate(hidden):
        name = f"{node.output[0]}__limit_{number}"
        place = next(i for i, other in enumerate(nodes) if other is node or other == node)
        nodes.insert(place, onnx.helper.make_node("Max", [node.input[1]], [name]))
        nodes[place + 1].input[1] = name


def static_dims(shape: Iterable[Dim] | None) -> tuple[int, ...] | None:
    """Return the shape if all of its sizes are known, else None."""
    if shape is None:
        return None
    dims = list(shape)
    known = tuple(int(d) for d in dims if isinstance(d, int | np.integer) and d >= 0)
    return known if len(known) == len(dims) else None

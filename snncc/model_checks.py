"""What is checked of a model before anything is done with it. Each check raises a `ModelError`: reason and remedy."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import onnx
import onnxruntime as ort
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from snncc.errors import ModelError
from snncc.external_data import ExternalTensor
from snncc.graph import first_line
from snncc.packed import described
from snncc.protos import all_graphs, all_nodes, all_tensors, describe, domain_of, narrow_weights, opset_versions

MAX_NODES = 100_000
"""Most nodes of a network, its local functions unfolded."""
MAX_CALL_DEPTH = 64
"""Deepest nesting of calls among local functions."""

_FUNCTIONS = 8  # the first IR version that has them
_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.ml")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_UNSUPPORTED_TYPES = ("FLOAT8", "FLOAT4", "FLOAT6", "FLOAT2", "INT4", "UINT4", "INT2", "UINT2", "COMPLEX")


def check_structure(model: onnx.ModelProto) -> None:
    """Check that there is a network with tensors at both ends, and that it says what it is written in."""
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError("holds no network (a graph without nodes); export the model again")
    if not model.ir_version:
        raise ModelError("doesn't say its IR version, so it is no valid ONNX model; export it again")
    if not model.opset_import:
        raise ModelError("doesn't say which operator set it uses (no opset_import); export it again")
    if not model.graph.output:
        raise ModelError("its graph has no outputs; export it again, with the outputs that you need")
    initialized = {tensor.name for tensor in model.graph.initializer}
    if all(info.name in initialized for info in model.graph.input):
        raise ModelError("its graph has no inputs, so there is nothing to convert; export it again, with an input")
    for info in (*model.graph.input, *model.graph.output):
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            what = "has no type" if kind is None else f"is no tensor ({kind.removesuffix('_type')})"
            remedy = "export it with tensors at both ends"
            maker = next((node for node in model.graph.node if info.name in node.output), None)
            if maker is not None and maker.op_type == "ZipMap":
                what += f", made by node '{maker.name}' (ZipMap)"
                remedy += ": with skl2onnx, `convert_sklearn(..., options={'zipmap': False})`"
            raise ModelError(f"its input or output '{info.name}' {what}; {remedy}")


def check_names(model: onnx.ModelProto) -> None:
    """Check that every name and every string in an attribute is text; protobuf hands over what isn't as bytes."""
    broken = next((text for text in _texts(model) if not isinstance(text, str)), None)
    if broken is not None:
        raise ModelError(
            f"the name or string {broken!r} in it isn't UTF-8 text, so the file is damaged; export it again"
        )


def _texts(message: Message) -> Iterator[str | bytes]:
    """Yield every text in a message and in those that it holds; bytes are texts in attributes, values elsewhere."""
    if isinstance(message, onnx.TensorProto):  # its values aren't to be copied
        yield message.name
        yield message.doc_string
        for entry in message.external_data:
            yield from _texts(entry)
        return
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes, Message)) else value
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                yield from _texts(each)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield from values
        elif field.type == FieldDescriptor.TYPE_BYTES:
            yield from map(_text, values)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def check_types(model: onnx.ModelProto) -> None:
    """Check that no tensor is of a type that this version can't compute with, nor an input or output of bfloat16."""
    for info in (*model.graph.input, *model.graph.output):
        if info.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16:
            raise ModelError(
                f"input or output '{info.name}' is bfloat16, which can't be fed; export it with float32 at both ends"
            )

    def check(name: str, code: int) -> None:
        values = onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(code) if code in values else f"unknown type {code}"
        if kind.startswith((*_UNSUPPORTED_TYPES, "unknown")):
            raise ModelError(f"tensor '{name}' is {kind.lower()}: not supported in this version; export it in float32")

    weights = narrow_weights(model)
    for graph in all_graphs(model):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.HasField("tensor_type") and info.name not in weights:
                check(info.name, info.type.tensor_type.elem_type)
        for tensor in graph.initializer:
            if tensor.name not in weights:
                check(tensor.name, tensor.data_type)
        for sparse in graph.sparse_initializer:
            check(sparse.values.name, sparse.values.data_type)
    for node, _ in all_nodes(model):
        for attribute in node.attribute:
            for tensor in (attribute.t, attribute.sparse_tensor.values, *attribute.tensors):
                if tensor.data_type:
                    check(tensor.name or "of a Constant", tensor.data_type)
            if node.op_type == "Cast" and attribute.name == "to":
                check(node.output[0], attribute.i)


def check_opsets(model: onnx.ModelProto) -> None:
    """Check that onnx knows the opset, and that ONNX Runtime runs it."""
    opsets = opset_versions(model.opset_import)
    foreign = next((domain for domain, version in opsets.items() if domain and version < 1), None)
    if foreign is not None:
        raise ModelError(f"uses opset {opsets[foreign]} of the domain '{foreign}', which is none; export it again")
    default = opsets.get("")
    if default is None:
        used = next((node for node, _ in all_nodes(model) if not domain_of(node.domain)), None)
        if used is not None:
            raise ModelError(
                f"{describe(used)} is a standard operator, but no standard opset is imported; export again"
            )
        return
    newest = onnx.defs.onnx_opset_version()
    if default < 1 or default > newest:
        raise ModelError(
            f"uses opset {default}, onnx {onnx.__version__} knows 1 to {newest}; upgrade onnx or export older"
        )
    for domain in ("", *(domain for domain in opsets if domain in _RUNTIME_DOMAINS)):
        reason = _refused_by_runtime({"": default, domain: opsets[domain]}, model.ir_version)
        if reason is not None:
            of_domain = f" of the domain '{domain}'" if domain else ""
            raise ModelError(
                f"onnxruntime {ort.__version__} doesn't run opset {opsets[domain]}{of_domain} with IR version "
                f"{model.ir_version} ({reason}); upgrade onnxruntime or export with an older opset"
            )


def _refused_by_runtime(opsets: dict[str, int], ir_version: int) -> str | None:
    """Return why ONNX Runtime won't load models of this kind; None if it does: a tiny one is tried."""
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", info[:1], info[1:])
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    probe = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes aren't public
        return first_line(error)
    return None


def check_expansion(model: onnx.ModelProto) -> None:
    """Check that the model's local functions, which call each other, don't unfold into more than can be compiled."""
    functions = {(domain_of(f.domain), f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], callers: tuple[tuple[str, str], ...]) -> int:
        if key in callers or len(callers) > MAX_CALL_DEPTH:
            raise ModelError(f"function '{key[1]}' calls itself or is called too deeply; export the model without it")
        if key not in sizes:
            body = functions[key].node
            sizes[key] = sum(unfolded(node, (*callers, key)) for node in body)
        return sizes[key]

    def unfolded(node: onnx.NodeProto, callers: tuple[tuple[str, str], ...]) -> int:
        key = (domain_of(node.domain), node.op_type)
        count = size(key, callers) if key in functions else 1
        graphs = [g for a in node.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
        return count + sum(unfolded(inner, callers) for graph in graphs for inner in graph.node)

    total = sum(unfolded(node, ()) for node in model.graph.node)
    if total > MAX_NODES:
        raise ModelError(
            f"it unfolds into {total:,} nodes, more than the {MAX_NODES:,} that are accepted; "
            "export it without nested functions"
        )


def check_operators(model: onnx.ModelProto) -> None:
    """Check that every operator is defined: by the standard, by the runtime or in the model."""
    local = {(domain_of(f.domain), f.name) for f in model.functions}
    for node, opsets in all_nodes(model):
        domain = domain_of(node.domain)
        if (domain, node.op_type) in local:
            continue
        if domain in _RUNTIME_DOMAINS:
            known = _runtime_operators()
            if known and (domain, node.op_type) not in known:
                raise ModelError(
                    f"{describe(node)} is no operator of the domain '{domain}' in onnxruntime {ort.__version__}; "
                    "upgrade onnxruntime or export it with standard operators"
                )
            continue
        if domain:
            raise ModelError(
                f"{describe(node)} is of the domain '{domain}', which neither onnx nor the model defines; "
                "export it with standard operators or with the operator as a model-local function"
            )
        version = opsets.get("", onnx.defs.onnx_opset_version())
        try:
            deprecated = onnx.defs.get_schema(node.op_type, version, "").deprecated
        except onnx.defs.SchemaError:
            raise ModelError(
                f"{describe(node)} is no operator of opset {version}; export it with standard operators or with the "
                "operator as a model-local function"
            ) from None
        if deprecated:
            raise ModelError(f"{describe(node)} is not part of opset {version} any more; export the model again")


@functools.cache
def _runtime_operators() -> frozenset[tuple[str, str]]:
    """Return domain and name of every operator that ONNX Runtime defines; nothing where it can't be asked."""
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema
    except ImportError:  # builds without it leave the answer to the runtime's loading
        return frozenset()
    return frozenset((schema.domain, schema.name) for schema in get_all_operator_schema())


def check_weights(model: onnx.ModelProto) -> None:
    """Check that every layer has weights, in as many groups as it says: shape inference doesn't ask."""
    dims = {t.name: list(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or domain_of(node.domain) or len(node.input) < 2:
            continue
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels = (dims.get(node.input[1]) or [0])[0]
        if group < 1 or channels % group:
            raise ModelError(f"{describe(node)} has {group} groups for {channels} channels; export the network again")
    empty = {t.name for t in model.graph.initializer if 0 in t.dims}
    for node in model.graph.node if empty else ():
        named = next((name for name in node.input[:2] if name in empty), None)
        if named is not None and node.op_type in _LAYERS and not domain_of(node.domain):
            raise ModelError(
                f"{describe(node)} has weights '{named}' without elements, so it computes nothing; "
                "export the network again, with its trained weights"
            )


def check_graph(model: onnx.ModelProto, external: list[ExternalTensor]) -> None:
    """Run onnx's checker, without the external data, which has been checked already and isn't loaded yet.

    Nor does it get large weights, of which it would make copies.

    An input or output without a shape is one of unknown rank, which runtimes accept and only the checker doesn't. Local
    functions are checked whatever the IR version: below 8 the checker passes them by, and runtimes don't.
    """
    light = described(model)
    unchecked = bool(model.functions) and model.ir_version < _FUNCTIONS
    if external or unchecked or any(not _has_shape(info) for info in (*model.graph.input, *model.graph.output)):
        copy = onnx.ModelProto()
        copy.CopyFrom(light)
        light = copy
        for tensor in all_tensors(light):
            _empty(tensor)
        for info in (*light.graph.input, *light.graph.output):
            info.type.tensor_type.shape.SetInParent()
        if unchecked:
            light.ir_version = _FUNCTIONS
    try:
        onnx.checker.check_model(light)
    except MemoryError:
        raise
    except Exception as error:  # the checker raises ValidationError, and RuntimeError or ValueError from C++
        raise ModelError(f"is no valid ONNX model: {first_line(error)}; export it again") from error


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.HasField("shape"))


def _empty(tensor: onnx.TensorProto) -> None:
    """Make an external tensor one without elements, so that the checker has no file to look for."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        del tensor.dims[:]
        tensor.dims.append(0)
        tensor.raw_data = b""

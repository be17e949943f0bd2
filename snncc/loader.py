"""Read a model file and say in one clear line what is wrong with it, before anything is done with it.

A model comes from anywhere, so nothing in it is trusted: external data must lie in the model's folder and be as long
as the model says, no size is believed before it is compared with the file's, and whatever the onnx package raises is
turned into a `ModelError`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from snncc.errors import ModelError
from snncc.external_data import ExternalTensor, check_stored_sizes, external_tensors, load_external
from snncc.graph import DOMAIN, Dim, first_line, known_dim
from snncc.protos import all_graphs, all_nodes, all_tensors, describe, domain_of, opset_versions

MAX_MESSAGE_BYTES = 2**31 - 1
"""Largest message that protobuf can hold: a model file without its external data."""

_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.ml")
_UNSUPPORTED_TYPES = ("BFLOAT16", "FLOAT8", "FLOAT4", "FLOAT6", "FLOAT2", "INT4", "UINT4", "INT2", "UINT2", "COMPLEX")
# First bytes of files that people take for models, and what to do about them.
_OTHER_FORMATS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "it is a Git LFS pointer: run `git lfs pull` to fetch the model itself"),
    (0, b"PK\x03\x04", "it is a zip archive, such as a PyTorch checkpoint: export the network to ONNX first"),
    (0, b"\x89HDF", "it is an HDF5 file, such as a Keras model: export the network to ONNX first"),
    (4, b"TFL3", "it is a TensorFlow Lite model: convert it to ONNX first, for instance with tf2onnx"),
    (4, b"ORTM", "it is in ONNX Runtime's own format: use the ONNX file that it was made of"),
    (0, b"\x1f\x8b", "it is compressed with gzip: decompress it first"),
    (0, b"<", "it is a text file, perhaps a web page that was saved in the model's place: download it again"),
)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: its name.
        dtype: its element type; object for strings.
        shape: its shape as declared, where a dimension that says nothing is None; None if the rank is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed all checks.

    Attributes:
        model: the model, its external data loaded.
        name: the file's name without its suffix.
        sha256: of the file's bytes, followed by those of its external files in the order of their names.
        inputs: the inputs, without those that are initializers (default values).
        outputs: the outputs.
    """

    model: onnx.ModelProto
    name: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def is_artifact(self) -> bool:
        """Whether the model is itself an artifact of snncc: it brings functions of snncc's domain."""
        return any(function.domain == DOMAIN for function in self.model.functions)


def load_model(source: str | os.PathLike[str] | onnx.ModelProto) -> LoadedModel:
    """Read and check a model.

    Args:
        source: path of an ONNX file, or a model in memory (which must hold all of its data).

    Raises:
        ModelError: the file can't be read, is no valid model, refers to unsafe or missing external data, or uses what
            isn't supported. The message is one line: the file, the reason, the remedy.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return _loaded(model, model.graph.name or "model", None, hashlib.sha256(), "model in memory")
    path = Path(source)
    data = _read(path)
    model = _parse(path, data)
    return _loaded(model, path.stem, path, hashlib.sha256(data), f"'{path}'")


def _loaded(model: onnx.ModelProto, name: str, path: Path | None, digest: hashlib._Hash, label: str) -> LoadedModel:
    try:
        _check_structure(model)
        external = external_tensors(model, path.parent if path is not None else None)
        check_stored_sizes(model)
        _check_types(model)
        _check_opsets(model)
        _check_operators(model)
        _check_graph(model, path, external)
        load_external(external, digest)
        if path is None:
            _hash_model(model, digest)
        return LoadedModel(model, name, digest.hexdigest(), _specs(model, "input"), _specs(model, "output"))
    except ModelError as error:
        raise ModelError(f"{label}: {error}") from error.__cause__


# --- the file -----------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ModelError(f"'{path}': is a directory; give the path of the .onnx file in it")
        if not stat.S_ISREG(info.st_mode):
            raise ModelError(f"'{path}': is no regular file; copy the model to one")
        if info.st_size == 0:
            raise ModelError(f"'{path}': is empty; export or download the model again")
        if info.st_size > MAX_MESSAGE_BYTES:
            raise ModelError(f"'{path}': is larger than 2 GiB, which ONNX can't hold; save it with external data")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"'{path}': doesn't exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"'{path}': can't be read ({reason}); check the path and its permissions") from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    for offset, magic, advice in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ModelError(f"'{path}': is no ONNX model; {advice}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError has moved between versions
        raise ModelError(f"'{path}': is no ONNX model or is cut short; export or download it again") from error
    return model


# --- the model ----------------------------------------------------------------------------------------------------


def _check_structure(model: onnx.ModelProto) -> None:
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
            raise ModelError(f"its input or output '{info.name}' {what}; export it with tensors at both ends")


def _check_types(model: onnx.ModelProto) -> None:
    def check(name: str, code: int) -> None:
        values = onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(code) if code in values else f"unknown type {code}"
        if kind.startswith((*_UNSUPPORTED_TYPES, "unknown")):
            raise ModelError(f"tensor '{name}' is {kind.lower()}: not supported in this version; export it in float32")

    for graph in all_graphs(model):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.HasField("tensor_type"):
                check(info.name, info.type.tensor_type.elem_type)
    for tensor in all_tensors(model):
        check(tensor.name or "of a Constant", tensor.data_type)
    for node, _ in all_nodes(model):
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                check(node.output[0], attribute.i)


def _check_opsets(model: onnx.ModelProto) -> None:
    opsets = opset_versions(model.opset_import)
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
    reason = _refused_by_runtime(default, model.ir_version)
    if reason is not None:
        raise ModelError(
            f"onnxruntime {ort.__version__} doesn't run opset {default} with IR version {model.ir_version} ({reason}); "
            "upgrade onnxruntime or export with an older opset"
        )


def _refused_by_runtime(opset: int, ir_version: int) -> str | None:
    """Return why ONNX Runtime won't load models of this kind; None if it does: a tiny one is tried."""
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "probe", info[:1], info[1:])
    probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes aren't public
        return first_line(error)
    return None


def _check_operators(model: onnx.ModelProto) -> None:
    local = {(domain_of(f.domain), f.name) for f in model.functions}
    for node, opsets in all_nodes(model):
        domain = domain_of(node.domain)
        if (domain, node.op_type) in local or domain in _RUNTIME_DOMAINS:
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


def _check_graph(model: onnx.ModelProto, path: Path | None, external: list[ExternalTensor]) -> None:
    """Run onnx's checker, on the model without its external data, which has been checked already."""
    light = model
    if external:
        light = onnx.ModelProto()
        light.CopyFrom(model)  # small: the data isn't loaded yet
        for tensor in all_tensors(light):
            _empty(tensor)
    _guard(lambda: onnx.checker.check_model(light))


def _empty(tensor: onnx.TensorProto) -> None:
    """Make an external tensor one without elements, so that the checker has no file to look for."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        del tensor.dims[:]
        tensor.dims.append(0)
        tensor.raw_data = b""


def _guard(check: Callable[[], object]) -> None:
    try:
        check()
    except Exception as error:  # the checker raises ValidationError, and RuntimeError or ValueError from C++
        raise ModelError(f"is no valid ONNX model: {first_line(error)}; export it again") from error


def _hash_model(model: onnx.ModelProto, digest: hashlib._Hash) -> None:
    try:
        digest.update(model.SerializeToString(deterministic=True))
    except Exception as error:  # more than 2 GiB
        raise ModelError(
            "is too large to be handed over in memory; save it with external data and give its path"
        ) from error


def _specs(model: onnx.ModelProto, side: str) -> tuple[TensorSpec, ...]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    infos = model.graph.input if side == "input" else model.graph.output
    return tuple(_spec(info) for info in infos if side == "output" or info.name not in initialized)


def _spec(info: onnx.ValueInfoProto) -> TensorSpec:
    tensor = info.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(known_dim(dim.dim_param or (dim.dim_value or None)) for dim in tensor.shape.dim)
    return TensorSpec(info.name, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)

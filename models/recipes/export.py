"""Exports a trained network to ONNX, measures it and records it in the zoo."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import nn

ZOO_FOLDER = Path(__file__).resolve().parents[1]
OPSET = 17

Floats = npt.NDArray[np.float32]


def export(
    network: nn.Module,
    file: Path,
    *,
    name: str = "image",
    shape: tuple[int, ...] = (1, 28, 28),
    output: str = "logits",
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a network as one ONNX file with a dynamic batch dimension ``N``.

    The exporter based on TorchScript is used on purpose: node names follow the module tree, and with
    ``TrainingMode.PRESERVE`` (the network is in evaluation mode) it keeps every BatchNormalization, GlobalAveragePool
    and Flatten; the newer one folds or decomposes them.

    Args:
        network: takes float32 ``[N, *shape]``, values 0 to 255.
        file: the ONNX file to write.
        name: of the input.
        shape: of one sample.
        output: name of the output.
        metadata: what the file says about itself.

    Raises:
        RuntimeError: ONNX Runtime's outputs differ from PyTorch's.
    """
    network.eval()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        raw = Path(folder) / "raw.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            raw,
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=[name],
            output_names=[output],
            dynamic_axes={name: {0: "N"}, output: {0: "N"}},
        )
        model = onnx.load(raw)
    _unshare(model.graph)
    _strip(model)
    onnx.helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())
    _compare(network, file, shape)


def _unshare(graph: onnx.GraphProto) -> None:
    """Gives every weight its own initializer.

    The exporter stores equal tensors once and reads them through Identity nodes. That happens where two branches of a
    residual block end in batch normalisation: both biases start at zero and always get the same gradient.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in weights]:
        copy = graph.initializer.add()
        copy.CopyFrom(weights[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)


def _strip(model: onnx.ModelProto) -> None:
    """Removes notes of the exporter, which can hold paths of the machine it ran on."""
    model.doc_string = ""
    model.graph.doc_string = ""
    del model.metadata_props[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def _compare(network: nn.Module, file: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    difference = float(np.abs(logits(file, image) - expected).max())
    # Both compute in float32, in a different order of summation; outputs are of the order of 10.
    if difference > 1e-3:
        raise RuntimeError(f"{file.name}: ONNX Runtime's outputs differ from PyTorch's by {difference:.2e}")


def logits(file: Path, images: npt.NDArray[Any], batch: int = 500) -> Floats:
    """Runs a network of the zoo with ONNX Runtime.

    Args:
        file: the ONNX file.
        images: of any numeric type, ``[N, ...]``: raw pixels, or frames.
        batch: images per run.

    Returns:
        Its output, float32 ``[N, ...]``: logits ``[N, 10]``, or a detector's grid.
    """
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    starts = range(0, len(images), batch)
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: images[i : i + batch].astype(np.float32)})[0] for i in starts]
    return np.concatenate(parts)


def macs(file: Path) -> int:
    """Counts the multiply-accumulate operations of convolutions and fully connected layers for one image."""
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            # A weight [outputs, inputs / groups, height, width] is applied at every position of the output.
            total += math.prod(weights[node.input[1]]) * math.prod(shapes[node.output[0]][2:])
        elif node.op_type == "Gemm":
            total += math.prod(weights[node.input[1]])
    return total


def record(file: Path, facts: dict[str, str | float | int]) -> None:
    """Writes or replaces the record of a network in ``zoo.json``.

    Args:
        file: the ONNX file; its stem is the network's name.
        facts: the fields of `snncc.models.NetworkInfo`, without the name and what is read from the file.
    """
    zoo = ZOO_FOLDER / "zoo.json"
    records = json.loads(zoo.read_text(encoding="utf-8")) if zoo.exists() else {}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    records[file.stem] = facts | {"macs": macs(file), "opset": OPSET, "sha256": digest}
    zoo.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n", encoding="utf-8")

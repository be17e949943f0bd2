"""Where networks and data come from: files, the zoo, memory; and what a network says that its inputs are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from snncc import models
from snncc.config import Config
from snncc.data import Dataset, InputSpec
from snncc.data import load as load_data
from snncc.data.spec import check_shape
from snncc.errors import UsageError
from snncc.graph import infer_shapes, shape_of
from snncc.loader import LoadedModel, load_model
from snncc.ops import is_frames
from snncc.passes.base import Progress
from snncc.sequences import with_frames

Source = str | os.PathLike[str] | onnx.ModelProto
"""A model: the path of an ONNX file, `zoo:NAME`, or a model in memory."""


def in_batches(data: Dataset, size: int, progress: Progress | None = None) -> Any:
    """Yield the samples in batches: of the network's own size where that is fixed, else of `size`."""
    size = data.inputs[0].batch or size
    batches = data.batches(size)  # refuses a size below 1
    count = -(-len(data) // size)
    for number, batch in enumerate(batches, 1):
        yield batch
        if progress is not None:
            progress(number, count)


def prepared(source: Any, loaded: LoadedModel, config: Config) -> Dataset:
    """Return data for the spiking network that a compile of an ANN would make.

    Args:
        source: data as `compile` takes it. A `Dataset` may have been made for other timesteps.
        loaded: the ANN.
        config: options of the compile.

    Raises:
        DataError: the data doesn't fit the network.
        UsageError: no input can present frames.
    """
    specs = with_frames(input_specs(loaded.model), config)
    if not isinstance(source, Dataset):
        return load_data(resolve_data(source), specs)
    if [spec.timesteps for spec in source.inputs] == [spec.timesteps for spec in specs]:
        return source
    for spec in specs:
        check_shape(spec, source.arrays[spec.name].shape, f"{source.source}: array for input '{spec.name}'")
    return replace(source, inputs=tuple(specs))


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """Return what a model declares about its inputs, initializers aside."""
    graph = gs.import_onnx(_signature(model))
    return [InputSpec(t.name, np.dtype(t.dtype), shape_of(t) or ()) for t in graph.inputs]


def _signature(model: onnx.ModelProto) -> onnx.ModelProto:
    defaults = {i.name for i in model.graph.initializer}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(i for i in model.graph.input if i.name not in defaults)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def resolve(source: Source) -> str | os.PathLike[str] | onnx.ModelProto:
    """Return where a model is: `zoo:NAME` becomes the path of the bundled network.

    Raises:
        UsageError: the zoo has no such network.
    """
    if isinstance(source, str) and source.startswith("zoo:"):
        return models.path(source.removeprefix("zoo:"))
    return source


def resolve_data(source: Any) -> Any:
    """Return where data is: names of bundled sets become their paths, those of recordings and scenes their arrays.

    Raises:
        UsageError: the zoo has no such data.
    """
    if isinstance(source, str) and source.startswith("zoo:"):
        name = source.removeprefix("zoo:")
        if name in models.EVENTS:
            return models.event_frames(name)
        return {"image": models.scene_set(name)[0]} if name in models.SCENES else models.data_path(name)
    return source


def read_ann(source: Source | LoadedModel) -> LoadedModel:
    """Read a network that is to be compiled or compared with; one that has been read is only checked.

    Raises:
        ModelError: it can't be read or is invalid.
        UsageError: it is an artifact already, or no model at all.
    """
    loaded = source if isinstance(source, LoadedModel) else load_model(resolve(source))
    if loaded.is_artifact:
        name = _shown(source, loaded)
        raise UsageError(f"'{name}' is already a spiking network: give the ANN that it was compiled from")
    return loaded


def _shown(source: Any, loaded: LoadedModel) -> str:
    return loaded.name if isinstance(source, onnx.ModelProto | LoadedModel) else str(source)


def sized_graph(graph: gs.Graph, data: Dataset) -> gs.Graph:
    """Give the open axes of a graph's inputs the sizes of the data, batch aside; infer all shapes anew, in place."""
    for tensor in graph.inputs:
        shape = data.arrays[tensor.name].shape
        if any(is_frames(node) for node in tensor.outputs):
            shape = (shape[0], *shape[2:])
        tensor.shape = [tensor.shape[0], *shape[1:]] if tensor.shape else tensor.shape
    infer_shapes(graph)
    return graph


def default_output(source: Source) -> Path:
    """Return `<name>.snn.onnx` in the current directory for a model."""
    if isinstance(source, onnx.ModelProto):
        return Path(f"{source.graph.name or 'model'}.snn.onnx")
    return Path(f"{Path(resolve(source)).stem}.snn.onnx")

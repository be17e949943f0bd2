"""What a spiking network's error is without time, and without rounding, by the number of calibration inputs.

Rounding and uneven arrival vanish as T grows; clipping stays: a neuron emits at most ψ spikes of θ at a timestep, and θ
was fitted to the values that calibration saw. So the network is calibrated for a long T, without corrections, and its
artifact run in one pass, with T = 1,

- with θ/1024 and 1024·ψ: only clipping is left. It says whether there are enough calibration inputs;
- with θ/T and T·ψ: each neuron rounds its activation once, to as many levels as it has over time. Spikes over T
  timesteps say no more than that, so this is what a network's own sensitivity to rounding leaves to them.

That takes seconds where a compile for T = 256 takes minutes. The inputs are made up, and evaluated are others than
those that calibrated.

    python benchmarks/clipping.py efficientnet_b0.onnx --calibration 8 16 32
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from conformance.errors import relative_errors
from conformance.inputs import Feeds, fixed_batch, generate, whole
from environment import signature
from onnx import numpy_helper

import snncc
from snncc.artifact import used_functions
from snncc.graph import export_model
from snncc.passes.fold_thresholds import unfold_thresholds
from snncc.runtime.unlower import lowered_graph

FINER = 1024


def without_time(artifact: onnx.ModelProto, finer: int) -> onnx.ModelProto:
    """Return an artifact that takes one timestep, with that many times more and smaller spikes."""
    graph = lowered_graph(artifact)
    unfold_thresholds(graph)
    model = export_model(graph)
    model.functions.extend(used_functions(graph))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    thresholds = set()
    for node in model.graph.node:
        if node.domain != "snncc":
            continue
        for attribute in node.attribute:
            if attribute.name == "timesteps":
                attribute.i = 1
            if attribute.name == "max_burst":
                attribute.i *= finer
                thresholds.add(node.input[1])
    for name in thresholds:
        smaller = numpy_helper.to_array(tensors[name]) / np.float32(finer)
        tensors[name].CopyFrom(numpy_helper.from_array(smaller, name))
    return model


def run(model: onnx.ModelProto, feeds: Feeds, batch: int) -> Feeds:
    """Run a model batch by batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = len(next(iter(feeds.values())))
    parts: list[list[Any]] = [
        session.run(None, {name: values[i : i + batch] for name, values in feeds.items()})
        for i in range(0, count, batch)
    ]
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def errors(path: Path, calibration: int, samples: int, timesteps: int) -> tuple[float, float]:
    """Return the worst output's relative error (L2), clipped and rounded, on inputs that calibration hasn't seen.

    Raises:
        SystemExit: the artifact holds its timesteps in a Scan, where they can't be taken away.
    """
    model = onnx.load(path)
    batch = fixed_batch(model) or 1
    calibrating, evaluating = (
        generate(model, whole(count, batch), seed=seed, open_size=64)
        for count, seed in ((calibration, 1), (samples, 2))
    )
    config = snncc.Config(timesteps=timesteps, bias_correction=False)
    network = snncc.compile(path, calibration=calibrating, config=config)
    if network.record.network.get("lowering") != "batch":
        raise SystemExit(f"'{path}' isn't batch-polymorphic: its timesteps are in a Scan")
    expected = run(model, evaluating, batch)
    clipped, rounded = (
        max(relative_errors(run(without_time(network.model, finer), evaluating, batch), expected).values())
        for finer in (FINER, timesteps)
    )
    return clipped, rounded


def main() -> None:
    """Print a line for each network and number of calibration inputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path, nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--calibration", type=int, nargs="+", default=[8, 16, 32], help="8 16 32")
    parser.add_argument("--samples", type=int, default=16, help="inputs to compare on (16)")
    parser.add_argument("--timesteps", type=int, default=256, help="T that the thresholds are for (256)")
    options = parser.parse_args()
    for path in options.networks:
        for count in options.calibration:
            clipped, rounded = errors(path, count, options.samples, options.timesteps)
            print(
                f"{path.stem}: {100 * clipped:.2f} % clipped, {100 * rounded:.2f} % rounded to as many levels as T = "
                f"{options.timesteps} has, after calibration on {count}",
                flush=True,
            )
    print(signature())


if __name__ == "__main__":
    main()

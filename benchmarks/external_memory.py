"""Peak memory of loading and analysing a network whose external weights are larger than a protobuf message can be."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import onnx
from environment import peak_memory, signature
from onnx import TensorProto, helper

from snncc.compiling import analyse_network
from snncc.config import Config
from snncc.context import Context
from snncc.loader import load_model
from snncc.pipeline import Hook

GIB = 2**30


def write_network(folder: Path, gib: float, layers: int = 4) -> Path:
    """Write a perceptron with weights of zeros, as a sparse file, beside its model; return the model's path."""
    width = round((gib * GIB / 4 / layers) ** 0.5)
    size = width * width * 4
    nodes, weights = [], []
    for layer in range(layers):
        entries = {"location": "weights.bin", "offset": str(layer * size), "length": str(size)}
        tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[width, width])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        weights.append(tensor)
        nodes.append(helper.make_node("MatMul", [f"a{layer}", f"w{layer}"], [f"c{layer}"]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"a{layer + 1}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in ("a0", f"a{layers}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with (folder / "weights.bin").open("wb") as stream:
        stream.truncate(layers * size)
    onnx.save(model, folder / "large.onnx")
    return folder / "large.onnx"


def report(name: str, gib: float, start: float) -> None:
    """Print the process's peak memory so far, alone and against the weights' size."""
    peak = peak_memory() / GIB
    print(f"{name:10} {time.perf_counter() - start:6.1f} s   peak {peak:5.2f} GiB   {peak / gib:4.2f} × the weights")


def measure(path: str, gib: float) -> None:
    """Load and analyse; runs in a process of its own, so that nothing else is in the peak."""
    start = time.perf_counter()
    report("imports", gib, start)
    loaded = load_model(path)
    report("load", gib, start)
    analyse_network(loaded, Context(Config()), Hook())
    report("analyse", gib, start)


def main() -> None:
    """Write the network into a temporary folder, measure, and clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.2, help="size of the weights (default: 2.2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_network(Path(folder), options.gib)
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(str(path), options.gib))
        process.start()
        process.join()
    print(signature())
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()

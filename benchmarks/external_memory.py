"""A network whose weights are larger than a protobuf message can be, from its file to the stock runtime.

For each step, in a process of its own, its time and the peak of its memory against the size of the weights; in the end
what the artifact says in stock ONNX Runtime against what `snncc run` says.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from environment import peak_memory, signature
from onnx import TensorProto, helper

import snncc
from snncc.compiling import analyse_network
from snncc.context import Context
from snncc.loader import load_model
from snncc.pipeline import Hook

GIB = 2**30
SAMPLES = 64


def write_network(folder: Path, gib: float, layers: int = 4) -> Path:
    """Write a perceptron with random weights beside its model; return the model's path."""
    width = round((gib * GIB / 4 / layers) ** 0.5)
    size = width * width * 4
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    with (folder / "weights.bin").open("wb") as stream:
        for layer in range(layers):
            entries = {"location": "weights.bin", "offset": str(layer * size), "length": str(size)}
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"a{layer}", f"w{layer}"], [f"c{layer}"]))
            nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"a{layer + 1}"]))
            for _ in range(width):
                row = rng.standard_normal(width, np.float32) * np.float32(2 / width) ** 0.5
                stream.write(row.astype(np.float32).data)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in ("a0", f"a{layers}")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "large.onnx")
    np.save(folder / "inputs.npy", rng.standard_normal((SAMPLES, width), np.float32))
    return folder / "large.onnx"


def analyse(folder: Path) -> None:
    """What `snncc inspect` does."""
    analyse_network(load_model(folder / "large.onnx"), Context(snncc.Config()), Hook())


def compile_it(folder: Path) -> None:
    """Compile, and write the artifact."""
    network = snncc.compile(folder / "large.onnx", calibration=np.load(folder / "inputs.npy"))
    network.save(folder / "large.snn.onnx")


def run_fused(folder: Path) -> None:
    """What `snncc run` does."""
    found = snncc.load(folder / "large.snn.onnx").run(np.load(folder / "inputs.npy"))
    np.save(folder / "fused.npy", next(iter(found.values())))


def run_artifact(folder: Path) -> None:
    """Run the artifact in ONNX Runtime, as snncc does it: the weights are in memory already."""
    snncc.load(folder / "large.snn.onnx").run(np.load(folder / "inputs.npy"), backend="ort")


def run_stock(folder: Path) -> None:
    """Run the artifact, and the ANN, in ONNX Runtime alone."""
    for name in ("large.snn", "large"):
        session = ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        np.save(folder / f"{name}.npy", session.run(None, {"a0": np.load(folder / "inputs.npy")})[0])


def measured(step: Callable[[Path], None], folder: Path, gib: float) -> None:
    """Do a step and print time and peak."""
    start = time.perf_counter()
    step(folder)
    peak = peak_memory() / GIB
    seconds = time.perf_counter() - start
    print(f"{step.__name__:12} {seconds:6.1f} s   peak {peak:5.2f} GiB   {peak / gib:4.2f} × the weights", flush=True)


def main() -> None:
    """Write the network into a temporary folder, measure, and clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.2, help="size of the weights (default: 2.2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_network(folder, options.gib)
        for step in (analyse, compile_it, run_fused, run_artifact, run_stock):
            arguments = (step, folder, options.gib)
            process = multiprocessing.get_context("spawn").Process(target=measured, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{step.__name__} failed")
        for file in sorted(folder.glob("large*.onnx*")):
            print(f"{file.name:20} {file.stat().st_size / GIB:8.4f} GiB")
        fused, stock, ann = (np.load(folder / f"{name}.npy") for name in ("fused", "large.snn", "large"))
        same = (distance(stock, fused) < 1e-5).sum()
        print(f"the stock runtime says what `snncc run` says for {same} of {len(ann)} samples (others: a spike's tie);")
        print(f"relative error against the ANN: {np.median(distance(stock, ann)):.1%} (median)")
    print(signature())


def distance(found: Any, expected: Any) -> Any:
    """Return the relative error of each sample, L2."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


if __name__ == "__main__":
    main()

"""Latency of `snncc stream`: of recordings through a compiled network, or of made-up ones through a made-up CNN.

python benchmarks/events/streaming.py digits.snn.onnx digit.bin --frame 100
python benchmarks/events/streaming.py --side 34 128
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

import snncc
from snncc.events import Events, read
from snncc.streaming import stream

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import signature

CNN = """<ir_version: 8, opset_import: ["" : 17]>
cnn (float[N,2,SIDE,SIDE] x) => (float[N,10] y)
{
    c1 = Conv <strides = [2,2], pads = [1,1,1,1]> (x, w1)
    r1 = Relu (c1)
    c2 = Conv <strides = [2,2], pads = [1,1,1,1]> (r1, w2)
    r2 = Relu (c2)
    c3 = Conv <pads = [1,1,1,1]> (r2, w3)
    r3 = Relu (c3)
    p = GlobalAveragePool (r3)
    f = Flatten (p)
    y = MatMul (f, w4)
}"""


def made_network(side: int) -> snncc.SpikingNetwork:
    """Return a CNN with three convolutions and random weights, for a sensor of side x side pixels."""
    rng = np.random.default_rng(0)
    text = CNN.replace("SIDE", str(side))
    shapes = {"w1": (16, 2, 3, 3), "w2": (32, 16, 3, 3), "w3": (32, 32, 3, 3), "w4": (32, 10)}
    head, body = text.split("(float[N,2", 1)
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    model = onnx.parser.parse_model(f"{head}({declared}, float[N,2{body}")
    for name, shape in shapes.items():
        fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        weight = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
        model.graph.input.remove(next(i for i in model.graph.input if i.name == name))
    frames = rng.poisson(0.5, (16, 4, 2, side, side)).astype(np.float32)
    config = snncc.Config(timesteps=8, max_burst=8, input_coding="frames", reset_after=8)
    return snncc.compile(model, calibration={"x": frames}, config=config)


def made_recording(side: int, rate: float, seconds: float = 1.0) -> Events:
    """Return noise of so many events per second."""
    rng, count = np.random.default_rng(1), round(rate * seconds)
    t = np.sort(rng.integers(0, round(seconds * 1e6), count))
    x, y = (rng.integers(0, side, count).astype(np.uint16) for _ in range(2))
    return Events(x, y, t, rng.random(count) < 0.5, side, side, "made up")


def row(name: str, network: snncc.SpikingNetwork, source: Iterable[Events], options: argparse.Namespace) -> str:
    """Return a row of the table."""
    frame = None if options.frame is None else round(1000 * options.frame)
    steps = list(stream(network, source, round(1000 * options.window), frame=frame))
    latencies = [1e3 * step.latency for step in steps]
    last = steps[-1].label
    since = next(s.seconds for i, s in enumerate(steps) if all(later.label == last for later in steps[i:]))
    times = options.window / statistics.mean(latencies)
    cells = [name, str(len(steps)), f"{last}", f"{since:.3f} s", f"{statistics.median(latencies):.2f} ms"]
    return "| " + " | ".join([*cells, f"{max(latencies):.2f} ms", f"{times:.1f}"]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", type=Path)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--side", type=int, nargs="+", help="made-up sensors")
    parser.add_argument("--rate", type=float, default=1e6, help="events per second of made-up recordings")
    parser.add_argument("--window", type=float, default=10.0, help="ms of a window")
    parser.add_argument("--frame", type=float, help="ms that a frame shows")
    options = parser.parse_args()
    if options.side is None and not options.recordings:
        parser.error("give a network and recordings, or --side")
    print("| recording | windows | class | since | latency (median) | worst | times real time |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for side in options.side or ():
        network = made_network(side)
        print(row(f"{side}x{side}, {options.rate:,.0f}/s", network, [made_recording(side, options.rate)], options))
    if options.recordings:
        network = snncc.load(options.network)
        for path in options.recordings:
            print(row(path.name, network, [read(path)], options))
    print(f"\n{signature()}")


if __name__ == "__main__":
    main()

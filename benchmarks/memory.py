"""Peak memory of running a spiking network against batch size and timesteps, each run in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment, peak_memory, signature
from resnet18 import export

import snncc
from snncc.network import BACKENDS
from snncc.runtime.threads import available_cores
from snncc.sources import input_specs, read_ann

_MIB = 2**20


def measure(artifact: Path, batch: int, backend: str, threads: int) -> dict[str, float]:
    """Run a batch in a process of its own; return its peaks in MiB, before and after, and the seconds it took."""
    command = [sys.executable, __file__, "--run", str(artifact), "--batch", str(batch), "--backend", backend]
    done = subprocess.run([*command, "--threads", str(threads)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(artifact: Path, batch: int, backend: str, threads: int) -> dict[str, float]:
    """Run a batch of random inputs in this process."""
    network = snncc.load(artifact)
    rng = np.random.default_rng(0)
    inputs = {s.name: _drawn(rng, (batch, *(s.shape or ())[1:])) for s in network.inputs}
    before, start = peak_memory() / _MIB, time.perf_counter()
    network.run(inputs, backend=backend, batch_size=batch, threads=threads)
    return {"before": before, "peak": peak_memory() / _MIB, "seconds": time.perf_counter() - start}


def _drawn(rng: np.random.Generator, shape: tuple[Any, ...]) -> Any:
    if not all(isinstance(size, int) for size in shape):
        raise SystemExit(f"the network's input is {list(shape)}: only the number of samples may be open")
    return rng.standard_normal(shape, np.float32)


def compile_for(model: Path, timesteps: int, folder: Path) -> Path:
    """Compile a network on a few random inputs; return where the artifact is."""
    specs = input_specs(read_ann(str(model)).model)
    rng = np.random.default_rng(1)
    calibration = {s.name: _drawn(rng, (s.batch or 8, *(s.shape or ())[1:])) for s in specs}
    path = folder / f"{model.stem}.{timesteps}.snn.onnx"
    snncc.compile(str(model), calibration=calibration, config=snncc.Config(timesteps=timesteps)).save(path)
    return path


def main() -> None:
    """Print a row for each batch size and T."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="an ONNX file (default: a ResNet-18 for 32x32 pixels)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 256], help="default: 1 16 64 256")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[8, 32], help="values of T (default: 8 32)")
    parser.add_argument("--backend", choices=BACKENDS, default="fused", help="default: fused")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: one per core")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        print(json.dumps(run(options.run, options.batch[0], options.backend, options.threads)))
        return
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        model = options.model or Path(name) / "resnet18.onnx"
        if options.model is None:
            export(model)
        print("| T | batch | before the run | peak | against the first row | seconds |\n|--:|--:|--:|--:|--:|--:|")
        for timesteps in options.timesteps:
            artifact = compile_for(model, timesteps, Path(name))
            for batch in options.batch:
                row = measure(artifact, batch, options.backend, options.threads)
                rows.append({"timesteps": timesteps, "batch": batch, **row})
                before, peak, ratio = row["before"], row["peak"], row["peak"] / rows[0]["peak"]
                cells = (timesteps, batch, f"{before:,.0f} MiB", f"{peak:,.0f} MiB", f"{ratio:.2f}")
                print(f"| {' | '.join(map(str, cells))} | {row['seconds']:.1f} |", flush=True)
    print(f"\n{model.stem}, backend {options.backend}, {options.threads} threads. {signature()}")
    if options.json:
        told = {"model": model.stem, "backend": options.backend, "rows": rows, "environment": environment()}
        Path(options.json).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

"""Run a model with nothing but ONNX Runtime and NumPy: python stock.py model.onnx feeds.npz outputs.npz CHUNK.

The arrays of `feeds.npz` are called as the model's inputs; their axis 0 is cut into chunks of CHUNK (0: not at all).
`outputs.npz` gets "0", "1", ... in the order of the model's outputs, the chunks joined along axis 0. An output that is
a sequence of maps (a classifier's ZipMap) becomes an array of its values. With the model alone, it is only loaded.
"""

import os
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


def as_array(value: Any) -> NDArray[Any]:
    """Return an output as an array."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return np.array([[row[key] for key in sorted(row)] for row in value])
    return np.asarray(value)


def main() -> None:
    """Run the model on all chunks, keep what it gives."""
    model, *rest = sys.argv[1:]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    # Idle threads that spin would take the cores from whatever else is measured.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if not rest:
        return
    feeds_file, outputs_file, chunk = rest
    with np.load(feeds_file) as archive:
        feeds = {i.name: archive[i.name] for i in session.get_inputs()}
    count = len(next(iter(feeds.values()))) if int(chunk) else 1
    runs = []
    for start in range(0, count, int(chunk) or 1):
        part = {k: v[start : start + int(chunk)] for k, v in feeds.items()} if int(chunk) else feeds
        runs.append([as_array(value) for value in session.run(None, part)])
    joined = [np.concatenate([np.atleast_1d(run[i]) for run in runs]) for i in range(len(runs[0]))]
    named: dict[str, Any] = {str(i): value for i, value in enumerate(joined)}
    np.savez(outputs_file, **named)


if __name__ == "__main__":
    main()

"""The process in which `fuzz.py` compiles: reads numbers of cases, answers with `result<TAB>text`."""

from __future__ import annotations

import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from fuzz_mutations import case
from numpy.typing import NDArray

import snncc
from snncc.errors import PassError, SnnccError
from snncc.loader import load_model
from snncc.protos import all_nodes

ADDRESS_SPACE = 8 * 2**30  # a last resort: the runtime reserves much more than it uses
LARGEST_INPUT = 1 << 16
# Near a value for which the network is defined there may be one for which it isn't, and no bound keeps them apart.
# The same holds near the largest number: what is within this factor of it, or beyond it for inputs that are larger by
# half, may go beyond it for an approximation.
_NEAR_OVERFLOW = 100.0
_LARGER = 1.5
_WITH_GAPS = frozenset({"Div", "LpNormalization", "Mod", "Pow", "Reciprocal", "ReduceLogSum", "Tan"})

Feeds = dict[str, NDArray[Any]]
Compiled = tuple[onnx.ModelProto, onnx.ModelProto, Feeds | None]
"""The original, the spiking network, and inputs unless they would be large."""


def main() -> None:
    """Answer until the input ends."""
    limit = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        number = int(line)
        say(*attempt(case(number)[1], number, limit))
        if peak() > limit or reserved() > ADDRESS_SPACE / 2:
            return  # so that the next case starts from nothing


def say(kind: str, text: str) -> None:
    """Print a line at once."""
    shown = "".join(c if c.isprintable() else " " for c in text)  # names may hold what ends a line
    print(f"{kind}\t{shown}", flush=True)


def peak() -> float:
    """Return the most memory that the process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def reserved() -> int:
    """Return the bytes of addresses that the process has: the runtime gives none of them back."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def attempt(data: bytes, number: int, limit: float) -> tuple[str, str]:
    """Compile a model and run the result; return what came of it. The limit holds for the compile alone."""
    say("stage", "compile")
    kind, text, compiled = compiled_of(data, number)
    if peak() > limit:
        return "memory", f"{peak():.1f} GiB"
    return (kind, text) if compiled is None else judged(*compiled)


def compiled_of(data: bytes, number: int) -> tuple[str, str, Compiled | None]:
    """Compile a model; return what came of it, and if it is a network, that with the original and inputs."""
    try:
        model = parsed(data)
        loaded = load_model(model)
        feeds = inputs_of(loaded.inputs, number)
        data_given = feeds if number % 2 and feeds is not None else None
        config = snncc.Config(timesteps=4, threshold_ratio=1.5 if number % 4 == 1 else 1.0)
        network = snncc.compile(loaded, calibration=data_given, config=config)
    except PassError as error:
        return "exception", str(error), None
    except SnnccError as error:
        return "refused", str(error), None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "exception", f"{type(error).__name__}: {error} at {place.filename}:{place.lineno}", None
    return "works", "", (loaded.model, network.model, feeds)


def judged(model: onnx.ModelProto, network: onnx.ModelProto, feeds: Feeds | None) -> tuple[str, str]:
    """Run the network and compare it with the original."""
    say("stage", "spiking network")
    try:
        spiking = session(network)
    except Exception as error:
        return "wrong", f"ONNX Runtime doesn't load it: {error}"
    if feeds is None:
        return "works", "too large to be run"
    say("stage", "original")
    try:
        original = session(model)
        wanted = original.run(None, feeds)
    except Exception as error:
        return "original", str(error)
    say("stage", "run")
    try:
        return compared(model, feeds, original, wanted, spiking, spiking.run(None, feeds))
    except Exception as error:
        return "wrong", f"it doesn't run, the original does: {error}"


def parsed(data: bytes) -> onnx.ModelProto:
    """Return the model in a file's bytes, as the loader would read it."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:
        raise SnnccError("is no ONNX model") from error
    return model


def inputs_of(specs: Any, number: int) -> Feeds | None:
    """Return random inputs of a network, None if they would be large or of a type that can't be made up."""
    rng = np.random.default_rng(number)
    feeds: Feeds = {}
    for spec in specs:
        shape = [d if isinstance(d, int) else 2 for d in spec.shape or ()]
        if np.prod(shape, dtype=object) > LARGEST_INPUT or spec.dtype.kind not in "fiub":
            return None
        feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return feeds


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a session on one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compared(
    model: onnx.ModelProto,
    feeds: Feeds,
    original: ort.InferenceSession,
    wanted: list[Any],
    spiking: ort.InferenceSession,
    got: list[Any],
) -> tuple[str, str]:
    """Compare signatures, types, shapes and finiteness."""
    before, after = ([(v.name, v.type) for v in s.get_outputs()] for s in (original, spiking))
    if before != after:
        return "wrong", f"outputs {after} instead of {before}"
    for (name, _), want, have in zip(before, wanted, got, strict=True):
        want, have = np.asarray(want), np.asarray(have)
        if want.shape != have.shape or want.dtype != have.dtype:
            return "wrong", f"output '{name}' is {have.dtype} {have.shape} instead of {want.dtype} {want.shape}"
        if want.dtype.kind == "f" and not np.isfinite(have[np.isfinite(want)]).all():
            if any(node.op_type in _WITH_GAPS for node, _ in all_nodes(model)):
                return "gap", f"output '{name}': an operator isn't defined for the approximation"
            if overflows_nearby(model, feeds):
                return "gap", f"output '{name}': the original computes with numbers near the largest there are"
            return "wrong", f"output '{name}' isn't finite where the original's is"
    return "works", ""


def overflows_nearby(model: onnx.ModelProto, feeds: Feeds) -> bool:
    """Whether a network computes with numbers that are near the largest of float32, or would for larger inputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    made = {name for node in probe.graph.node for name in node.output if name} - {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(made))
    larger = {name: v * v.dtype.type(_LARGER) if v.dtype.kind == "f" else v for name, v in feeds.items()}
    ran = session(probe)
    limits = [(feeds, np.finfo(np.float32).max / _NEAR_OVERFLOW), (larger, np.inf)]
    found = [(np.asarray(value), limit) for given, limit in limits for value in ran.run(None, given)]
    return any(value.dtype.kind == "f" and not (np.abs(value) < limit).all() for value, limit in found)


if __name__ == "__main__":
    main()

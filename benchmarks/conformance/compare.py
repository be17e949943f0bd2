"""Compile a network for each T and put what it gives beside what the ANN gives."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from conformance import stock
from conformance.errors import differing, relative_errors, signature_changes, variations
from conformance.inputs import Feeds, candidates, fixed_batch, generate, split, whole
from conformance.row import LIMIT
from conformance.survey import Weight

CHUNK = 2
"""Samples of one run where the batch is open: more than one, so that a network that mixes them is found out."""

_NO_MEMORY = ("Failed to allocate memory", "MemoryError", "bad_alloc", "bad allocation")

Note = Callable[..., None]
"""Keeps findings, given as keywords."""


def is_shortage(error: BaseException | str | None) -> bool:
    """Whether an error, or what caused it, says that memory ran out."""
    if isinstance(error, BaseException):
        return isinstance(error, MemoryError) or is_shortage(str(error)) or is_shortage(error.__cause__)
    return error is not None and any(words in error for words in _NO_MEMORY)


class StockError(Exception):
    """ONNX Runtime doesn't load or run a model."""


class NoReferenceError(Exception):
    """The ANN itself doesn't run, so there is nothing to compare with."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        path: the model's file.
        timesteps: the T to compile for, ascending.
        samples: inputs to evaluate, at most.
        calibration: inputs to calibrate with, at most.
        memory: gibibytes of data that a process may use.
        data: an .npz archive with the inputs; None to make them up.
        config: further options of the compile.
    """

    path: str
    timesteps: list[int]
    samples: int
    calibration: int
    memory: float
    data: str | None = None
    config: Mapping[str, Any] | None = None


def execute(model: str | Path, feeds: Feeds, names: list[str], folder: Path, batch: int | None) -> Feeds:
    """Run a model in a process that has nothing but ONNX Runtime and NumPy.

    Args:
        model: the file.
        feeds: by input name, the samples.
        names: the outputs.
        folder: for temporary files.
        batch: samples of one run, where the model fixes them.

    Raises:
        StockError: it doesn't load or breaks.
        MemoryError: it asks for more than the process may use.
    """
    source, target = folder / "feeds.npz", folder / "outputs.npz"
    np.savez(source, **feeds)  # type: ignore[arg-type]
    lengths = {array.shape[0] if array.ndim else None for array in feeds.values()}
    # Where the inputs have no sample axis in common, they are fed as they are.
    chunk = (batch or CHUNK) if len(lengths) == 1 and None not in lengths else 0
    command = [sys.executable, "-I", stock.__file__, str(model), str(source), str(target), str(chunk)]
    _check(subprocess.run(command, capture_output=True, text=True, errors="replace", check=False))
    with np.load(target) as archive:
        return {name: archive[str(i)] for i, name in enumerate(names)}


def load(model: Path) -> None:
    """Let stock ONNX Runtime load a model without running it.

    Raises:
        StockError: it doesn't.
        MemoryError: it asks for more than the process may use.
    """
    command = [sys.executable, "-I", stock.__file__, str(model)]
    _check(subprocess.run(command, capture_output=True, text=True, errors="replace", check=False))


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        message = last_message(done.stderr)
        if is_shortage(message):
            raise MemoryError(message)
        raise StockError(f"exit code {done.returncode}: {message}")


def last_message(stderr: str) -> str:
    """Return what a process said at its end: the exception, its lines joined, without the traceback and its type."""
    lines = stderr.strip().splitlines()
    start = max((i for i, line in enumerate(lines) if line.startswith("  ")), default=-1) + 1
    message = " ".join(line.strip() for line in lines[start:]) or "it says nothing"
    return message.removeprefix("onnxruntime.capi.onnxruntime_pybind11_state.")[:600]


class Comparison:
    """The ANN, its inputs and outputs, and the compiles that are held against them."""

    def __init__(self, request: Request, model: onnx.ModelProto, folder: Path, note: Note) -> None:
        self.request, self.model, self.folder, self.note = request, model, folder, note
        self.batch = fixed_batch(model)
        self.names = [output.name for output in model.graph.output]

    def open_size(self) -> int:
        """Return a size for the open axes of the inputs with which the ANN runs.

        Raises:
            NoReferenceError: there is none.
        """
        failures = []
        for size in candidates(self.model):
            try:
                feeds = generate(self.model, whole(1, self.batch), seed=0, open_size=size)
                self.execute(self.request.path, feeds)
                return size
            except (ValueError, StockError) as error:
                failures.append(str(error))
            if self.request.data is not None:
                return size
        raise NoReferenceError(f"the ANN doesn't run on made-up inputs: {failures[0]}")

    def execute(self, model: str | Path, feeds: Feeds) -> Feeds:
        """Run the network or an artifact of it."""
        return execute(model, feeds, self.names, self.folder, self.batch)

    def run(self, weight: Weight, open_size: int) -> None:
        """Compile for each T, compare, keep the findings."""
        most = max(self.request.timesteps)
        samples = whole(weight.evaluation(self.request.samples, most), self.batch)
        calibration = whole(weight.calibration(self.request.calibration, most), self.batch)
        samples = min(samples, calibration)
        calibrating, evaluating = self._inputs(calibration, samples, open_size)
        seen = {name: array[:samples] for name, array in calibrating.items()}
        try:
            expected, expected_seen = (self.execute(self.request.path, feeds) for feeds in (evaluating, seen))
        except StockError as error:
            raise NoReferenceError(f"the ANN doesn't run: {error}") from error
        both = {name: np.concatenate([value, expected_seen[name]]) for name, value in expected.items()}
        self.note(samples=samples, calibration=calibration, variation=variations(both, 2 * samples))
        for name, value in expected.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise NoReferenceError(f"output '{name}' of the ANN holds NaN or Inf")
        for timesteps in self.request.timesteps:
            start = time.perf_counter()
            step = self._step(timesteps, calibrating, (evaluating, expected), (seen, expected_seen))
            self.note(step={"timesteps": timesteps, **step, "seconds": time.perf_counter() - start})

    def _inputs(self, calibration: int, samples: int, open_size: int) -> tuple[Feeds, Feeds]:
        if self.request.data is None:
            return (
                generate(self.model, calibration, seed=1, open_size=open_size),
                generate(self.model, samples, seed=2, open_size=open_size),
            )
        with np.load(self.request.data) as archive:
            return split({name: archive[name] for name in archive.files}, calibration, samples)

    def _step(
        self, timesteps: int, calibrating: Feeds, unseen: tuple[Feeds, Feeds], seen: tuple[Feeds, Feeds]
    ) -> dict[str, Any]:
        """Compile for one T; return the fields of a `Step`."""
        import snncc

        self.note(stage=f"compile T={timesteps}")
        options = {"timesteps": timesteps, "batch_size": max(1, 64 // timesteps), **(self.request.config or {})}
        network = snncc.compile(self.request.path, calibration=calibrating, config=snncc.Config(**options))
        account = network.record.network
        self.note(spiking_share=account.get("spiking_share"), lowering=account.get("lowering"))
        artifact = self.folder / "artifact.onnx"
        network.save(artifact)
        changes = signature_changes(self.model, network.model)
        del network  # its memory is wanted by the process that runs it
        self.note(stage=f"run T={timesteps}")
        try:
            execute: Callable[[str | Path, Feeds], Feeds] = self.execute
            backend = "artifact"
            try:
                result = execute(artifact, unseen[0])
            except MemoryError:  # all timesteps at once: layer by layer takes less
                load(artifact)
                execute, backend = self._layer_by_layer, "fused"
                result = execute(artifact, unseen[0])
            errors = relative_errors(result, unseen[1])
            good = timesteps < max(self.request.timesteps) or all(error < LIMIT for error in errors.values())
            on_seen = {} if good else relative_errors(execute(artifact, seen[0]), seen[1])
        except StockError as error:
            self.note(reasons=[f"T={timesteps}: {error}"])
            return {"loads": False, "changes": changes}
        return {
            "loads": True,
            "backend": backend,
            "changes": changes,
            "errors": errors,
            "differing": differing(result, unseen[1]),
            "seen": on_seen,
        }

    def _layer_by_layer(self, artifact: str | Path, feeds: Feeds) -> Feeds:
        """Run an artifact in snncc's own executor."""
        import snncc

        return snncc.load(artifact).run(feeds, batch_size=self.batch or 1)

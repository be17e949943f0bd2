"""One network's result: what was recorded about it, what that says, and how it is shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LIMIT = 0.02
"""Relative error at the longest T from which on an output counts as wrong."""
ROUNDING = 1e-5
"""Relative error that float32 rounding alone explains: below it, an error need not fall any further."""

COMPILED, REFUSED, NO_REFERENCE = "compiled", "refused", "no reference"
FAILED, CRASHED, TIMEOUT, MEMORY = "failed", "crashed", "timeout", "out of memory"
NOT_MEASURED = "not measured"
CONVERGES, UNSEEN = "converges", "only if seen"


@dataclass(frozen=True)
class Step:
    """What one compile gave.

    Attributes:
        timesteps: T.
        errors: by floating-point output, ‖SNN - ANN‖ / ‖ANN‖ (L2) on inputs that calibration hasn't seen.
        seen: the same on calibration inputs, at the longest T, if an error isn't below `LIMIT` there: what is much
            smaller on them is a matter of calibration, not of the method.
        differing: by other output (class labels, indices), the share of entries that differ.
        loads: whether stock ONNX Runtime loads the artifact and, with the backend "artifact", runs it.
        backend: what ran: the "artifact" in stock ONNX Runtime, or snncc's "fused" executor, which needs less memory.
        changes: what differs between the signatures of network and artifact.
        seconds: time of compile and evaluation.
    """

    timesteps: int
    errors: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    differing: dict[str, float] = field(default_factory=dict)
    loads: bool | None = None
    backend: str = "artifact"
    changes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def worst(self) -> float | None:
        """The largest error of an output; None if there is none."""
        return _worst(self.errors)

    @property
    def worst_seen(self) -> float | None:
        """The same on calibration inputs."""
        return _worst(self.seen)


@dataclass
class Row:
    """What is known about one network; fields stay None where it didn't come so far.

    Attributes:
        name: what it is called in the table.
        exporter: name and version of the program that made the file.
        opset: version of the standard operators.
        nodes: number of nodes in the file.
        neuron_layers: layers of neurons.
        spiking_share: share of the multiply-accumulates that spikes drive.
        lowering: "batch" or "scan".
        samples: inputs that were evaluated.
        calibration: inputs that calibrated.
        variation: by output, ‖ANN - its mean over the inputs‖ / ‖ANN‖: near 0, the output says nothing.
        status: how it ended: see the constants of this module.
        stage: what was going on at the end.
        reasons: why it wasn't compiled or couldn't be compared.
        details: more of it, for the report in JSON.
        steps: what each compile gave.
        seconds: time for everything.
    """

    name: str
    exporter: str | None = None
    opset: int | None = None
    nodes: int | None = None
    neuron_layers: int | None = None
    spiking_share: float | None = None
    lowering: str | None = None
    samples: int | None = None
    calibration: int | None = None
    variation: dict[str, float] = field(default_factory=dict)
    status: str | None = None
    stage: str = "start"
    reasons: list[str] = field(default_factory=list)
    details: str = ""
    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        """Take in one record of the worker: values of fields, or under "step" those of a `Step`."""
        for key, value in record.items():
            if key == "step":
                self.steps.append(Step(**{**value, "changes": tuple(value.get("changes", ()))}))
            else:
                setattr(self, key, value)

    @property
    def loads(self) -> bool | None:
        """Whether every artifact loads and runs in stock ONNX Runtime; None if there is none."""
        known = [step.loads for step in self.steps if step.loads is not None]
        return all(known) if known else None

    @property
    def keeps_signature(self) -> bool | None:
        """Whether every artifact has the network's inputs and outputs; None if there is none."""
        return not any(step.changes for step in self.steps) if self.steps else None

    @property
    def verdict(self) -> str:
        """In a word or two: "converges", or what is wrong.

        "only if seen": the outputs approach the ANN's on calibration inputs, but not on others, whose activations go
        beyond what calibration has seen.
        """
        if self.status != COMPILED:
            return self.status or CRASHED
        if not self.loads:
            return "doesn't load"
        if not self.keeps_signature:
            return "signature"
        verdict = convergence([(step.timesteps, step.worst) for step in self.steps])
        if (
            verdict != CONVERGES
            and convergence([(step.timesteps, step.worst_seen) for step in self.steps]) == CONVERGES
        ):
            return UNSEEN
        return verdict

    @property
    def good(self) -> bool:
        """Whether there is nothing to complain of."""
        return self.verdict == CONVERGES

    def remarks(self) -> list[str]:
        """What to know of the row beyond its cells: reasons, and what the figures don't show."""
        found = list(self.reasons)
        last = self.steps[-1] if self.steps else None
        if last is None:
            return found
        found += [f"signature: {change}" for change in last.changes]
        beyond = [f"T={step.timesteps}" for step in self.steps if step.backend == "fused"]
        if beyond:
            found.append(
                f"{', '.join(beyond)}: loads in ONNX Runtime, but ran in snncc's fused executor, as the artifact holds "
                "all timesteps at once and needs more memory than a process may use here"
            )
        for name, error in last.errors.items():
            if not error < LIMIT:
                seen = last.seen.get(name)
                on_seen = "" if seen is None else f", {percent(seen)} on calibration inputs"
                found.append(f"output '{name}': {percent(error)} at T={last.timesteps}{on_seen}")
        for name, share in last.differing.items():
            if share > 0:
                found.append(f"output '{name}' holds no real numbers and isn't judged: {percent(share)} differ")
        for name, variation in self.variation.items():
            if variation < 1e-3:
                found.append(f"output '{name}' hardly depends on the input: its error says little")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        said = {"verdict": self.verdict, "remarks": self.remarks()}
        return {**asdict(self), "loads": self.loads, "keeps_signature": self.keeps_signature, **said}


def _worst(errors: Mapping[str, float]) -> float | None:
    return max(errors.values(), key=lambda error: math.inf if math.isnan(error) else error) if errors else None


def convergence(errors: Sequence[tuple[int, float | None]], limit: float = LIMIT) -> str:
    """Say whether errors approach zero as T grows.

    Args:
        errors: T and the relative error at T, in ascending order of T; None where there is no output to judge.
        limit: what the last error must stay below.

    Returns:
        "converges"; "nothing to judge"; "not finite"; "off" where the last error reaches the limit; "rises" where an
        error isn't smaller than the one before, rounding aside.
    """
    known = [(timesteps, error) for timesteps, error in errors if error is not None]
    if not known:
        return "nothing to judge"
    if not all(math.isfinite(error) for _, error in known):
        return "not finite"
    if known[-1][1] >= limit:
        return f"off by {percent(known[-1][1])}"
    for (_, before), (timesteps, error) in itertools.pairwise(known):
        if error >= before and error > ROUNDING:
            return f"rises at T={timesteps}"
    return CONVERGES


def percent(value: float | None) -> str:
    """Return a fraction as per cent in two significant digits, or what it is instead."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if 100 * value < 0.001:
        return "0 %" if value == 0 else "<0.001 %"
    return f"{100 * value:.2g} %" if 100 * value < 10 else f"{100 * value:.0f} %"


def header(timesteps: Iterable[int]) -> list[str]:
    """Return the names of the columns."""
    fixed = ["network", "exporter", "opset", "nodes", "neurons", "spiking", "inputs", "result", "ORT", "signature"]
    return [*fixed, *(f"T={t}" for t in timesteps), "time"]


def cells(row: Row, timesteps: Iterable[int]) -> list[str]:
    """Return the columns of a row."""
    share = "–" if row.spiking_share is None else f"{100 * row.spiking_share:.0f} %"
    errors = {step.timesteps: step.worst for step in row.steps}
    facts = [row.exporter or "–", *(_count(n) for n in (row.opset, row.nodes, row.neuron_layers)), share]
    checks = [{True: "yes", False: "NO", None: "–"}[flag] for flag in (row.loads, row.keeps_signature)]
    return [
        row.name,
        *facts,
        f"{_count(row.calibration)} + {_count(row.samples)}",
        row.verdict,
        *checks,
        *(percent(errors.get(t)) for t in timesteps),
        f"{row.seconds:.0f} s",
    ]


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def total(rows: Sequence[Row]) -> str:
    """Return the sum of it all in one line."""
    counts: dict[str, int] = {}
    for row in rows:
        word = row.verdict.split(" by ")[0].split(" at ")[0]
        counts[word] = counts.get(word, 0) + 1
    parts = ", ".join(f"{n} {word}" for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return f"{len(rows)} networks: {parts or 'none'}; {sum(row.seconds for row in rows):,.0f} s"

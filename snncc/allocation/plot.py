"""What a search found, drawn: sensitivity per layer and candidate, and the front of cost and sensitivity."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from snncc.allocation.candidates import Candidate, uniform_of
from snncc.allocation.result import SearchResult
from snncc.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".svg", ".png")
_LABELS = {
    "spikes": "spikes per sample",
    "operations": "synaptic operations per sample",
    "energy": "energy per sample (J)",
}
_METRICS = {"symmetric_kl": "symmetric KL divergence", "relative_squared_error": "relative squared error"}


def check_plot(path: Path) -> None:
    """Check before the work starts that a plot can be drawn.

    Raises:
        UsageError: matplotlib is missing, or the file's format isn't known.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"'{path}' must end in {' or '.join(FORMATS)}: choose another --plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--plot needs matplotlib, which is not installed: install it with `pip install 'snncc[plot]'`"
        ) from error


def plot(result: SearchResult, stream: IO[bytes], suffix: str) -> None:
    """Draw a search into an open file.

    Args:
        result: the search.
        stream: where the picture goes.
        suffix: one of `FORMATS`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and the same search gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "snncc", "font.size": 9}):
        figure = Figure(figsize=(11, 9), layout="constrained")
        by_burst, by_ratio, front = figure.subplot_mosaic([["burst", "ratio"], ["front", "front"]]).values()
        uniform = uniform_of(result.config)
        _sensitivity(by_burst, result, "ψ", 0, uniform.threshold_ratio)
        _sensitivity(by_ratio, result, "τ", 1, uniform.max_burst)
        _front(front, result, uniform)
        figure.suptitle(f"{result.source['name']}, T={result.config.timesteps}")
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {}
        figure.savefig(stream, format=suffix[1:], dpi=150, metadata=metadata)


def _sensitivity(axes: Axes, result: SearchResult, symbol: str, varied: int, fixed: float) -> None:
    """Draw a line per layer over ψ (at one τ) or τ (at one ψ); colours run from the first layer to the last."""
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(result.layers)))
    for layer, colour in zip(result.layers, colours, strict=True):
        points = sorted(
            (c[varied], max(s.loss, 1e-12))
            for c, s in zip(layer.candidates, layer.scores, strict=True)
            if c[1 - varied] == fixed
        )
        axes.plot(*zip(*points, strict=True), marker=".", color=colour, linewidth=1, label=layer.name)
    axes.set(xlabel=symbol, ylabel=_METRICS.get(result.metric, result.metric), yscale="log")
    axes.set_title(f"sensitivity of each layer to {symbol} (first layer dark, last bright)")
    axes.grid(alpha=0.3)


def _front(axes: Axes, result: SearchResult, uniform: Candidate) -> None:
    kind = result.budget.counted
    front, fixed = result.front(kind), result.fixed_cost(kind)
    axes.plot(front.cost + fixed, np.maximum(front.loss, 1e-12), color="tab:blue", label="Pareto front, predicted")
    # Layers may have candidates of their own; the uniform configuration is among those of all.
    shared = set.intersection(*(set(layer.candidates) for layer in result.layers))
    baselines = [c for c in result.layers[0].candidates if c in shared and c.threshold_ratio == uniform.threshold_ratio]
    points = [result.predicted({layer.name: c for layer in result.layers}, kind) for c in baselines]
    axes.plot(*zip(*points, strict=True), "x", color="tab:gray", label="the same ψ everywhere, predicted")
    for candidate, point in zip(baselines, points, strict=True):
        axes.annotate(f"ψ={candidate.max_burst}", point, textcoords="offset points", xytext=(4, 4), fontsize=7)
    for number, measured in enumerate(result.measured):
        label = "simulated" if number == 0 else None
        axes.plot(measured.cost(kind), max(measured.loss, 1e-12), "s", color="tab:orange", label=label)
        cost, loss = result.predicted(measured.assignment, kind)
        axes.plot([cost, measured.cost(kind)], [loss, measured.loss], ":", color="tab:orange", linewidth=1)
    if result.assignment:
        axes.plot(*result.predicted(result.assignment, kind), "*", color="tab:red", markersize=12, label="chosen")
    axes.set(xlabel=_LABELS[kind], ylabel=_METRICS.get(result.metric, result.metric), yscale="log", xscale="log")
    axes.set_title("front of summed sensitivity; dotted: from the prediction to its simulation")
    axes.legend()
    axes.grid(alpha=0.3)

"""What an artifact says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from snncc.artifact import LayerRecord, Record
from snncc.report.ann import driven_by
from snncc.report.text import NONE, clean, count, facts, number, percent, plural, signature, table, value_range
from snncc.sequences import counterpart

LOWERING = {"batch": "folded into the batch axis", "scan": "a Scan over timesteps"}
_SOURCES = {
    "data": "from the calibration data",
    "batchnorm": "from BatchNormalization statistics",
    "generated": "from random inputs",
    "pattern": "from the steps of the training",
}


def layer_table(layers: Sequence[LayerRecord]) -> Table:
    """Return the table of neuron layers; error and firing rate are those on the calibration data."""
    columns = ("neurons", "θ", "ψ", "τ", "bias shift", "error", "enters", "rate")
    made = table("layer", "kind", "neuron", *columns, right=columns)
    for layer in layers:
        made.add_row(
            clean(layer.name),
            layer.activation,
            layer.neuron,
            count(layer.neurons),
            value_range(layer.theta_min, layer.theta_max),
            str(layer.max_burst),
            number(layer.threshold_ratio),
            number(layer.bias_shift, 2),
            percent(layer.error),
            percent(layer.entering),
            NONE if layer.firing_rate is None else f"{layer.firing_rate:.3f}",
        )
    return made


LAYER_LEGEND = (
    "θ threshold (range over channels), ψ most spikes per timestep, τ threshold ratio, bias shift mean |shift|,\n"
    "error squared error relative to the ANN's energy, enters the part of it that this layer adds to what reaches it,\n"
    "rate spikes per neuron and timestep (all on calibration data)"
)


def error_sources(layers: Sequence[LayerRecord], most: int = 3) -> str | None:
    """Return the layers where most of the error enters, with its main cause; None where that wasn't measured."""
    known = [(layer.entering, layer) for layer in layers if layer.entering is not None]
    worst = sorted(known, key=lambda pair: -pair[0])[:most]
    if not worst:
        return None
    parts = []
    for entering, layer in worst:
        causes = {c: getattr(layer, c) or 0.0 for c in ("clipping", "quantisation", "unevenness")}
        cause = max(causes, key=lambda name: causes[name])
        parts.append(f"{clean(layer.name)} {percent(entering)} ({cause})")
    return ", ".join(parts)


def max_burst(record: Record) -> str:
    """Return ψ of the network: one value, or the range over its layers."""
    values = sorted({layer.max_burst for layer in record.layers}) or [int(record.config["max_burst"])]
    return str(values[0]) if len(values) == 1 else f"{values[0]}–{values[-1]}"


def neurons(record: Record) -> str:
    """Return number of layers and neurons."""
    sizes = [layer.neurons for layer in record.layers]
    known = [size for size in sizes if size is not None]
    total = f"{sum(known):,} in " if len(known) == len(sizes) else ""
    signed = sum(layer.neuron == "signed" for layer in record.layers)
    kinds = f", {signed} of them signed" if signed else ""
    return f"{total}{plural(len(sizes), 'layer')}{kinds}"


def symbols(record: Record) -> str:
    """Return `T=8, ψ=4, v0=0.5`, and τ where it isn't 1."""
    config = record.config
    ratios = {layer.threshold_ratio for layer in record.layers} or {float(config["threshold_ratio"])}
    tau = "" if ratios == {1.0} else f", τ={value_range(min(ratios), max(ratios))}"
    return f"T={record.timesteps}, ψ={max_burst(record)}, v0={config['v_init']:g}{tau}"


def presented(record: Record) -> str | None:
    """Return what the input presents, and what the network stands for; None with constant inputs."""
    stands = counterpart(record.config)
    if stands is None:
        return None
    start = "" if record.period == record.timesteps else f", neurons start anew after {record.period}"
    return f"a frame at each timestep{start}; the ANN's counterpart is {stands}"


def thresholds(record: Record) -> str:
    """Return how thresholds and biases were found."""
    kind = "per channel" if record.config["per_channel"] else "per layer"
    sources = list(dict.fromkeys(layer.threshold_source for layer in record.layers))
    where = " and ".join(_SOURCES.get(s, s) for s in sources)
    if sources == ["data"] and record.calibration is not None:
        where = f"from {plural(int(record.calibration['samples']), 'sample')}"
    corrected = any(layer.bias_shift is not None for layer in record.layers)
    return f"{kind}, {where}; biases {'corrected' if corrected else 'not corrected'}"


def weights(record: Record) -> str | None:
    """Return how many layers have 8-bit weights, and why the others don't; None where nobody asked for them."""
    kept, number_of = record.network.get("float_layers"), record.network.get("int8_layers")
    if not isinstance(kept, dict) or not isinstance(number_of, int):
        return None
    reasons: dict[str, list[str]] = {}
    for name, reason in kept.items():
        reasons.setdefault(str(reason), []).append(clean(name))
    others = "; ".join(f"{_few(names)}: {reason}" for reason, names in reasons.items())
    made = f"int8 in {plural(number_of, 'layer')}"
    return f"{made}; float32 in {others}" if others else made


def _few(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {plural(rest, 'other')}" if rest > 0 else "")


def snn_facts(record: Record, inputs: Sequence[Any], outputs: Sequence[Any]) -> Table:
    """Return the summary of an artifact in a few lines."""
    calibration = record.calibration
    source = record.source
    return facts(
        {
            "network": f"{source.get('name')}, compiled by snncc {record.version}",
            "source": f"SHA-256 {source.get('sha256')}",
            "inputs": signature(inputs),
            "outputs": signature(outputs),
            "simulation": symbols(record),
            "input": presented(record),
            "neurons": neurons(record),
            "MACs": driven_by(record.network["macs"]),
            "time": LOWERING.get(str(record.network["lowering"]), str(record.network["lowering"])),
            "thresholds": thresholds(record),
            "weights": weights(record),
            "calibration": "none" if calibration is None else f"data SHA-256 {calibration.get('fingerprint')}",
        }
    )


def compile_facts(record: Record, written: str, following: str, *, verified: bool) -> Table:
    """Return what a compile made, in a few lines."""
    return facts(
        {
            "wrote": written,
            "neurons": f"{neurons(record)}, {symbols(record)}",
            "input": presented(record),
            "MACs": driven_by(record.network["macs"]),
            "time": LOWERING.get(str(record.network["lowering"]), str(record.network["lowering"])),
            "thresholds": thresholds(record),
            "weights": weights(record),
            "error enters": error_sources(record.layers),
            "verified": "every pass that must keep the outputs kept them" if verified else None,
            "next": following,
        }
    )


def timing_table(timings: Sequence[tuple[str, float]]) -> Table:
    """Return the table of passes and seconds."""
    made = table("pass", "seconds", "share", right=("seconds", "share"))
    total = sum(seconds for _, seconds in timings)
    for name, seconds in timings:
        made.add_row(name, f"{seconds:.3f}", percent(seconds / total if total else 0.0, 1))
    made.add_row("total", f"{total:.3f}", "")
    return made

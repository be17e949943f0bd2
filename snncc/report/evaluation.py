"""What an evaluation tells."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from snncc.artifact import Record
from snncc.report.snn import max_burst
from snncc.report.text import NONE, bar, clean, count, facts, number, percent, plural, shown_steps, si, table
from snncc.runtime.meter import PROFILES, EnergyProfile, Reading
from snncc.tally import Evaluation


def comparison_table(evaluation: Evaluation, chosen: EnergyProfile) -> Table:
    """Return ANN and SNN side by side; operations and energy are per sample."""
    made = table("", "ANN", "SNN", "", right=("ANN", "SNN"))
    if evaluation.snn_accuracy is not None:
        made.add_row("accuracy", percent(evaluation.ann_accuracy), percent(evaluation.snn_accuracy))
    if evaluation.agreement is not None:
        made.add_row("agreement", "", percent(evaluation.agreement), "same class as the ANN")
    add_operations(made, evaluation, chosen)
    return made


def add_operations(made: Table, evaluation: Evaluation, chosen: EnergyProfile) -> None:
    """Add rows of what every task has: error of the outputs, operations, spikes and energy per sample."""
    reading = evaluation.reading
    for output in evaluation.outputs:
        if evaluation.class_output in (None, output.name):
            made.add_row("relative error", "", percent(output.relative_error), f"of output '{clean(output.name)}' (L2)")
    made.add_row("multiply-accumulates", si(reading.ann_macs), si(reading.snn_macs), "per sample")
    made.add_row("synaptic operations", NONE, si(reading.synaptic_operations), "per sample")
    made.add_row("spikes", NONE, count(reading.spikes), f"per sample, {number(reading.firing_rate)} {_RATE}")
    for profile in sorted(PROFILES.values(), key=lambda p: p is not chosen):
        ann, snn = reading.energy(profile)
        share = f" ({percent(snn / ann, 0)} of the ANN)" if ann else ""
        style = "" if profile is chosen else "dim"
        made.add_row("energy", si(ann, "J"), si(snn, "J", like=ann), f"profile {profile.name}{share}", style=style)


_RATE = "per neuron and timestep"


def time_table(evaluation: Evaluation) -> Table | None:
    """Return what is reached after each timestep, with bars; None where nothing is known about it."""
    accuracy, agreement = evaluation.accuracy_by_timestep, evaluation.agreement_by_timestep
    steps = shown_steps(evaluation.timesteps)
    columns: dict[str, Sequence[float]] = {}
    if accuracy is not None:
        columns["accuracy"] = accuracy
    if agreement is not None:
        columns["agreement"] = agreement
    if not columns:
        columns = {f"error of '{clean(output.name)}'": output.by_timestep for output in evaluation.outputs[:4]}
    if not columns:
        return None
    made = table("t", *columns, "", right=("t", *columns))
    drawn = next(iter(columns.values()))
    for step in steps:
        cells = [percent(values[step - 1]) for values in columns.values()]
        made.add_row(str(step), *cells, Text(bar(drawn[step - 1]), style="cyan"))
    return made


def layer_table(reading: Reading) -> Table:
    """Return spikes per sample of each layer of neurons."""
    made = table("layer", "neurons", "spikes/sample", "rate", right=("neurons", "spikes/sample", "rate"))
    for layer in reading.neurons:
        made.add_row(clean(layer.name), count(layer.neurons), count(layer.spikes), f"{layer.firing_rate:.3f}")
    return made


def operation_table(reading: Reading) -> Table:
    """Return operations per sample of each weighted layer."""
    columns = ("ANN MACs", "synaptic operations", "SNN MACs")
    made = table("layer", "op", "driven by", *columns, right=columns)
    for layer in reading.layers:
        cells = (si(layer.macs), si(layer.synaptic_operations), si(layer.snn_macs))
        made.add_row(clean(layer.name), clean(layer.op), layer.driven_by, *cells)
    return made


def evaluation_facts(evaluation: Evaluation, record: Record, snn: str, data: str, against: str | None) -> Table:
    """Return what was evaluated, in a few lines."""
    backends = {"fused": "the fused executor", "ort": "ONNX Runtime", "numpy": "the NumPy reference simulator"}
    backend = backends[evaluation.backend]
    missing = evaluation.class_output is not None and evaluation.snn_accuracy is None
    return facts(
        {
            "network": f"{snn} (T={record.timesteps}, ψ={max_burst(record)}), run by {backend}",
            "data": f"{data}, {plural(evaluation.samples, 'sample')}{', no labels: no accuracy' if missing else ''}",
            "against": against if evaluation.counterpart is None else f"{against}, {evaluation.counterpart}",
        }
    )


def result_line(evaluation: Evaluation, record: Record, profile: EnergyProfile) -> str:
    """Return the whole result in one line."""
    mean = "" if evaluation.exits is None else f"{evaluation.reading.mean_timesteps:.2f} of "
    simulation = f"(T={mean}{record.timesteps}, ψ={max_burst(record)})"
    ann, snn = evaluation.reading.energy(profile)
    parts = []
    if evaluation.snn_accuracy is not None:
        if evaluation.ann_accuracy is not None:
            parts.append(f"ANN {percent(evaluation.ann_accuracy)}")
        parts.append(f"SNN {percent(evaluation.snn_accuracy)} {simulation}")
    else:
        parts.append(f"SNN {simulation}")
        parts += [f"relative error {percent(o.relative_error)}" for o in evaluation.outputs[:1]]
    if evaluation.agreement is not None:
        parts.append(f"agreement {percent(evaluation.agreement, 1)}")
    parts.append(f"spikes/sample {count(evaluation.reading.spikes)}")
    parts.append(f"energy ANN {si(ann, 'J')}  SNN {si(snn, 'J', like=ann)} ({profile.name})")
    return "  ".join(parts)

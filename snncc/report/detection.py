"""What an evaluation of a detector tells."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from snncc.artifact import Record
from snncc.report import evaluation as report
from snncc.report.snn import max_burst
from snncc.report.text import NONE, bar, clean, count, percent, si, table
from snncc.runtime.meter import EnergyProfile
from snncc.tasks.detection import DetectionEvaluation


def comparison_table(result: DetectionEvaluation, chosen: EnergyProfile) -> Table:
    """Return ANN and SNN side by side; operations and energy are per sample."""
    made = table("", "ANN", "SNN", "", right=("ANN", "SNN"))
    if result.snn is not None:
        ann, snn = result.ann, result.snn[-1]
        made.add_row("mAP@[.5:.95]", percent(None if ann is None else ann.mean), percent(snn.mean), "COCO's, all sizes")
        made.add_row("mAP@.5", percent(None if ann is None else ann.at_50), percent(snn.at_50))
        made.add_row("mAP@.75", percent(None if ann is None else ann.at_75), percent(snn.at_75))
    if result.agreement is not None:
        last = result.agreement[-1]
        made.add_row("boxes found", count(last.confident), percent(last.found), f"of the ANN's with {_score(result)}")
        made.add_row("boxes invented", NONE, percent(last.invented), f"of the SNN's with {_score(result)}")
    report.add_operations(made, result.evaluation, chosen)
    return made


def time_table(result: DetectionEvaluation, shown: list[int]) -> Table:
    """Return what is reached after each timestep, with bars."""
    columns = ["mAP@[.5:.95]", "mAP@.5"] if result.snn is not None else []
    columns += ["boxes found"] if result.agreement is not None else []
    made = table("t", *columns, "", right=("t", *columns))
    for index, step in enumerate(result.steps):
        if step not in shown:
            continue
        values = [] if result.snn is None else [result.snn[index].mean, result.snn[index].at_50]
        found = None if result.agreement is None else result.agreement[index].found
        cells = [percent(v) for v in values] + ([] if result.agreement is None else [percent(found)])
        made.add_row(str(step), *cells, Text(bar(values[0] if values else found or 0.0), style="cyan"))
    return made


def class_table(result: DetectionEvaluation) -> Table | None:
    """Return the average precision of each class that is on the images; None without annotations."""
    if result.snn is None or result.classes is None:
        return None
    made = table("class", "ANN", "SNN", right=("ANN", "SNN"))
    for index, name in enumerate(result.classes):
        if result.snn[-1].by_class[index] is not None:
            ann = None if result.ann is None else result.ann.by_class[index]
            made.add_row(clean(name), percent(ann), percent(result.snn[-1].by_class[index]))
    return made


def result_line(result: DetectionEvaluation, record: Record, profile: EnergyProfile) -> str:
    """Return the whole result in one line."""
    simulation = f"(T={record.timesteps}, ψ={max_burst(record)})"
    ann, snn = result.evaluation.reading.energy(profile)
    parts = []
    if result.snn is not None:
        if result.ann is not None:
            parts.append(f"ANN mAP {percent(result.ann.mean)} (@.5 {percent(result.ann.at_50)})")
        parts.append(f"SNN mAP {percent(result.snn[-1].mean)} (@.5 {percent(result.snn[-1].at_50)}) {simulation}")
    else:
        parts.append(f"SNN {simulation}")
    if result.agreement is not None:
        parts.append(f"boxes found {percent(result.agreement[-1].found, 1)}")
    parts.append(f"spikes/sample {count(result.evaluation.reading.spikes)}")
    parts.append(f"energy ANN {si(ann, 'J')}  SNN {si(snn, 'J', like=ann)} ({profile.name})")
    return "  ".join(parts)


def _score(result: DetectionEvaluation) -> str:
    return f"a score of {result.confidence:g} or more"

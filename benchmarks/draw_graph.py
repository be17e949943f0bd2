"""The README's picture: the first residual block of a zoo network beside the same block of its artifact, as SVG.

Both columns are read from the files: rows are matched by the names of the nodes, which the compiler keeps.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import snncc
from snncc import models

BOX_WIDTH, BOX_HEIGHT, GAP, COLUMN, TOP = 236, 38, 22, 410, 84
LEFT = 52
KINDS = ("BurstIF", "SignedBurst", "SignedBurstRelu", "SignedBurstClip")
SPIKING = (*KINDS, *(f"{kind}Unit" for kind in KINDS), "BurstIFUnitConstant")
NEURONS = ("Relu", "Clip", *SPIKING)
TIME = ("RepeatInput", "RateDecode")
COLOURS = {  # fill and stroke
    "weighted": ("#dbe7f6", "#5c86b5"),
    "activation": ("#f7dede", "#bf6a6a"),
    "neuron": ("#fde3b4", "#c9851c"),
    "time": ("#dcefd7", "#639a55"),
    "other": ("#f0f1f3", "#8b929c"),
}
FONT = 'font-family="-apple-system, BlinkMacSystemFont, Segoe UI, Noto Sans, Helvetica, Arial, sans-serif"'


@dataclass(frozen=True)
class Box:
    """A node, or several that are drawn as one.

    Attributes:
        name: name of the (last) node.
        op: what the box is called.
        detail: its attributes.
        inputs: tensors that it reads, constants aside.
        output: the tensor that it makes.
        shape: that tensor's shape.
    """

    name: str
    op: str
    detail: str
    inputs: tuple[str, ...]
    output: str
    shape: str

    @property
    def kind(self) -> str:
        """Key of `COLOURS`."""
        if self.op in ("Conv", "Gemm"):
            return "weighted"
        if self.op in TIME:
            return "time"
        if self.op in NEURONS:
            return "neuron" if self.op in SPIKING else "activation"
        return "other"


def read_boxes(model: onnx.ModelProto) -> list[Box]:
    """Return a box per node of a model, in order; what comes before the first convolution is one box."""
    model = onnx.shape_inference.infer_shapes(model)
    values = {v.name: v for v in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type not in ("Constant", "Identity")]
    made = {output for node in nodes for output in node.output} | {i.name for i in model.graph.input}
    boxes = []
    rescaled = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Rescale"}
    for node in nodes:
        if node.op_type == "Rescale":  # drawn as a part of what reads it
            continue
        inputs = tuple(rescaled.get(name, name) for name in node.input if name in made and name not in constants)
        shape = _shape(values.get(inputs[0] if node.op_type == "RateDecode" else node.output[0]))
        if node.op_type == "RateDecode":  # a function, which shape inference doesn't see through
            shape = shape.replace("T·N", "N")
        boxes.append(Box(node.name, node.op_type, _detail(node, constants), inputs, node.output[0], shape))
    first = next(i for i, box in enumerate(boxes) if box.op == "Conv")
    ops = ", ".join(box.op for box in boxes[:first])
    before = Box("before", ops, "normalisation of the pixels", boxes[0].inputs, boxes[first - 1].output, boxes[0].shape)
    return [*([before] if first else []), *boxes[first:]]


def _shape(value: onnx.ValueInfoProto | None) -> str:
    if value is None:
        return ""
    dims = value.type.tensor_type.shape.dim
    return " × ".join(d.dim_param.replace("*", "·") if d.HasField("dim_param") else str(d.dim_value) for d in dims)


def _detail(node: onnx.NodeProto, constants: dict[str, np.ndarray[Any, Any]]) -> str:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Conv":
        outputs, inputs = constants[node.input[1]].shape[:2]
        size = " × ".join(str(k) for k in attributes["kernel_shape"])
        return f"{size}, {inputs} → {outputs}{', bias' if len(node.input) > 2 else ''}"
    if node.op_type == "Gemm":
        return f"{' → '.join(str(d) for d in reversed(constants[node.input[1]].shape))}, bias"
    if node.op_type in SPIKING:
        theta = constants[node.input[1]]
        options = f"ψ={attributes['max_burst']}, τ={attributes['threshold_ratio']:g}, T={attributes['timesteps']}"
        return f"{options}, θ {theta.min():.2f} … {theta.max():.2f}"
    if node.op_type == "Add" and any(name.endswith("rescale.output") for name in node.input):
        return "the identity in units of the next θ"
    return f"T={attributes['timesteps']}" if "timesteps" in attributes else ""


def excerpt(boxes: Sequence[Box]) -> list[Box]:
    """Leave out what lies between the end of the first residual block and the last neuron."""
    sums = {box.output for box in boxes if box.op == "Add"}
    end = next(i for i, box in enumerate(boxes) if box.op in NEURONS and box.inputs[0] in sums)
    last = max(i for i, box in enumerate(boxes) if box.op in NEURONS)
    hidden = boxes[end + 1 : last + 1]
    neurons = [box for box in hidden if box.op in NEURONS]
    kind = "neurons" if neurons[0].op in SPIKING else neurons[0].op
    rest = Box("more", "⋮", f"{len(neurons)} more {kind}", (boxes[end].output,), *_end(boxes[last]))
    return [*boxes[: end + 1], rest, *boxes[last + 1 :]]


def _end(box: Box) -> tuple[str, str]:
    return box.output, box.shape


def align(left: Sequence[Box], right: Sequence[Box]) -> list[tuple[Box | None, Box | None]]:
    """Put nodes of the same name in the same row."""
    matcher = difflib.SequenceMatcher(None, [b.name for b in left], [b.name for b in right], autojunk=False)
    rows: list[tuple[Box | None, Box | None]] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            rows += zip(left[i:i_end], right[j:j_end], strict=True)
        else:
            rows += [(box, None) for box in left[i:i_end]] + [(None, box) for box in right[j:j_end]]
    return rows


def draw_column(boxes: Sequence[tuple[int, Box]], x: float, source: str) -> Iterator[str]:
    """Draw the boxes of a column, each in its row, and the edges between them.

    Args:
        boxes: row and box.
        x: left edge.
        source: shape of the network's input.
    """
    rows = {box.output: row for row, box in boxes}
    middle = x + BOX_WIDTH / 2
    for number, (row, box) in enumerate(boxes):
        above = boxes[number - 1][1] if number else None
        start = _y(boxes[number - 1][0]) + BOX_HEIGHT if above else TOP - GAP
        yield arrow(f"M {middle} {start} V {_y(row) - 5}")
        yield text(middle + 9, start + 15, above.shape if above else f"image {source}", size=11, colour="#57606a")
        for name in box.inputs:
            if above is not None and name in rows and name != above.output:
                yield skip(x, _y(rows[name]) + BOX_HEIGHT, _y(row) + BOX_HEIGHT / 2)
        yield draw_box(box, x, _y(row))
    row, box = boxes[-1]
    end = _y(row) + BOX_HEIGHT
    yield arrow(f"M {middle} {end} V {end + GAP - 4}")
    yield text(middle + 9, end + 15, f"{box.output} {box.shape}", size=11, colour="#57606a")


def _y(row: int) -> float:
    return TOP + row * (BOX_HEIGHT + GAP)


def skip(x: float, start: float, end: float) -> str:
    """Draw an edge that passes nodes by, at the left of the column."""
    middle, side = x + BOX_WIDTH / 2, x - 26
    return arrow(
        f"M {middle} {start + 5} H {side + 8} Q {side} {start + 5} {side} {start + 13} "
        f"V {end - 8} Q {side} {end} {side + 8} {end} H {x - 5}"
    )


def draw_box(box: Box, x: float, y: float) -> str:
    """Draw a node."""
    middle = x + BOX_WIDTH / 2
    if box.op == "⋮":
        return text(middle + 9, y + 24, box.detail, size=12, colour="#57606a") + arrow(
            f"M {middle} {y} V {y + BOX_HEIGHT}", dashed=True
        )
    fill, stroke = COLOURS[box.kind]
    shape = (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="{fill}" stroke="{stroke}"/>\n'
    )
    if not box.detail:
        return shape + text(middle, y + 25, box.op, size=13, weight=600, anchor="middle")
    return (
        shape
        + text(middle, y + 17, box.op, size=13, weight=600, anchor="middle")
        + text(middle, y + 32, box.detail, size=11, anchor="middle")
    )


def arrow(path: str, *, dashed: bool = False) -> str:
    """Draw an edge."""
    style = 'stroke-dasharray="2 5"' if dashed else 'marker-end="url(#tip)"'
    return f'<path d="{path}" fill="none" stroke="#57606a" stroke-width="1.3" {style}/>\n'


def text(
    x: float, y: float, content: str, *, size: int, weight: int = 400, anchor: str = "start", colour: str = "#1f2328"
) -> str:
    """Draw a line of text."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(content)}</text>\n"
    )


def draw(ann: onnx.ModelProto, snn: onnx.ModelProto, titles: tuple[str, str]) -> str:
    """Return the picture of both networks side by side."""
    rows = align(excerpt(read_boxes(ann)), excerpt(read_boxes(snn)))
    columns = [[(i, row[side]) for i, row in enumerate(rows) if row[side] is not None] for side in (0, 1)]
    width, height = LEFT + COLUMN + BOX_WIDTH + 64, _y(len(rows)) + 18
    source = _shape(ann.graph.input[0])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'{FONT} role="img" aria-label="{escape(titles[0])} and {escape(titles[1])}">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#57606a"/></marker></defs>\n'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#d0d7de"/>\n'
    ]
    parts.append(_timesteps(columns[1], LEFT + COLUMN))
    for boxes, x, title in zip(columns, (LEFT, LEFT + COLUMN), titles, strict=True):
        parts.append(text(x + BOX_WIDTH / 2, 36, title, size=15, weight=600, anchor="middle"))
        parts += draw_column([(i, box) for i, box in boxes if box is not None], x, source)
    return "".join([*parts, "</svg>\n"])


def _timesteps(boxes: Sequence[tuple[int, Box | None]], x: float) -> str:
    """Draw the ground under what runs at every timestep: from RepeatInput, or the first neurons, to RateDecode."""
    top = next(_y(row) for row, box in boxes if box is not None and box.op in ("RepeatInput", *SPIKING))
    bottom = next(_y(row) for row, box in boxes if box is not None and box.op == "RateDecode")
    y, height, side = top + BOX_HEIGHT / 2, bottom - top, x + BOX_WIDTH + 30
    label = text(0, 0, "T timesteps in the batch axis", size=12, weight=600, anchor="middle", colour="#8a5a0b")
    return (
        f'<rect x="{x - 40}" y="{y}" width="{BOX_WIDTH + 84}" height="{height}" rx="8" fill="#fff8ea" '
        'stroke="#e8c887" stroke-dasharray="5 4"/>\n'
        f'<g transform="translate({side} {y + height / 2}) rotate(90)">{label}</g>\n'
    )


def main() -> None:
    """Compile a network of the zoo and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the SVG file to write")
    parser.add_argument("--network", choices=models.names(), default="fashion_resnet20")
    options = parser.parse_args()
    images = models.calibration_set()[0].astype(np.float32)
    network = snncc.compile(f"zoo:{options.network}", calibration=images)
    titles = (f"{options.network}.onnx", f"{options.network}.snn.onnx")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(draw(onnx.load(models.path(options.network)), network.model, titles), encoding="utf-8")


if __name__ == "__main__":
    main()

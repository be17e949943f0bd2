"""Decoders: how the outputs of a detector become boxes.

A decoder is a function of one sample,

    decode(outputs, size, parameters) -> (boxes, scores, classes)

outputs: by name, the network's floating-point outputs without the batch axis; size: height and width of its input in
pixels; parameters: a mapping, from a file of JSON or from the network's metadata. It returns candidates: left, top,
right, bottom in pixels of the input [K, 4], scores between 0 and 1 [K], and class indices [K]. Suppressing doubles is
not its business. It raises `UsageError` where outputs or parameters aren't what it decodes.

A package offers one under the entry point group `snncc.decoders`; any other is named as `module:function`.

A network may carry its own settings: metadata under the key `decoder`, JSON with `name`, and what the decoder wants.
Files come from anywhere, so a file names only built-in or installed decoders, never a module.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from snncc.errors import UsageError
from snncc.graph import first_line
from snncc.tasks import anchor_free, yolo
from snncc.tasks.boxes import Detections, suppress

Decode = Callable[[Mapping[str, NDArray[Any]], tuple[int, int], Mapping[str, Any]], tuple[Any, Any, Any]]
Parameters = str | Path | Mapping[str, Any] | None
"""Of a decoder, or the file of JSON that holds them."""

BUILT_IN: Mapping[str, Decode] = {
    "yolov2": yolo.yolov2,
    "yolov3": yolo.yolov3,
    "yolox": anchor_free.yolox,
    "fcos": anchor_free.fcos,
}
GROUP = "snncc.decoders"
KEY = "decoder"
"""Key of a network's metadata."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Decoder:
    """A decoder with its parameters.

    Attributes:
        name: what it was asked for as.
        decode: the function.
        parameters: what it is given.
        least_score: candidates below it are dropped; low, because average precision counts the tail too.
        most_overlap: two boxes of a class that overlap by more are one object.
        most: most boxes per image; COCO's evaluation looks at 100.
    """

    name: str
    decode: Decode
    parameters: Mapping[str, Any] = field(default_factory=dict)
    least_score: float = 0.01
    most_overlap: float = 0.45
    most: int = 100

    def __post_init__(self) -> None:
        for name in ("least_score", "most_overlap"):
            value = getattr(self, name)
            if not _is_number(value) or not 0.0 <= value <= 1.0:
                raise UsageError(f"decoder '{self.name}': '{name}' is {value!r}: it must be a number from 0 to 1")
        if not isinstance(self.most, int) or isinstance(self.most, bool) or self.most < 1:
            raise UsageError(f"decoder '{self.name}': 'most' is {self.most!r}: it must be a whole number of at least 1")

    def __call__(self, outputs: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Detections:
        """Decode one sample.

        Args:
            outputs: by name, the network's outputs without the batch axis.
            size: height and width of the input.

        Raises:
            UsageError: outputs or parameters don't fit the decoder, or it breaks or gives something else than boxes.
        """
        try:
            found = self.decode(outputs, size, self.parameters)
        except UsageError as error:
            raise UsageError(f"decoder '{self.name}': {error}") from error
        except Exception as error:
            if self.name in BUILT_IN:
                raise
            raise UsageError(
                f"decoder '{self.name}' breaks ({type(error).__name__}: {first_line(error)}): correct it, or its "
                "parameters"
            ) from error
        return suppress(self._checked(found), self.least_score, self.most_overlap, self.most)

    def _checked(self, found: Any) -> Detections:
        try:
            boxes, scores, classes = (np.asarray(part) for part in found)
            made = Detections(boxes.astype(np.float64), scores.astype(np.float64), classes.astype(np.int64))
        except (TypeError, ValueError) as error:
            raise UsageError(f"decoder '{self.name}' doesn't return boxes, scores and classes: {error}") from error
        count = len(made.scores) if made.scores.ndim == 1 else -1
        if made.boxes.shape != (count, 4) or made.classes.shape != (count,) or (made.classes < 0).any():
            shapes = ", ".join(str(list(part.shape)) for part in (boxes, scores, classes))
            raise UsageError(
                f"decoder '{self.name}' returns boxes, scores and classes of shapes {shapes}: it must return [K, 4], "
                "[K] and [K], with classes from 0 on"
            )
        return made


def make_decoder(name: str | None, parameters: Parameters, model: onnx.ModelProto) -> Decoder:
    """Make the decoder of a network.

    Args:
        name: a built-in or installed decoder, or `module:function`; None: what the network's metadata says.
        parameters: its parameters, or a file of JSON with them; None: what the network's metadata says.
        model: the network.

    Raises:
        UsageError: there is no such decoder, nothing says which, or the parameters can't be read.
    """
    own = _metadata(model)
    given: Mapping[str, Any]
    if parameters is None:
        given = own if name in (None, own.get("name")) else {}
    else:
        given = parameters if isinstance(parameters, Mapping) else read_parameters(Path(parameters))
    chosen = name or given.get("name") or own.get("name")
    if chosen is None:
        raise UsageError(
            "nothing says how this network's outputs become boxes: name a decoder with --decoder "
            f"({', '.join(BUILT_IN)}, or module:function), and give its parameters with --decoder-options FILE.json"
        )
    if not isinstance(chosen, str) or (name is None and ":" in chosen):
        raise UsageError(f"'name' is {chosen!r}: a file names an installed decoder; name others with --decoder")
    limits = {key: given[key] for key in ("least_score", "most_overlap", "most") if key in given}
    rest = {key: value for key, value in given.items() if key not in (*limits, "name")}
    return Decoder(chosen, find(chosen), rest, **limits)


def find(name: str) -> Decode:
    """Return a decoder by name.

    Raises:
        UsageError: there is none of this name, or it can't be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed and ":" not in name:
        known = ", ".join([*BUILT_IN, *sorted(installed)])
        raise UsageError(f"there is no decoder '{name}': choose one of {known}, or name a function as module:function")
    try:
        if name in installed:
            found = installed[name].load()
        else:
            module, _, function = name.partition(":")
            found = importlib.import_module(module)
            for part in function.split("."):
                found = getattr(found, part)
    except Exception as error:
        raise UsageError(
            f"decoder '{name}' can't be imported ({type(error).__name__}: {first_line(error)}): check the name, and "
            "that the module is on Python's path (PYTHONPATH)"
        ) from error
    if not callable(found):
        raise UsageError(f"decoder '{name}' is no function but a {type(found).__name__}: name one of the module's")
    return found  # type: ignore[no-any-return]


def read_parameters(path: Path) -> dict[str, Any]:
    """Read a decoder's parameters from a file.

    Raises:
        UsageError: it can't be read or holds no JSON object.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} has {path.stat().st_size:,} bytes: a decoder's parameters are far smaller")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"'{path}' can't be read ({first_line(error)}): give a file of JSON with the decoder's parameters"
        ) from error
    return _object(text, f"'{path}'", "correct it")


def _metadata(model: onnx.ModelProto) -> dict[str, Any]:
    for entry in model.metadata_props:
        if entry.key == KEY and len(entry.value) <= _MOST_BYTES:
            where = f"the network's metadata '{KEY}'"
            return _object(entry.value, where, "give --decoder and --decoder-options instead")
    return {}


def _object(text: str, where: str, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({first_line(error)}): {remedy}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} holds a {type(value).__name__}, not an object of parameters: {remedy}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

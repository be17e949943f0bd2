"""Models to load, and the error that loading ends in."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

from snncc.errors import ModelError
from snncc.loader import load_model

TEXT = '<ir_version: 8, opset_import: ["" : 17]> '
WEIGHTED = TEXT + "g (float[N,3] x) => (float[N,3] y) <float[3] w = {1, 2, 3}> { [mul] y = Mul(x, w) }"


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def message(source: object) -> str:
    """Return the one line of the error that loading ends in."""
    with pytest.raises(ModelError) as caught:
        load_model(source)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    return text

"""Distances between outputs, and what counts as another signature."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.parser
import pytest
from conformance.errors import differing, relative_errors, signature_changes, variations


def test_relative_error_of_each_floating_point_output() -> None:
    ann = {"a": np.array([[3.0, 4.0]], np.float32), "zero": np.zeros(2, np.float32), "label": np.array([1, 2])}
    snn = {"a": np.array([[3.0, 4.5]], np.float32), "zero": np.zeros(2, np.float32), "label": np.array([1, 3])}
    assert relative_errors(snn, ann) == {"a": pytest.approx(0.1), "zero": 0.0}
    assert differing(snn, ann) == {"label": 0.5}


def test_other_shapes_nan_and_a_zero_that_is_none_are_no_small_error() -> None:
    ann = {name: np.ones((2, 2), np.float32) for name in ("shape", "nan")} | {"zero": np.zeros(2, np.float32)}
    snn = {"shape": np.ones((4,), np.float32), "nan": np.full((2, 2), np.nan), "zero": np.full(2, 1e-9, np.float32)}
    found = relative_errors(snn, ann)
    assert math.isinf(found["shape"])
    assert math.isnan(found["nan"])
    assert math.isinf(found["zero"])
    assert differing({"n": np.zeros(3, int)}, {"n": np.zeros(2, int)}) == {"n": 1.0}


def test_variation_is_zero_for_an_output_that_is_always_the_same() -> None:
    varied = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = variations({"same": np.ones((4, 3)), "varied": varied, "whole": np.ones(3)}, samples=2)
    assert found == {"same": 0.0, "varied": pytest.approx(math.sqrt(0.5))}


def declared(inputs: str, outputs: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ y = Identity (x) }}'
    )


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (("float[N,3] x", "float[N,3] y"), ("float[B,3] x", "float[B,3] y"), None),
        (("float[N,3] x", "float[N,3] y"), ("float[2,3] x", "float[N,3] y"), "input 'x' is [2, 3] instead of"),
        (("float[N,3] x", "float[N,3] y"), ("float[N,3] x", "float[8,3] y"), "output 'y' is [8, 3] instead of"),
        (("float[1,3] x", "float[n,3] y"), ("float[1,3] x", "float[7,3] y"), None),
        (("float[1,3] x", "float[1,3] y"), ("float[1,3] x", "float[7,3] y"), "output 'y' is [7, 3] instead of"),
        (("float[1,3] x", "float[1,3] y"), ("float[1,3] x", "double[1,3] y"), "is of type DOUBLE instead of FLOAT"),
        (("float[1,3] x", "float y"), ("float[1,3] x", "float[1,3] y"), "output 'y' is [1, 3] instead of []"),
        (("float[1,3] x", "float[1,3] y"), ("float[1,3] z", "float[1,3] y"), "inputs are z instead of x"),
    ],
)
def test_signature(before: tuple[str, str], after: tuple[str, str], change: str | None) -> None:
    found = signature_changes(declared(*before), declared(*after))
    assert bool(found) == (change is not None)
    assert change is None or change in found[0]


def test_order_and_number_of_outputs_count() -> None:
    one, two = declared("float[1] x", "float[1] y, float[1] z"), declared("float[1] x", "float[1] z, float[1] y")
    assert signature_changes(one, two) == ["outputs are z, y instead of y, z"]

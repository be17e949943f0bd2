"""The arithmetic of linear quantisation against onnx's reference implementation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from snncc.passes.quantisation import Scheme, dequantised, representable


def by_reference(values: np.ndarray, scheme: Scheme) -> np.ndarray:
    attributes = {} if scheme.is_scalar else {"axis": scheme.axis}
    if scheme.block:
        attributes["block_size"] = scheme.block
    node = onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes)
    info = [onnx.helper.make_empty_tensor_value_info(name) for name in "qszy"]
    graph = onnx.helper.make_graph([node], "g", info[:3], info[3:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, {"q": values, "s": scheme.scale, "z": scheme.zero})[0]


RNG = np.random.default_rng(0)
VALUES = RNG.integers(-128, 128, (4, 6, 5)).astype(np.int8)


def scheme(*shape: int, axis: int = 1, block: int = 0) -> Scheme:
    return Scheme(
        np.asarray(RNG.uniform(0.1, 1, shape), np.float32), np.asarray(RNG.integers(-9, 9, shape), np.int8), axis, block
    )


@pytest.mark.parametrize(
    "case",
    [scheme(), scheme(6), scheme(5, axis=2), scheme(4, axis=-3), scheme(4, 3, 5, axis=1, block=2)],
    ids=["scalar", "axis 1", "axis 2", "axis -3", "blocks"],
)
def test_dequantised(case: Scheme) -> None:
    # Ours multiplies in float64 and rounds once, the reference in float32.
    np.testing.assert_allclose(dequantised(VALUES, case), by_reference(VALUES, case), rtol=1e-6)
    assert dequantised(VALUES, case).dtype == np.float32


def test_a_last_block_that_is_shorter() -> None:
    blocks = Scheme(np.array([[1.0, 10.0]], np.float32), np.zeros((1, 2), np.int8), axis=1, block=2)
    np.testing.assert_array_equal(dequantised(np.ones((1, 3), np.int8), blocks), [[1, 1, 10]])


def test_scales_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 scales for 6 channels"):
        dequantised(VALUES, scheme(3))


def test_representable() -> None:
    low, high = representable(Scheme(np.float32(0.5), np.uint8(0)))
    assert (float(low), float(high)) == (0.0, 127.5)
    low, high = representable(Scheme(np.array([1, 2], np.float32), np.array([-128, 0], np.int8)))
    np.testing.assert_array_equal(low, [0, -256])
    np.testing.assert_array_equal(high, [255, 254])


def test_equal_schemes() -> None:
    one = Scheme(np.float32(0.5), np.uint8(3))
    assert one.equals(Scheme(np.array([0.5], np.float32), np.array([3], np.uint8), axis=0))
    assert not one.equals(Scheme(np.float32(0.25), np.uint8(3)))
    assert not one.equals(Scheme(np.float32(0.5), np.uint8(4)))
    assert not one.equals(Scheme(np.float32(0.5), np.int8(3)))
    several = np.array([0.5, 1], np.float32), np.array([3, 3], np.uint8)
    assert not Scheme(*several, axis=0).equals(Scheme(*several, axis=1))
    assert not Scheme(*several).equals(one)


def test_scales_of_a_single_value_are_refused() -> None:
    scheme = Scheme(np.ones(2, np.float32), np.zeros(2, np.int8))
    with pytest.raises(ValueError, match="2 scales for a single value"):
        dequantised(np.array(3, np.int8), scheme)

"""Shapes: what fits is accepted, and what doesn't gets a message that says how to reshape."""

from __future__ import annotations

import numpy as np
import pytest

from snncc.data import InputSpec, load
from snncc.data.spec import Dim, format_shape
from snncc.errors import DataError, UsageError


def spec(*shape: Dim, name: str = "x", dtype: str = "float32") -> InputSpec:
    return InputSpec(name, np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        (("N", 3), (5, 3)),
        ((None, "features"), (5, 7)),
        ((1, 3), (5, 3)),
        (("N", 1, "h", None), (2, 1, 9, 4)),
        (("N",), (4,)),
    ],
)
def test_fitting_shapes_are_taken_unchanged(declared: tuple[Dim, ...], shape: tuple[int, ...]) -> None:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(load(data, [spec(*declared)]).batch(0, shape[0])["x"], data)


@pytest.mark.parametrize(
    ("declared", "shape", "remedies"),
    [
        (("N", 3, 8, 8), (3, 8, 8), ["array[np.newaxis]"]),
        (("N", 1, 8, 9), (5, 8, 9), ["np.expand_dims(array, 1)"]),
        (("N", 8, 9, 1), (5, 8, 9), ["np.expand_dims(array, 3)"]),
        (("N", 1, "h", "w"), (1, 8, 8), ["array[np.newaxis]", "np.expand_dims(array, 1)"]),
        (("N", 3, 8, 9), (5, 8, 9, 3), ["np.transpose(array, (0, 3, 1, 2))", "NHWC"]),
        (("N", 8, 9, 3), (5, 3, 8, 9), ["np.transpose(array, (0, 2, 3, 1))", "NCHW"]),
        (("N", 1, 4, 4), (5, 16), ["array.reshape(-1, 1, 4, 4)"]),
        (("N", 16), (5, 4, 4), ["array.reshape(-1, 16)"]),
        (("N", 2, 8, 9), (5, 4, 2, 8, 9), ["--input-coding frames", "the 4 frames"]),
        (("N", 3), (5, 4), ["re-export the data"]),
        (("N", 3), (5,), ["re-export the data"]),
    ],
)
def test_other_shapes_are_refused_with_a_way_out(
    declared: tuple[Dim, ...], shape: tuple[int, ...], remedies: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        load({"x": np.zeros(shape, np.float32)}, [spec(*declared)])
    message = str(caught.value)
    for part in ["dict of arrays", "'x'", format_shape(shape), format_shape(declared), *remedies]:
        assert part in message


def test_the_suggested_changes_do_fit() -> None:
    for declared, shape in [((None, 1, 8, 9), (5, 8, 9)), ((None, 3, 8, 9), (5, 8, 9, 3)), ((None, 16), (5, 4, 4))]:
        array = np.zeros(shape, np.float32)
        with pytest.raises(DataError) as caught:
            load(array, [spec(*declared)])
        message = str(caught.value)
        if "expand_dims" in message:
            changed = np.expand_dims(array, 1)
        elif "transpose" in message:
            changed = np.transpose(array, (0, 3, 1, 2))
        else:
            changed = array.reshape(-1, 16)
        assert len(load(changed, [spec(*declared)])) == 5


def test_shapes_are_printed_as_declared() -> None:
    assert format_shape(("N", None, 3)) == "[N, ?, 3]"


def test_a_spec_normalises_its_dtype() -> None:
    assert InputSpec("x", np.float32, (1, 2)).dtype == np.dtype("float32")  # type: ignore[arg-type]
    assert spec(1, 2).batch == 1
    assert spec("N", 2).batch is None


@pytest.mark.parametrize("inputs", [[], [spec("N", 2), spec("N", 3)]])
def test_no_inputs_or_doubled_names_are_wrong_usage(inputs: list[InputSpec]) -> None:
    with pytest.raises(UsageError, match="one or more inputs of different names"):
        load(np.zeros((1, 2)), inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([spec()], "'x' is a scalar.*batch as axis 0"),
        ([spec("N", dtype="U4")], "'x' is of dtype <U4.*export the model"),
        ([spec(4, 2, name="a"), spec(2, 2, name="b")], "'a': 4, 'b': 2.*one batch size or an open one"),
    ],
)
def test_inputs_that_no_data_can_feed(inputs: list[InputSpec], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(np.zeros((4, 2)), inputs)

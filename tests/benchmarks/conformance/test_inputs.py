"""Made-up inputs: of the right type, within tables, whole batches, the same each time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from conformance.inputs import candidates, fixed_batch, generate, split, whole


def model(inputs: str, body: str = "y = Identity (x)", output: str = "float[N] y") -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({output}) {{ {body} }}')


def test_floats_are_standard_normal_and_repeatable() -> None:
    net = model("float[N,3,20,20] x")
    one, same, other = (generate(net, 8, seed=seed, open_size=16)["x"] for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == ((8, 3, 20, 20), np.float32)
    assert abs(one.mean()) < 0.05
    assert abs(one.std() - 1) < 0.05  # 9600 values: a spread of 0.01 around 1
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_token_ids_stay_within_the_smallest_table_they_look_up_in() -> None:
    table = "<float[9,2] table, int64[2] shape = {0, -1}>"
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (int32[N,50] x) => (float[N,50,2] y) '
        f"{table} {{ wide = Cast <to = 7> (x) z = Reshape (wide, shape) y = Gather (table, z) }}"
    )
    net = onnx.parser.parse_model(text)
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((9, 2), np.float32), "table"))
    ids = generate(net, 20, seed=0, open_size=16)["x"]
    assert ids.dtype == np.int32
    assert (ids.min(), ids.max()) == (0, 8)


def test_other_integers_booleans_and_masks() -> None:
    net = model(
        "int64[N,40] ids, bool[N,40] flags, int64[N,40] attention_mask, uint8[N,400] image", "y = Identity (ids)"
    )
    feeds = generate(net, 4, seed=0, open_size=16)
    assert set(np.unique(feeds["ids"])) == {0, 1, 2, 3}
    assert set(np.unique(feeds["flags"])) == {False, True}
    assert (feeds["attention_mask"] == 1).all()
    assert (feeds["image"].dtype, feeds["image"].max() > 250) == (np.uint8, True)


def test_text_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is of type"):
        generate(model("string[N] x"), 1, seed=0, open_size=16)


def test_initializers_need_no_input() -> None:
    net = model("float[N,4] x, float[4] w", "y = Add (x, w)")
    net.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    assert list(generate(net, 1, seed=0, open_size=16)) == ["x"]


def test_open_axes_and_fixed_batches() -> None:
    opened, fixed = model("float[N,3,h,w] x"), model("float[3,4] x")
    assert generate(opened, 2, seed=0, open_size=64)["x"].shape == (2, 3, 64, 64)
    assert (len(list(candidates(opened))), len(list(candidates(fixed)))) == (3, 1)
    assert (fixed_batch(opened), fixed_batch(fixed)) == (None, 3)
    assert [whole(n, 3) for n in (1, 3, 8)] == [3, 3, 9]
    assert whole(8, None) == 8


@pytest.mark.parametrize(("count", "start"), [(40, 32), (36, 28), (6, 0)])
def test_given_data_calibrates_first_and_is_evaluated_after(count: int, start: int) -> None:
    calibrating, evaluating = split({"x": np.arange(count)}, calibration=32, samples=8)
    np.testing.assert_array_equal(calibrating["x"], np.arange(min(count, 32)))
    np.testing.assert_array_equal(evaluating["x"], np.arange(count)[start : start + 8])

"""Samples that don't depend on how many run together: against each alone, in ONNX Runtime with one thread."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import parse

from snncc.errors import ModelError
from snncc.runtime import rows
from snncc.runtime.buffers import aligned
from snncc.runtime.rows import RowSession
from snncc.runtime.session import Session

# ONNX Runtime adds up what isn't aligned apart: a row of 37 numbers is, or is not, by its place among the others.
MEAN = "g (float[N,37] x) => (float[N,1] y) { y = ReduceMean <axes = [1]> (x) }"
DENSE = "g (float[N,37] x, float[37,11] w_1, float[11] b_1) => (float[N,11] y) { y = Gemm (x, w_1, b_1) }"
ROWS = (1, 2, 3, 13, 40)


def each_alone(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = Session(model, "one", 1)
    return np.concatenate([session.run({"x": aligned(x[i : i + 1])})["y"] for i in range(len(x))])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("text", [MEAN, DENSE])
def test_each_row_is_what_it_is_alone(text: str, threads: int) -> None:
    model = parse(text)
    session = RowSession(model, "test", threads, {"x"})
    for count in ROWS:
        x = np.random.default_rng(count).standard_normal((count, 37), np.float32)
        wanted = each_alone(model, x)
        assert session.run({"x": x})["y"].tobytes() == wanted.tobytes()
        result = np.full_like(wanted, np.nan)
        session.run_into({"x": x}, {"y": result})
        assert result.tobytes() == wanted.tobytes()


def test_rows_run_one_by_one_only_where_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    plain = Session.run

    def counting(self: Session, feeds: dict[str, np.ndarray], *names: list[str]) -> dict[str, np.ndarray]:
        counts.append(len(feeds["x"]))
        return plain(self, feeds, *names)

    monkeypatch.setattr(Session, "run", counting)
    x = np.random.default_rng(0).standard_normal((40, 37), np.float32)
    for text, wanted in ((MEAN, [1] * 40), (DENSE, [40])):
        session = RowSession(parse(text), "test", 1, {"x"})
        session.run({"x": x})  # tries it
        counts.clear()
        session.run({"x": x})
        assert counts == wanted


def test_inputs_without_samples_stay_whole() -> None:
    text = "g (float[N,4] x, float[1,4] z) => (float[N,4] y) { y = Mul (x, z) }"
    session = RowSession(parse(text), "test", 1, {"x"})
    x, z = np.ones((3, 4), np.float32), np.arange(4, dtype=np.float32)[None]
    np.testing.assert_array_equal(session.run({"x": x, "z": z})["y"], np.repeat(z, 3, axis=0))


def test_wrong_values_are_told_when_they_run() -> None:
    """A Reshape to a size that only real values have: the trial with random ones is no error."""
    text = "g (float[N,4] x, float[2] s) => (float[A,B] y) { i = Cast <to = 7> (s) y = Reshape (x, i) }"
    session = RowSession(parse(text), "test", 1, {"x", "s"})
    with pytest.raises(ModelError, match="test: ONNX Runtime failed"):
        session.run({"x": np.ones((2, 4), np.float32), "s": np.array([3, 3], np.float32)})


def test_bits_are_compared_not_values() -> None:
    zero, nan = np.zeros(2, np.float32), np.full(2, np.nan, np.float32)
    assert not rows._is_same(zero, -zero)
    assert rows._is_same(nan, -nan)
    assert not rows._is_same(zero, np.nextafter(zero, np.float32(1)))
    assert not rows._is_same(zero, zero[:1])
    assert rows._is_same(np.arange(3), np.arange(3))

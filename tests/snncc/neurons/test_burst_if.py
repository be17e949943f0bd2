"""All forms of the burst neuron against each other: closed form, step, blocked simulation, ONNX functions.

Currents lie on a grid of θ/8, and v0 is an odd multiple of 1/16: the membrane potential stays 1/16 of a threshold away
from every integer, float32 rounding (T·1e-7 at most) can't move it across, and so every form must emit exactly the same
spikes, for any θ. Ties are drawn apart: with θ a power of two all arithmetic is exact in float32, and the same holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.neurons.burst_if import closed_form, simulate, step
from snncc.neurons.functions import functions
from snncc.neurons.response import BLOCK


@dataclass(frozen=True)
class Case:
    """One layer of neurons and what flows into it; `c` are currents in units of θe, [T, N, C, M]."""

    c: np.ndarray
    theta: np.ndarray
    ratio: float
    max_burst: int
    v_init: float

    @property
    def timesteps(self) -> int:
        return len(self.c)

    @property
    def effective(self) -> np.ndarray:
        return (self.theta * np.float32(self.ratio)).astype(np.float32)

    @property
    def column(self) -> np.ndarray:
        return self.effective.reshape(1, -1, 1)

    @property
    def x(self) -> np.ndarray:
        return (self.c * self.column).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn, *, ties: bool = False, constant: bool = False) -> Case:
    timesteps, channels = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    samples, size = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    max_burst = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = 8 * (max_burst + 1)
    c = rng.integers(-reach // 2, reach, (1 if constant else timesteps, samples, channels, size)) / 8
    c = np.broadcast_to(c, (timesteps, *c.shape[1:]))
    count = draw(st.sampled_from([1, channels]))
    if ties:
        theta = 2.0 ** rng.integers(-6, 7, count)
        return Case(c, theta.astype(np.float32), draw(st.sampled_from([1.0, 2.0])), max_burst, rng.integers(0, 8) / 8)
    theta = 10.0 ** rng.uniform(-3, 3, count)
    ratio = draw(st.sampled_from([1.0, 1.25, 1.7]))
    return Case(c, theta.astype(np.float32), ratio, max_burst, (2 * rng.integers(0, 8) + 1) / 16)


def stepped(case: Case, current: np.ndarray) -> np.ndarray:
    """Iterate equations 2-4."""
    v_mem = np.broadcast_to(np.float32(case.v_init) * case.column, current.shape[1:]).astype(np.float32)
    counts = []
    for x in current:
        count, v_mem = step(x, v_mem, case.column, case.max_burst)
        counts.append(count)
    return np.stack(counts)


def artifact(case: Case, *, scan: bool, opset: int = 17) -> onnx.ModelProto:
    """A model [T*N, C, M] -> [T*N, C, M] around BurstIF, or [T, N, C, M] -> the same around BurstIFStep in a Scan."""
    attributes = f"max_burst = {case.max_burst}, threshold_ratio = {case.ratio!r}"
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "snncc" : 1]>'
    if scan:
        body = f"""n1, v1 = snncc.BurstIFStep <{attributes}> (x1, theta, v0)"""
        text = f"""{header} g (float[T,N,C,M] x, float[1,C,1] theta, float v_init) => (float[T,N,C,M] y) {{
            shape = Shape <start = 1> (x)
            start = Expand (v_init, shape)
            end, y = Scan <num_scan_inputs = 1,
                body = timestep (float[N,C,M] v0, float[N,C,M] x1) => (float[N,C,M] v1, float[N,C,M] n1) {{ {body} }}
            > (start, x)
        }}"""
    else:
        text = f"""{header} g (float[N,C,M] x, float[1,C,1] theta, float v_init) => (float[N,C,M] y) {{
            y = snncc.BurstIF <timesteps = {case.timesteps}, {attributes}> (x, theta, v_init)
        }}"""
    model = onnx.parser.parse_model(text)
    model.functions.extend(functions(["BurstIFStep" if scan else "BurstIF"], opset))
    return model


def in_onnxruntime(case: Case, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds(case, x))[0])


def feeds(case: Case, x: np.ndarray) -> dict[str, np.ndarray]:
    theta = np.broadcast_to(case.theta, (case.theta.size,)).reshape(1, -1, 1)
    return {"x": x, "theta": theta, "v_init": np.array(case.v_init, np.float32)}


def counts_of(case: Case, spikes: np.ndarray) -> np.ndarray:
    """Graded output to whole spikes, which it must be to float32's precision."""
    counts = spikes.reshape(case.c.shape) / case.column
    np.testing.assert_allclose(counts, np.round(counts), rtol=1e-6, atol=1e-6)
    return np.round(counts)


def check_all_forms(case: Case) -> None:
    expected = stepped(case, case.x)
    assert expected.min() >= 0
    assert expected.max() <= case.max_burst
    simulated = simulate(case.x, case.column[0], case.timesteps, case.max_burst, case.v_init)
    assert simulated.counts.dtype == np.uint8
    np.testing.assert_array_equal(simulated.counts, expected)
    np.testing.assert_array_equal(simulated.fired, expected.sum(axis=0))
    np.testing.assert_allclose(simulated.arrived, case.x.mean(axis=0), rtol=1e-6, atol=1e-6 * np.abs(case.x).max())
    assert simulated.spikes == expected.sum()
    fewer = simulate(case.x, case.column[0], case.timesteps, case.max_burst, case.v_init, keep=False)
    assert fewer.counts.shape == (0, *expected.shape[1:])
    np.testing.assert_array_equal(fewer.fired, simulated.fired)
    folded = case.x.reshape(-1, *case.x.shape[2:])
    model = artifact(case, scan=False)
    np.testing.assert_array_equal(counts_of(case, in_onnxruntime(case, model, folded)), expected)
    reference = onnx.reference.ReferenceEvaluator(model).run(None, feeds(case, folded))[0]
    np.testing.assert_array_equal(counts_of(case, reference), expected)
    scanned = in_onnxruntime(case, artifact(case, scan=True), case.x)
    np.testing.assert_array_equal(counts_of(case, scanned), expected)


@settings(max_examples=40)
@given(cases())
def test_every_form_emits_the_same_spikes(case: Case) -> None:
    check_all_forms(case)


@settings(max_examples=30)
@given(cases(ties=True))
def test_every_form_emits_the_same_spikes_at_exact_ties(case: Case) -> None:
    check_all_forms(case)


def test_the_cases_at_ties_do_have_ties() -> None:
    found: list[bool] = []

    @settings(max_examples=30)
    @given(cases(ties=True))
    def look(case: Case) -> None:
        u = case.v_init + np.cumsum(case.c, axis=0)
        found.append(bool(((u == np.round(u)) & (u > 0)).any()))

    look()
    assert sum(found) > 20


@settings(max_examples=60)
@given(cases(constant=True))
def test_mean_output_for_a_constant_current_is_the_closed_form(case: Case) -> None:
    expected = closed_form(case.x[0], case.column, case.timesteps, case.max_burst, case.v_init)
    mean = stepped(case, case.x).mean(axis=0) * case.column
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7 * case.effective.max())
    once = simulate(case.x[:1], case.column[0], case.timesteps, case.max_burst, case.v_init)
    np.testing.assert_array_equal(once.counts, stepped(case, case.x))


@settings(max_examples=60)
@given(cases(ties=True, constant=True))
def test_closed_form_is_exact_at_ties(case: Case) -> None:
    expected = closed_form(case.x[0], case.column, case.timesteps, case.max_burst, case.v_init)
    spikes = expected * case.timesteps / case.column
    np.testing.assert_allclose(spikes, stepped(case, case.x).sum(axis=0), rtol=0, atol=1e-4)


@settings(max_examples=60)
@given(cases(), st.integers(0, 2**32 - 1), st.booleans())
def test_simulation_adds_the_shift(case: Case, seed: int, constant: bool) -> None:
    rng = np.random.default_rng(seed)
    current = case.x[:1] if constant else case.x
    units = rng.integers(-8, 9, rng.choice([1, case.x.shape[2]])) / 8
    shift = (units * case.effective).astype(np.float32).reshape(-1, 1)
    found = simulate(current, case.column[0], case.timesteps, case.max_burst, case.v_init, shift)
    everywhere = np.broadcast_to(current, case.x.shape) + shift
    np.testing.assert_array_equal(found.counts, stepped(case, everywhere.astype(np.float32)))


def test_a_burst_is_bounded_and_what_is_left_stays_in_the_membrane() -> None:
    """By hand: θe = 1, ψ = 2, v0 = 0.5; nothing is lost when more arrives than a burst can carry."""
    theta = np.ones(1, np.float32)
    current = np.array([5.0, 0.0, -1.0, 0.0, 0.4], np.float32).reshape(5, 1, 1, 1)
    counts = simulate(current, theta, 5, 2, 0.5).counts
    assert counts.reshape(-1).tolist() == [2, 2, 0, 0, 0]  # membrane: 3.5, 1.5, 0.5, 0.5, 0.9


def test_largest_burst_fits_the_counts() -> None:
    current = np.full((3, 1, 1, 1), 1000.0, np.float32)
    assert simulate(current, np.ones(1, np.float32), 3, 255, 0.0).counts.reshape(-1).tolist() == [255, 255, 255]


def test_blocks_of_elements_are_simulated_alike() -> None:
    """More elements than one block, not a multiple of it: each on its own gives the same."""
    rng = np.random.default_rng(3)
    size = 2 * BLOCK + 5
    current = rng.normal(0.4, 1.0, (4, 2, size)).astype(np.float32)
    theta, shift = rng.uniform(0.3, 1, size).astype(np.float32), rng.normal(0, 0.1, size).astype(np.float32)
    found = simulate(current, theta, 4, 3, 0.5, shift)
    for start in (0, BLOCK - 1, BLOCK, size - 1):
        part = slice(start, start + 1)
        alone = simulate(current[:, :, part], theta[part], 4, 3, 0.5, shift[part])
        np.testing.assert_array_equal(found.counts[:, :, part], alone.counts)
        np.testing.assert_array_equal(found.arrived[:, part], alone.arrived)


def test_no_samples_are_no_spikes() -> None:
    found = simulate(np.empty((3, 0, 4), np.float32), np.ones(4, np.float32), 3, 2, 0.5)
    assert (found.counts.shape, found.fired.shape, found.spikes) == ((3, 0, 4), (0, 4), 0)

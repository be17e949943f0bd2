"""Einsum with constant weights as MatMul, against ONNX Runtime on the original."""

from __future__ import annotations

import numpy as np
import pytest
from graph_checks import ROUNDING, parse, transform

import snncc
from snncc.passes.einsum_weights import EinsumToMatMul


def einsum(equation: str, x: str, w: str, out: str, *, weights_first: bool = False) -> str:
    operands = "w, x" if weights_first else "x, w"
    return (
        f'g (float[{x}] x, float[{w}] w) => (float[{out}] y) {{ [e] y = Einsum <equation="{equation}"> ({operands}) }}'
    )


@pytest.mark.parametrize(
    ("equation", "x", "w", "out", "ops"),
    [
        ("nk,km->nm", "N,3", "3,4", "N,4", ["MatMul"]),
        ("nk,mk->nm", "N,3", "4,3", "N,4", ["MatMul"]),
        ("...k,km->...m", "N,2,3", "3,4", "N,2,4", ["MatMul"]),
        ("bsd,dhk->bshk", "N,2,3", "3,4,5", "N,2,4,5", ["MatMul", "Reshape"]),
        ("bshk,hkd->bsd", "N,2,4,5", "4,5,3", "N,2,3", ["Reshape", "MatMul"]),
        ("b s h k , d k h -> b s d", "N,2,4,5", "3,5,4", "N,2,3", ["Reshape", "MatMul"]),
        ("nab,bcad->ndc", "N,4,5", "5,2,4,3", "N,3,2", ["Reshape", "MatMul", "Reshape"]),
    ],
)
def test_products_of_matrices(equation: str, x: str, w: str, out: str, ops: list[str]) -> None:
    """Sums may be added up in another order."""
    found = transform(EinsumToMatMul(), einsum(equation, x, w, out), ("w",), tolerance=ROUNDING)
    assert found.modified
    assert found.ops == ops
    assert found.node("e").op == "MatMul"


def test_the_weights_may_come_first() -> None:
    text = einsum("dhk,bsd->bshk", "N,2,3", "3,4,5", "N,2,4,5", weights_first=True)
    assert transform(EinsumToMatMul(), text, ("w",), tolerance=ROUNDING).ops == ["MatMul", "Reshape"]


@pytest.mark.parametrize(
    ("equation", "x", "w", "out"),
    [
        ("nk,km->mn", "N,3", "3,4", "4,N"),  # samples last
        ("kn,km->nm", "3,N", "3,4", "N,4"),  # samples behind what is summed
        ("nk,nkm->nm", "2,3", "2,3,4", "2,4"),  # own weights for each sample
        ("nk,km->n", "N,3", "3,4", "N"),  # summed over a letter of the weights alone
        ("nk,k->n", "N,3", "3", "N"),
        ("nn,nm->nm", "3,3", "3,4", "3,4"),
        ("nk,km", "N,3", "3,4", "N,4"),
        ("nk,km->nm", "N,1", "3,4", "N,4"),  # broadcast
    ],
)
def test_left_alone(equation: str, x: str, w: str, out: str) -> None:
    found = transform(EinsumToMatMul(), einsum(equation, x, w, out), ("w",), compare=False)
    assert not found.modified


def test_two_activations_stay() -> None:
    text = 'g (float[N,2,3] x) => (float[N,2,2] y) { y = Einsum <equation="nab,ncb->nac"> (x, x) }'
    assert not transform(EinsumToMatMul(), text).modified


def test_its_multiply_accumulates_count() -> None:
    model = parse(
        """g (float[N,2,6] x, float[6,4,5] w, float[4,5,3] v) => (float[N,2,3] y) {
            h = Einsum <equation="bsd,dhk->bshk"> (x, w) r = Relu(h) y = Einsum <equation="bshk,hkd->bsd"> (r, v) }""",
        ("w", "v"),
    )
    samples = np.random.default_rng(0).standard_normal((16, 2, 6)).astype(np.float32)
    network = snncc.compile(model, calibration=samples)
    account = network.record.network
    assert account["macs"] == {"analog": 240, "spikes": 120, "graded": 0, "readout": 0, "total": 360}
    assert account["lowering"] == "batch"

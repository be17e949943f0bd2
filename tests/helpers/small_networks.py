"""Small networks with random weights, one for each way in which a network can be built, and how to compile them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort

import snncc
from snncc.config import Config
from snncc.network import SpikingNetwork

HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>'


def parse(text: str, seed: int = 0, opset: int = 17, *, check: bool = True) -> onnx.ModelProto:
    """Parse ONNX text; inputs whose names begin with `w_` or `b_` become weights (He-scaled) and biases."""
    model = onnx.parser.parse_model(HEADER.format(opset=opset) + text)
    rng = np.random.default_rng(seed)
    for info in [i for i in model.graph.input if i.name[:2] in ("w_", "b_")]:
        model.graph.input.remove(info)
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        model.graph.initializer.append(onnx.numpy_helper.from_array(_parameter(info.name, dims, rng), info.name))
    if check:  # an output of unknown rank, `float[] y`, is fine for runtimes but not for the checker
        onnx.checker.check_model(model, full_check=True)
    return model


def _parameter(name: str, dims: list[int], rng: np.random.Generator) -> np.ndarray:
    if name.startswith("b_"):
        return (0.2 * rng.standard_normal(dims)).astype(np.float32)
    # Convolution weights are [out, in, ...]; those of Gemm and MatMul are [in, out] here.
    fan_in = int(np.prod(dims[1:])) if len(dims) > 2 else dims[0]
    return (rng.standard_normal(dims) * np.sqrt(2.0 / fan_in)).astype(np.float32)


def inputs_of(model: onnx.ModelProto, samples: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return standard normal inputs; `samples` is rounded up to the network's own batch where that is fixed."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for info in model.graph.input:
        batch, *sizes = [d.dim_value for d in info.type.tensor_type.shape.dim]
        count = -(-samples // batch) * batch if batch else samples
        feeds[info.name] = rng.standard_normal((count, *sizes)).astype(np.float32)
    return feeds


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a model in plain onnxruntime, in batches of its own size where that is fixed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    first = session.get_inputs()[0]
    size = first.shape[0] if isinstance(first.shape[0], int) else len(feeds[first.name])
    parts = [
        session.run(None, {k: v[i : i + size] for k, v in feeds.items()})
        for i in range(0, len(feeds[first.name]), size)
    ]
    return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(names)}


def signature(model: onnx.ModelProto) -> list[tuple[str, int, tuple[int | str, ...]]]:
    """Return name, element type and shape of every input and output as they stand in the file."""
    values = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    return [
        (
            v.name,
            v.type.tensor_type.elem_type,
            tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in (*values, *model.graph.output)
    ]


def compiled(model: onnx.ModelProto, samples: int = 8, data: Any = None, **options: Any) -> SpikingNetwork:
    """Compile with generated calibration data."""
    calibration = inputs_of(model, samples) if data is None else data
    return snncc.compile(model, calibration=calibration, config=Config(**options))


@dataclass(frozen=True)
class Small:
    """A network of the collection.

    Attributes:
        text: as ONNX text.
        lowering: "batch" or "scan".
    """

    text: str
    lowering: str = "batch"

    def model(self, seed: int = 0, opset: int = 17) -> onnx.ModelProto:
        """Return the network with weights that depend on the seed only."""
        return parse(self.text, seed, opset)


NETWORKS: dict[str, Small] = {
    "plain": Small(
        """g (float[N,3,8,8] x, float[6,3,3,3] w_1, float[6] b_1, float[8,6,3,3] w_2, float[8] b_2, float[8,5] w_3)
        => (float[N,5] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            c2 = Conv <strides = [2,2]> (r1, w_2, b_2)
            r2 = Relu (c2)
            p = GlobalAveragePool (r2)
            f = Flatten (p)
            y = MatMul (f, w_3)
        }""",
    ),
    "residual": Small(
        """g (float[N,3,6,6] x, float[4,3,3,3] w_1, float[4] b_1, float[4,4,3,3] w_2, float[4] b_2,
            float[4,4,3,3] w_3, float[4] b_3, float[6,4,1,1] w_4, float[6,4,3,3] w_5, float[6] b_5)
        => (float[N,6,3,3] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1,1,1,1]> (r1, w_2, b_2)
            r2 = Relu (c2)
            c3 = Conv <pads = [1,1,1,1]> (r2, w_3, b_3)
            s1 = Add (c3, r1)
            r3 = Relu (s1)
            c4 = Conv <strides = [2,2]> (r3, w_4)
            c5 = Conv <strides = [2,2], pads = [1,1,1,1]> (r3, w_5, b_5)
            s2 = Add (c4, c5)
            y = Relu (s2)
        }""",
    ),
    "concat": Small(
        """g (float[N,2,6,6] x, float[3,2,3,3] w_1, float[3] b_1, float[4,3,1,1] w_2, float[4] b_2,
            float[2,3,3,3] w_3, float[2] b_3, float[5,9,3,3] w_4, float[5] b_4)
        => (float[N,5] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            c2 = Conv (r1, w_2, b_2)
            r2 = Relu (c2)
            c3 = Conv <pads = [1,1,1,1]> (r1, w_3, b_3)
            r3 = Relu (c3)
            k = Concat <axis = 1> (r1, r2, r3)
            c4 = Conv (k, w_4, b_4)
            r4 = Relu (c4)
            p = GlobalAveragePool (r4)
            y = Flatten (p)
        }""",
    ),
    "maxpool_pads": Small(
        """g (float[N,2,7,7] x, float[2,2,3,3] w_0, float[4,2,3,3] w_1, float[4] b_1,
            float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,4] y) {
            c0 = Conv <pads = [1,1,1,1]> (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1,1,1,1]> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_ceil": Small(
        """g (float[N,2,7,7] x, float[2,2,3,3] w_0, float[4,2,3,3] w_1, float[4] b_1,
            float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,4] y) {
            c0 = Conv <pads = [1,1,1,1]> (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1,1,1,1]> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_dilated": Small(
        """g (float[N,2,7,7] x, float[2,2,3,3] w_0, float[4,2,3,3] w_1, float[4] b_1,
            float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,5] y) {
            c0 = Conv <pads = [1,1,1,1]> (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1,1,1,1]> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [2,2], dilations = [3,2]> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_same_upper": Small(
        """g (float[N,2,7,6] x, float[2,2,3,3] w_0, float[4,2,3,3] w_1, float[4] b_1,
            float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,3] y) {
            c0 = Conv <pads = [1,1,1,1]> (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <auto_pad = "SAME_UPPER"> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [3,2], strides = [2,2], auto_pad = "SAME_UPPER"> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_same_lower": Small(
        """g (float[N,2,7,6] x, float[2,2,3,3] w_0, float[4,2,3,3] w_1, float[4] b_1,
            float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,3] y) {
            c0 = Conv <pads = [1,1,1,1]> (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <auto_pad = "SAME_LOWER"> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [2,3], strides = [2,2], auto_pad = "SAME_LOWER"> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_first": Small(
        """g (float[N,2,7,7] x, float[4,2,3,3] w_1, float[4] b_1, float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,4] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "averagepool": Small(
        """g (float[N,2,8,8] x, float[4,2,3,3] w_1, float[4] b_1, float[4,4,3,3] w_2, float[4] b_2)
        => (float[N,4,4,4] y) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            m = AveragePool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r1)
            c2 = Conv <pads = [1,1,1,1]> (m, w_2, b_2)
            y = Relu (c2)
        }""",
    ),
    "maxpool_before_relu": Small(
        """g (float[N,1,10,10] x, float[3,1,3,3] w_1, float[3] b_1, float[6,3,3,3] w_2, float[6] b_2,
            float[6,4] w_3, float[4] b_3)
        => (float[N,4] y) {
            c1 = Conv (x, w_1, b_1)
            m1 = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c1)
            r1 = Relu (m1)
            c2 = Conv <pads = [1,1,1,1]> (r1, w_2, b_2)
            m2 = MaxPool <kernel_shape = [4,4]> (c2)
            r2 = Relu (m2)
            f = Flatten (r2)
            y = Gemm (f, w_3, b_3)
        }""",
    ),
    "flatten_gemm": Small(
        """g (float[N,2,5,5] x, float[3,2,2,2] w_1, float[3] b_1, float[48,10] w_2, float[10] b_2, float[10,4] w_3,
            float[4] b_3)
        => (float[N,4] y) {
            c1 = Conv (x, w_1, b_1)
            r1 = Relu (c1)
            f = Flatten (r1)
            g2 = Gemm (f, w_2, b_2)
            r2 = Relu (g2)
            g3 = Gemm (r2, w_3, b_3)
            y = Softmax (g3)
        }""",
    ),
    "mobile": Small(
        """g (float[N,3,6,6] x, float[8,3,3,3] w_1, float[8] b_1, float[8,1,3,3] w_2, float[8] b_2,
            float[12,8,1,1] w_3, float[12] b_3, float[12,5] w_4, float[5] b_4)
        => (float[N,5] y)
        <float zero = {0}, float six = {6}> {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Clip (c1, zero, six)
            c2 = Conv <group = 8, pads = [1,1,1,1], strides = [2,2]> (r1, w_2, b_2)
            r2 = Clip (c2, zero, six)
            c3 = Conv (r2, w_3, b_3)
            r3 = Clip (c3, zero, six)
            p = ReduceMean <axes = [2,3], keepdims = 0> (r3)
            y = Gemm (p, w_4, b_4)
        }""",
    ),
    "saturating": Small(
        """g (float[N,6] x, float[6,8] w_1, float[8] b_1, float[8,8] w_2, float[8] b_2)
        => (float[N,8] y)
        <float zero = {0}, float one = {1}> {
            c1 = Gemm (x, w_1, b_1)
            r1 = Clip (c1, zero, one)
            c2 = Gemm (r1, w_2, b_2)
            y = Clip (c2, zero, one)
        }""",
    ),
    "channels_last": Small(
        """g (float[N,6,6,3] x, float[4,3,3,3] w_1, float[4] b_1, float[5,4,3,3] w_2, float[5] b_2, float[5,3] w_3)
        => (float[N,3] y) {
            t1 = Transpose <perm = [0,3,1,2]> (x)
            c1 = Conv <pads = [1,1,1,1]> (t1, w_1, b_1)
            t2 = Transpose <perm = [0,2,3,1]> (c1)
            r1 = Relu (t2)
            t3 = Transpose <perm = [0,3,1,2]> (r1)
            c2 = Conv (t3, w_2, b_2)
            t4 = Transpose <perm = [0,2,3,1]> (c2)
            r2 = Relu (t4)
            p = ReduceMean <axes = [1,2], keepdims = 0> (r2)
            y = MatMul (p, w_3)
        }""",
    ),
    "two_inputs": Small(
        """g (float[N,2,5,5] x, float[N,7] z, float[4,2,3,3] w_1, float[4] b_1, float[7,4] w_2, float[4] b_2,
            float[4,4] w_3, float[4] b_3)
        => (float[N,4] y) {
            c1 = Conv (x, w_1, b_1)
            r1 = Relu (c1)
            p = GlobalAveragePool (r1)
            f = Flatten (p)
            g2 = Gemm (z, w_2, b_2)
            r2 = Relu (g2)
            s = Add (f, r2)
            g3 = Gemm (s, w_3, b_3)
            y = Relu (g3)
        }""",
    ),
    "static_branch": Small(
        """g (float[N,3,6,6] x, float[4,3,3,3] w_1, float[4] b_1, float[4,4,3,3] w_2, float[4] b_2,
            float[4,3,1,1] w_3, float[4,2] w_4, float[2] b_4)
        => (float[N,2] y, float[N,4,6,6] side) {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1,1,1,1]> (r1, w_2, b_2)
            c3 = Conv (x, w_3)
            side = Sigmoid (c3)
            s = Add (c2, side)
            r2 = Relu (s)
            p = GlobalAveragePool (r2)
            e = Exp (side)
            q = GlobalAveragePool (e)
            d = Sub (p, q)
            f = Flatten (d)
            y = Gemm (f, w_4, b_4)
        }""",
    ),
    "sequence": Small(
        """g (float[N,5,6] x, float[6,8] w_1, float[8] b_1, float[8,7] w_2, float[7] b_2, float[7,3] w_3)
        => (float[N,5,3] y) {
            m1 = MatMul (x, w_1)
            a1 = Add (m1, b_1)
            r1 = Relu (a1)
            m2 = MatMul (r1, w_2)
            a2 = Add (b_2, m2)
            r2 = Relu (a2)
            y = MatMul (r2, w_3)
        }""",
    ),
    "batch_of_one": Small(
        """g (float[1,2,6,6] x, float[4,2,3,3] w_1, float[4] b_1, float[64,6] w_2, float[6] b_2, float[6,3] w_3)
        => (float[1,3] y)
        <int64[2] flat = {1, 64}> {
            c1 = Conv (x, w_1, b_1)
            r1 = Relu (c1)
            f = Reshape (r1, flat)
            g2 = Gemm (f, w_2, b_2)
            r2 = Relu (g2)
            y = MatMul (r2, w_3)
        }""",
    ),
    "first_is_relu": Small(
        """g (float[N,6] x, float[6,8] w_1, float[8] b_1)
        => (float[N,8] y) {
            r1 = Relu (x)
            g1 = Gemm (r1, w_1, b_1)
            y = Relu (g1)
        }""",
    ),
    "neurons_are_outputs": Small(
        """g (float[N,6] x, float[6,8] w_1, float[8] b_1, float[8,5] w_2, float[5] b_2)
        => (float[N,5] y, float[N,8] r1, float[N,5] r2) {
            g1 = Gemm (x, w_1, b_1)
            r1 = Relu (g1)
            g2 = Gemm (r1, w_2, b_2)
            r2 = Relu (g2)
            y = Softmax (r2)
        }""",
    ),
    "currents_are_outputs": Small(
        """g (float[N,6] x, float[6,8] w_1, float[8] b_1, float[8,5] w_2, float[5] b_2)
        => (float[N,5] y, float[N,8] g1, float[N,5] g2) {
            g1 = Gemm (x, w_1, b_1)
            r1 = Relu (g1)
            g2 = Gemm (r1, w_2, b_2)
            y = Relu (g2)
        }""",
    ),
    "upsampling": Small(
        """g (float[N,2,4,4] x, float[6,2,3,3] w_1, float[6] b_1, float[6,2,2,2] w_2, float[4] b_2, float[3,4,1,1] w_3,
            float[3] b_3)
        => (float[N,3,16,16] y)
        <float[4] scales = {1, 1, 2, 2}> {
            c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            c2 = ConvTranspose <group = 2, strides = [2,2]> (r1, w_2, b_2)
            r2 = Relu (c2)
            u = Resize <mode = "nearest"> (r2, , scales)
            c3 = Conv (u, w_3, b_3)
            y = Relu (c3)
        }""",
    ),
    "odds_and_ends": Small(
        """g (float[N,4,6] x, float[4,4,3] w_1, float[4] b_1, float[4,2,3] w_2, float[4] b_2)
        => (float[N,4,1] y)
        <int64[2] halves = {2, 2}, float[2,1] scale = {1.5, -0.5}, float two = {2},
         int64[6] pads = {0, 0, 1, 0, 0, 1}, int64[1] starts = {1}, int64[1] ends = {7}, int64[1] axes = {2},
         int64[1] last = {-1}, int64[5] order = {4, 0, 2, 1, 3}> {
            c1 = Conv <pads = [1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            a, b = Split <axis = 1> (r1, halves)
            s = Sub (a, b)
            n = Neg (s)
            h = Mul (n, scale)
            d = Div (h, two)
            p = Pad (d, pads)
            l = Slice (p, starts, ends, axes)
            u = Unsqueeze (l, last)
            q = Squeeze (u, last)
            g = Gather <axis = 2> (q, order)
            m = Mean (g, g)
            c2 = Conv (m, w_2, b_2)
            e = ReduceMean <axes = [2]> (c2)
            y = Relu (e)
        }""",
    ),
    "samples_mixed": Small(
        """g (float[2,8] x, float[8,8] w_1, float[8] b_1, float[4,6] w_2, float[6] b_2, float[24,5] w_3, float[5] b_3)
        => (float[1,5] y)
        <int64[2] pairs = {4, 4}, int64[2] one = {1, 24}> {
            g1 = Gemm (x, w_1, b_1)
            r1 = Relu (g1)
            h = Reshape (r1, pairs)
            g2 = Gemm (h, w_2, b_2)
            r2 = Relu (g2)
            k = Reshape (r2, one)
            y = Gemm (k, w_3, b_3)
        }""",
        lowering="scan",
    ),
    "samples_moved": Small(
        """g (float[1,6,5] x, float[6,6,3] w_1, float[6] b_1, float[5,4] w_2, float[4] b_2,
            float[24,5] w_3, float[5] b_3)
        => (float[1,5] y)
        <int64[2] one = {1, 24}> {
            c1 = Conv <pads = [1,1]> (x, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [3], pads = [1,1]> (r1)
            t = Transpose <perm = [1,0,2]> (m)
            h = MatMul (t, w_2)
            a = Add (h, b_2)
            r2 = Relu (a)
            k = Reshape (r2, one)
            y = Gemm (k, w_3, b_3)
        }""",
        lowering="scan",
    ),
    "samples_moved_late": Small(
        """g (float[1,6,5] x, float[6,6,1] w_0, float[6,6,3] w_1, float[6] b_1, float[5,4] w_2, float[4] b_2,
            float[24,5] w_3, float[5] b_3)
        => (float[1,5] y)
        <int64[2] one = {1, 24}> {
            c0 = Conv (x, w_0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1,1]> (r0, w_1, b_1)
            r1 = Relu (c1)
            m = MaxPool <kernel_shape = [3], pads = [1,1]> (r1)
            t = Transpose <perm = [1,0,2]> (m)
            h = MatMul (t, w_2)
            a = Add (h, b_2)
            r2 = Relu (a)
            k = Reshape (r2, one)
            y = Gemm (k, w_3, b_3)
        }""",
        lowering="scan",
    ),
}

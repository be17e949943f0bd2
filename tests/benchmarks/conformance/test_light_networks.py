"""Random weights for networks whose weights are constants."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from conformance.export.light_networks import SHIFT, _write
from numpy.typing import NDArray

SHAPES = {
    "w1": (16, 3, 3, 3), "scale": (16,), "shift": (16,), "mean": (16,), "var": (16,),
    "w2": (32, 16, 3, 3), "b2": (32,), "w3": (10, 32), "b3": (10,),
}  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A small network in the form of `light_*`, with every weight a ConstantOfShape, after they became random."""
    folder = tmp_path_factory.mktemp("light")
    fills = "\n".join(f"{name} = ConstantOfShape <value = float[1] {{0.5}}> ({name}_shape)" for name in SHAPES)
    shapes = ", ".join(
        f"int64[{len(shape)}] {name}_shape = {{{', '.join(map(str, shape))}}}" for name, shape in SHAPES.items()
    )
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        light (float[1, 3, 16, 16] image) => (float[1, 10] scores) <{shapes}> {{
            {fills}
            a = Conv <pads = [1, 1, 1, 1]> (image, w1)
            normed = BatchNormalization (a, scale, shift, mean, var)
            b = Relu (normed)
            currents = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
            c = Relu (currents)
            pooled = GlobalAveragePool (c)
            features = Flatten (pooled)
            scores = Gemm <transB = 1> (features, w3, b3)
        }}""")
    onnx.save(model, folder / "light.onnx")
    _write(folder / "light.onnx", folder / "alive.onnx")
    return onnx.load(folder / "alive.onnx")


def values(model: onnx.ModelProto, names: list[str]) -> list[NDArray[np.float32]]:
    """Return tensors of the network over 32 random images."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # constants that are left over, as in the real files
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(7).standard_normal((32, 1, 3, 16, 16)).astype(np.float32)
    return [np.concatenate(found) for found in zip(*(session.run(None, {"image": i}) for i in images), strict=True)]


def test_layers_are_alive(network: onnx.ModelProto) -> None:
    onnx.checker.check_model(network, full_check=True)
    for found in values(network, ["normed", "currents"]):
        # Statistics of two images, on 32 others: a tenth is what chance leaves.
        assert found.mean() == pytest.approx(SHIFT, abs=0.15)
        assert found.std() == pytest.approx(1.0, abs=0.2)
        assert (found > 0).mean(axis=(0, 2, 3)).min() > 0.2


def test_scores_are_no_small_differences_of_large_sums(network: onnx.ModelProto) -> None:
    features, scores = values(network, ["features", "scores"])
    weight, bias = (
        onnx.numpy_helper.to_array(next(t for t in network.graph.initializer if t.name == name))
        for name in ("w3", "b3")
    )
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(features.shape)
    error = (features * noise) @ weight.T + bias - scores
    # 1 % of noise in the features stays about 1 %; with the scores' means taken off it became 19 % here.
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(scores)
    assert scores.std() == pytest.approx(1.0, abs=0.2)
    assert np.linalg.norm(scores - scores.mean(axis=0)) > 0.01 * np.linalg.norm(scores)

"""The artifact's file and record: complete, repeatable, and damaged ones refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError
from small_networks import NETWORKS, compiled, inputs_of, run

import snncc
from snncc import artifact as artifact_module
from snncc.artifact import VERSION, build, read_record, save
from snncc.config import Config
from snncc.errors import ArtifactError, ModelError, ResourceError, UsageError
from snncc.runtime.unlower import lowered_graph

KEYS = {"version", "source", "config", "calibration", "network", "layers", "warnings"}


@pytest.fixture(scope="module")
def network() -> snncc.SpikingNetwork:
    model = NETWORKS["mobile"].model()
    model.metadata_props.add(key="author", value="Ada")
    model.metadata_props.add(key="snncc.version", value="from another life")
    return compiled(model, timesteps=3, threshold_ratio=1.5)


def entries(model: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props}


def changed(network: snncc.SpikingNetwork, key: str, value: str | None) -> onnx.ModelProto:
    """A copy with another value of a key; None: without it."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    values = {**entries(model), key: value}
    del model.metadata_props[:]
    for name, text in values.items():
        if text is not None:
            model.metadata_props.add(key=name, value=text)
    return model


# --- the record -----------------------------------------------------------------------------------------------------


def test_record_is_whole_and_comes_back(network: snncc.SpikingNetwork) -> None:
    assert {k.removeprefix("snncc.") for k in entries(network.model) if k.startswith("snncc.")} == KEYS
    assert read_record(network.model, "it") == network.record
    assert network.record.version == VERSION
    options = Config(timesteps=3, threshold_ratio=1.5).to_dict()
    del options["batch_size"]  # a matter of memory and speed: the file must not depend on it
    assert network.record.config == options
    assert json.loads(json.dumps(network.report())) == network.report()


def test_metadata_of_the_original_is_kept(network: snncc.SpikingNetwork) -> None:
    assert entries(network.model)["author"] == "Ada"
    assert json.loads(entries(network.model)["snncc.version"]) == VERSION


def test_layers_say_what_they_are(network: snncc.SpikingNetwork) -> None:
    first, _, last = network.record.layers
    assert [(r.name, r.activation, r.neurons) for r in network.record.layers] == [
        ("r1", "clip", 8 * 36),
        ("r2", "clip", 8 * 9),
        ("r3", "clip", 12 * 9),
    ]
    assert (first.thresholds, last.thresholds) == (8, 12)
    assert (first.max_burst, first.threshold_ratio, first.threshold_source) == (4, 1.5, "data")
    theta = next(t for t in network.model.graph.initializer if t.name == "r1.v_threshold")
    values = onnx.numpy_helper.to_array(theta)
    assert values.shape == (1, 8, 1, 1)
    assert (first.theta_min, first.theta_max) == (values.min(), values.max())
    assert values.max() * 4 * 1.5 <= 6 * (1 + 1e-6)
    assert all(
        r.error is not None and 0 <= r.error < 1 and 0 < (r.firing_rate or 0) <= 4 for r in network.record.layers
    )


def test_relu_layers_say_so() -> None:
    record = compiled(NETWORKS["plain"].model(), timesteps=2).record
    assert {r.activation for r in record.layers} == {"relu"}
    assert record.network["macs"] == {"analog": 64 * 6 * 27, "spikes": 9 * 8 * 54 + 40, "graded": 0, "readout": 0} | {
        "total": 64 * 6 * 27 + 9 * 8 * 54 + 40
    }
    assert record.network["neuron_layers"] == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("snncc.layers", None),
        ("snncc.config", None),
        ("snncc.layers", "[{"),
        ("snncc.layers", "7"),
        ("snncc.layers", '["r1"]'),
        ("snncc.layers", '[{"name": "r1"}]'),
        ("snncc.layers", '[{"name": "r1", "colour": "red"}]'),
        ("snncc.config", "[]"),
        ("snncc.config", "null"),
        ("snncc.config", "{}"),
        ("snncc.config", '{"timesteps": 0}'),
        ("snncc.config", '{"timesteps": "many"}'),
        ("snncc.config", '{"timesteps": null}'),
        ("snncc.network", "[]"),
        ("snncc.source", '"file"'),
        ("snncc.calibration", "3"),
        ("snncc.warnings", '"none"'),
        ("snncc.version", "{}"),
        ("snncc.colour", '"red"'),
        ("snncc.config", "[" * 100_000),
    ],
    ids=lambda v: str(v)[:24],
)
def test_damaged_record_is_refused_in_one_line(network: snncc.SpikingNetwork, key: str, value: str | None) -> None:
    with pytest.raises(ArtifactError, match=r"^'it' has a damaged record .*: compile the network again$") as caught:
        read_record(changed(network, key, value), "'it'")
    assert len(str(caught.value)) < 500


def test_what_is_no_artifact_is_refused(network: snncc.SpikingNetwork, tmp_path: Path) -> None:
    plain = NETWORKS["plain"].model()
    with pytest.raises(ArtifactError, match="not a network compiled by snncc"):
        read_record(plain, "it")
    stripped = onnx.ModelProto()
    stripped.CopyFrom(network.model)
    del stripped.metadata_props[:]
    with pytest.raises(ArtifactError, match="not a network compiled by snncc"):
        read_record(stripped, "it")
    onnx.save(plain, str(tmp_path / "plain.onnx"))
    with pytest.raises(ArtifactError, match="make one with `snncc compile"):
        snncc.load(tmp_path / "plain.onnx")


def test_artifact_is_no_ann(network: snncc.SpikingNetwork) -> None:
    with pytest.raises(UsageError, match="already a spiking network"):
        snncc.compile(network.model)


def test_weights_beyond_the_limit_are_refused_before_the_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_module, "MAX_TOTAL_BYTES", 1000)
    steps: list[int] = []
    with pytest.raises(ModelError, match=r"weights of the compiled network take .* GiB.*--weights int8"):
        snncc.compile(
            NETWORKS["mobile"].model(),
            calibration=inputs_of(NETWORKS["mobile"].model(), 4),
            progress=lambda done, _: steps.append(done),
        )
    assert not steps


def test_too_little_memory_to_write_is_no_invalid_network(
    network: snncc.SpikingNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx.checker, "check_model", fails)
    with pytest.raises(ResourceError, match="not enough memory"):
        build(lowered_graph(network.model), network.record, {})


# --- the file -------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(network: snncc.SpikingNetwork, tmp_path: Path) -> None:
    target = tmp_path / "net.snn.onnx"
    network.save(target)
    loaded = snncc.load(target)
    assert loaded.record == network.record
    feeds = inputs_of(NETWORKS["mobile"].model(), 3)
    np.testing.assert_allclose(loaded.run(feeds)["y"], run(network.model, feeds)["y"], rtol=2e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["net.snn.onnx"]


def test_file_has_the_usual_permissions_and_replaces_what_was_there(
    network: snncc.SpikingNetwork, tmp_path: Path
) -> None:
    plain, target = tmp_path / "plain", tmp_path / "net.snn.onnx"
    plain.write_text("")
    target.write_text("old")
    network.save(target)
    assert target.stat().st_mode == plain.stat().st_mode
    assert snncc.load(str(target)).record == network.record


@pytest.mark.parametrize("place", ["missing/net.onnx", "folder", "file/net.onnx", "", "x" * 300, "nul\0"])
def test_target_that_cannot_be_written(network: snncc.SpikingNetwork, tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(ArtifactError, match=r"can't write .*; choose another place with -o"):
        network.save(f"{tmp_path}/{place}" if place else tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_while_writing_leaves_the_old_file(
    network: snncc.SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    target = tmp_path / "net.onnx"
    target.write_text("old")

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Path, "replace", fail)
    expected = ArtifactError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save(network.model, target)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert target.read_text() == "old"


def test_relative_target(network: snncc.SpikingNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network.save("net.onnx")
    assert os.listdir() == ["net.onnx"]  # noqa: PTH208


# --- the same bytes -------------------------------------------------------------------------------------------------

SCRIPT = """
import snncc
for name, trace in (("concat", True), ("samples_moved", False)):
    config = snncc.Config(timesteps=3, trace=trace)
    snncc.compile(f"{name}.onnx", calibration=f"{name}.npz", config=config).save(f"{name}.snn.onnx")
"""


def test_the_same_bytes_from_every_process(tmp_path: Path) -> None:
    """Other hash seeds and folders change nothing; nor does a path get inside."""
    for folder, seed in ((tmp_path / "a", "1"), (tmp_path / "b", "2")):
        folder.mkdir()
        for name in ("concat", "samples_moved"):
            model = NETWORKS[name].model()
            onnx.save(model, str(folder / f"{name}.onnx"))
            np.savez(folder / f"{name}.npz", **inputs_of(model, 8))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(snncc.__file__).parent.parent)}
        subprocess.run([sys.executable, "-c", SCRIPT], check=True, cwd=folder, env=environment)
    for name in ("concat", "samples_moved"):
        first, second = ((tmp_path / folder / f"{name}.snn.onnx").read_bytes() for folder in "ab")
        assert first == second
        for path in (str(tmp_path), str(Path(snncc.__file__).parent), "/tmp", "site-packages"):
            assert path.encode() not in first


@pytest.mark.parametrize(
    "name", ["residual", "concat", "mobile", "static_branch", "neurons_are_outputs", "samples_mixed"]
)
def test_the_same_bytes_within_a_process(name: str) -> None:
    first, second = (compiled(NETWORKS[name].model(), timesteps=2).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_other_data_and_options_give_another_fingerprint() -> None:
    model = NETWORKS["plain"].model()
    first = compiled(model, timesteps=2).record
    second = compiled(model, timesteps=2, data=inputs_of(model, 8, seed=9)).record
    assert first.calibration is not None
    assert second.calibration is not None
    assert first.calibration["fingerprint"] != second.calibration["fingerprint"]
    assert (
        first.source["sha256"]
        == second.source["sha256"]
        != compiled(NETWORKS["concat"].model()).record.source["sha256"]
    )

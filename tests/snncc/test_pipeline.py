"""The pipeline's hook: what it checks, times and dumps between passes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from small_networks import NETWORKS, inputs_of, parse

import snncc
from snncc.config import Config
from snncc.context import Context
from snncc.errors import ModelError, PassError, ResourceError, UnsupportedModelError
from snncc.graph import import_graph
from snncc.passes.base import Pass
from snncc.pipeline import ANALYSE, Hook, convert, relative_error


@dataclass(frozen=True)
class Nothing(Pass):
    """Leaves the graph alone."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        return False


@dataclass(frozen=True)
class Spoil(Pass):
    """Scales a weight by a factor, while it promises to change nothing."""

    factor: float

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        weight = next(t for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant) and t.name == "w_1")
        weight.values = (weight.values * self.factor).astype(np.float32)
        return True


@dataclass(frozen=True)
class SpoilOpenly(Spoil):
    """The same, without the promise."""

    preserves_outputs: ClassVar[bool] = False


@dataclass(frozen=True)
class NothingOpenly(Nothing):
    """Promises nothing, and changes nothing."""

    preserves_outputs: ClassVar[bool] = False


@dataclass(frozen=True)
class Break(Pass):
    """Fails in an unforeseen way."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        raise KeyError("missing")


def graph(name: str = "plain") -> gs.Graph:
    return import_graph(NETWORKS[name].model())


def test_passes_are_timed_in_order() -> None:
    hook = Hook()
    hook.run((Nothing(), Nothing()), graph(), Context(Config()))
    assert [name for name, _ in hook.timings] == ["Nothing", "Nothing"]
    assert all(seconds >= 0 for _, seconds in hook.timings)


@pytest.mark.parametrize("name", ["plain", "batch_of_one", "two_inputs"])
def test_verification_finds_a_pass_that_breaks_its_promise(name: str) -> None:
    with pytest.raises(PassError, match="pass Spoil changed output 'y': relative error"):
        Hook(verify=True).run((Nothing(), Spoil(1.01)), graph(name), Context(Config()))
    Hook(verify=True).run((Nothing(), Spoil(1.0)), graph(name), Context(Config()))
    Hook(verify=False).run((Spoil(1.01),), graph(name), Context(Config()))


def test_verification_ends_where_the_outputs_may_change() -> None:
    Hook(verify=True).run((SpoilOpenly(2.0), Spoil(2.0)), graph(), Context(Config()))


def test_verification_goes_on_where_nothing_was_changed() -> None:
    with pytest.raises(PassError, match="pass Spoil changed output"):
        Hook(verify=True).run((NothingOpenly(), Spoil(2.0)), graph(), Context(Config()))


def test_a_hook_serves_one_network_after_another() -> None:
    """Verification begins anew with each: neither is it over nor does it compare with the other network."""
    hook = Hook(verify=True)
    for name in ("plain", "sequence"):
        snncc.compile(NETWORKS[name].model(), hook=hook, config=Config(timesteps=1))
        assert hook.verify
    with pytest.raises(PassError, match="changed output"):
        hook.run((Spoil(1.01),), graph("residual"), Context(Config()))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_passes_keep_their_promise(name: str) -> None:
    model = NETWORKS[name].model()
    hook = Hook(verify=True)
    snncc.compile(model, calibration=inputs_of(model, 2), hook=hook, config=Config(timesteps=1))
    assert [n for n, _ in hook.timings] == [p.name for p in (*ANALYSE, *convert())]


def test_unforeseen_failure_names_the_pass_and_those_before() -> None:
    with pytest.raises(PassError, match=r"pass Break failed \(KeyError: 'missing'\) after: Nothing; ") as caught:
        Hook().run((Nothing(), Break()), graph(), Context(Config()))
    assert isinstance(caught.value.__cause__, KeyError)


@dataclass(frozen=True)
class TakeMuch(Pass):
    """Asks for more memory than there is."""

    def run(self, graph: gs.Graph, ctx: Context) -> bool:
        raise MemoryError


def test_too_little_memory_is_no_failure_of_the_pass() -> None:
    with pytest.raises(ResourceError, match="not enough memory in pass TakeMuch: try a smaller --batch-size"):
        Hook().run((Nothing(), TakeMuch()), graph(), Context(Config()))
    assert issubclass(ResourceError, MemoryError)


def test_a_value_larger_than_any_networks_is_refused_before_it_is_made() -> None:
    model = parse(
        """g (float[N,6] x, float[6,6] w_1) => (float[N,6] y) <int64[2] dims = {2, 2147483648}, int64[1] axis = {1}>
        { c = ConstantOfShape (dims) s = ReduceSum (c, axis) m = ReduceMax (s)
          h = MatMul (x, w_1) a = Add (h, m) y = Relu (a) }""",
        check=False,
    )
    with pytest.raises(UnsupportedModelError, match=r"\(ConstantOfShape\): its output 'c' .* takes 16 GiB; export"):
        snncc.compile(model)


def test_errors_meant_for_the_user_pass_through() -> None:
    model = NETWORKS["plain"].model()
    model.graph.node[1].op_type = model.graph.node[3].op_type = "Neg"
    with pytest.raises(UnsupportedModelError, match="nothing in it would spike"):
        snncc.compile(model)


def test_dump_of_every_pass(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dumps"
    model = NETWORKS["plain"].model()
    hook = Hook(dump=folder)
    snncc.compile(model, calibration=inputs_of(model, 2), hook=hook, config=Config(timesteps=2))
    files = sorted(p.name for p in folder.iterdir())
    assert len(files) == len(hook.timings)
    assert files[0].startswith("01-ConstantsToInitializers")
    assert files[-1].endswith("-FoldThresholds.onnx")
    assert all(onnx.load(folder / f).graph.node for f in files)


def test_dump_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="choose another --dump-passes"):
        Hook(dump=tmp_path / "file").run((Nothing(),), graph(), Context(Config()))


def test_relative_error() -> None:
    one = np.array([1.0, -4.0], np.float32)
    assert relative_error(one, one) == 0.0
    assert relative_error(one * 1.01, one) == pytest.approx(0.01, rel=1e-4)
    assert relative_error(one[:1], one) == float("inf")
    assert relative_error(np.zeros(0), np.zeros(0)) == 0.0
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5
    assert not relative_error(np.array([np.nan]), one[:1]) < 1e-3

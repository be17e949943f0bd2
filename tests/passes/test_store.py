"""What a calibration holds beyond a limit is in files: the same values, and nothing stays behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import NETWORKS, compiled, inputs_of, parse

from snncc.errors import DataError
from snncc.passes import calibrate, store
from snncc.passes.store import Store
from snncc.runtime import buffers
from snncc.runtime.buffers import BufferPool

FOLDABLE = [name for name in NETWORKS if name != "batch_of_one"]
LINEAR_BOTTLENECK = """
    g (float[N,2,6,6] x, float[4,2,3,3] w_1, float[4] b_1, float[4,4,1,1] w_2, float[4] b_2, float[4,4,1,1] w_3,
       float[4] b_3, float[4,4,1,1] w_4, float[3,4,1,1] w_5) => (float[N,3,6,6] y) {
        c1 = Conv <pads = [1,1,1,1]> (x, w_1, b_1) r1 = Relu (c1) c2 = Conv (r1, w_2, b_2) s1 = Add (r1, c2)
        c3 = Conv (s1, w_3, b_3) r2 = Relu (c3) c4 = Conv (s1, w_4) s2 = Add (r2, c4) r3 = Relu (s2)
        y = Conv (r3, w_5)
    }"""
"""A sum that no activation follows: it is encoded, and read twice."""


@pytest.mark.parametrize("name", FOLDABLE)
def test_a_calibration_in_files_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS[name].model()
    feeds = inputs_of(model, 20)
    wanted = compiled(model, data=feeds, timesteps=5, batch_size=7).model.SerializeToString(deterministic=True)
    made: list[int] = []
    in_file = Store._in_file

    def counting(self: Store, size: int) -> np.ndarray:
        made.append(size)
        return in_file(self, size)

    monkeypatch.setattr(calibrate, "available_memory", lambda: 0)
    monkeypatch.setattr(Store, "_in_file", counting)
    found = compiled(model, data=feeds, timesteps=5, batch_size=7).model.SerializeToString(deterministic=True)
    assert made
    assert found == wanted


@pytest.mark.parametrize("name", FOLDABLE)
def test_arrays_of_the_caller_are_not_used_again(name: str) -> None:
    """They look like those of a store: each shows the memory of a flat one."""
    model = NETWORKS[name].model()
    feeds = {key: value.reshape(-1).copy().reshape(value.shape) for key, value in inputs_of(model, 20).items()}
    before = {key: value.copy() for key, value in feeds.items()}
    compiled(model, data=feeds, timesteps=3, batch_size=20)
    for key, value in feeds.items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", [*FOLDABLE, "linear_bottleneck"])
@pytest.mark.parametrize(
    "options", [{"timesteps": 1}, {"timesteps": 5, "neuron": "burst"}, {"weights": "int8", "max_burst": 200}], ids=str
)
def test_nobody_looks_at_what_was_given_back(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NETWORKS[name].model() if name in NETWORKS else parse(LINEAR_BOTTLENECK)
    feeds = inputs_of(model, 70)
    wanted = compiled(model, data=feeds, **options).model.SerializeToString(deterministic=True)
    given, give = [], BufferPool.give

    def spoiling(self: BufferPool, array: np.ndarray) -> None:
        owner = store._owner(array)
        if isinstance(owner, buffers._Buffer):
            assert not any(owner is free for free in self._free)
            owner[:] = np.nan
            given.append(owner.nbytes)
        give(self, array)

    monkeypatch.setattr(BufferPool, "give", spoiling)
    assert compiled(model, data=feeds, **options).model.SerializeToString(deterministic=True) == wanted
    assert given


def test_a_pool_takes_only_its_own_arrays() -> None:
    pool, mine = BufferPool(), np.zeros(100, np.float32)
    pool.give(mine.reshape(10, 10))
    pool.give(np.zeros(0, np.float32))
    assert not pool._free
    taken = pool.take_as((3, 5), np.int16)
    assert type(taken) is np.ndarray
    pool.give(taken[1:, ::2])
    assert len(pool._free) == 1


def test_what_is_let_go_makes_room() -> None:
    held = Store(1000)
    first = held.keep(np.arange(100, dtype=np.float32))
    in_memory = held.empty((100,), np.float32)
    in_file = held.empty((200,), np.float32)
    assert in_memory.base is None
    assert in_file.base is not None
    in_file[:] = 3
    copy = held.keep(np.arange(200.0))
    np.testing.assert_array_equal(copy, np.arange(200.0))
    assert held.keep(copy) is copy
    assert held.keep(first) is first
    del in_memory, first
    gc.collect()
    assert held.empty((200,), np.float32).base is None


@pytest.mark.parametrize("limit", [None, 1 << 20])
def test_arrays_that_wait_end_with_the_store(limit: int | None) -> None:
    gc.disable()
    try:
        held = Store(limit)
        held.give(held.take((100,)))
        waits = weakref.ref(held._free[0])
        del held
        assert waits() is None
    finally:
        gc.enable()


def test_files_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(store.tempfile, "tempdir", None)
    store._folder.cache_clear()
    try:
        array = Store(0).empty((10,), np.float32)
        array[:] = 1
        assert not list(tmp_path.iterdir())
    finally:
        store._folder.cache_clear()


def test_a_full_disk_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match="set TMPDIR to a folder on a larger disk"):
        Store(0).empty((10,), np.float32)


BOUNDED = """
import resource, sys
import numpy as np
from small_networks import compiled, parse
model = parse('''g (float[N,2,32,32] x, float[32,2,3,3] w_1, float[32,32,3,3] w_2, float[8,32,3,3] w_3)
    => (float[N,8,32,32] y) {
    c1 = Conv <pads = [1,1,1,1]> (x, w_1) r1 = Relu (c1) c2 = Conv <pads = [1,1,1,1]> (r1, w_2) r2 = Relu (c2)
    c3 = Conv <pads = [1,1,1,1]> (r2, w_3) y = Relu (c3) }''')
x = np.random.default_rng(0).standard_normal((64, 2, 32, 32)).astype(np.float32)
compiled(model, data={'x': x[:2]}, timesteps=2)  # what is loaded and compiled once
limit = int(sys.argv[1]) << 20
used = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmData')) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
compiled(model, data={'x': x}, timesteps=64, batch_size=8)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't tell what a process holds")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A layer's currents over time are 537 MB; so much wouldn't fit, with what else is at the frontier."""
    script = tmp_path / "bounded.py"
    script.write_text(BOUNDED)
    helpers = Path(__file__).parents[1] / "helpers"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(helpers)!r}); exec(open({str(script)!r}).read())",
    ]
    done = subprocess.run([*command, "500"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

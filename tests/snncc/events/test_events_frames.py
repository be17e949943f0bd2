import numpy as np
import pytest
from event_files import EVENTS, columns

from snncc.data import InputSpec, load
from snncc.errors import DataError, UsageError
from snncc.events import Events, Slicing, count_frames, time_surface, voxel_grid
from snncc.events.frames import FrameCollector, FrameOptions


def recording(size: int = 34, first: int = 0) -> Events:
    made = columns(EVENTS[first:])
    return Events(made["x"], made["y"], made["t"].astype(np.int64), made["p"].astype(bool), size, size, "a")


def test_representations() -> None:
    events, cut = recording(), Slicing(bins=3)
    for name, expected in {
        "counts": count_frames(events, cut),
        "voxel": voxel_grid(events, 3),
        "voxel-signed": voxel_grid(events, 3, signed=True),
        "surface": time_surface(events, cut, tau=7000),
    }.items():
        np.testing.assert_array_equal(FrameOptions(cut, name, tau=7000).tensor(events), expected)


@pytest.mark.parametrize(
    ("layout", "shape", "labels"),
    [
        ("sequence", (2, 3, 2, 34, 34), [4, 1]),
        ("samples", (6, 2, 34, 34), [4, 4, 4, 1, 1, 1]),
        ("channels", (2, 6, 34, 34), [4, 1]),
    ],
)
def test_layouts(layout: str, shape: tuple[int, ...], labels: list[int]) -> None:
    options = FrameOptions(Slicing(bins=3), layout=layout)
    collector = FrameCollector(options)
    tensors = [options.tensor(recording(first=first)) for first in (0, 2)]
    for tensor, label in zip(tensors, (4, 1), strict=True):
        collector.add(tensor, label, "a")
    arrays = collector.arrays()
    assert arrays["events"].shape == shape
    assert arrays["label"].tolist() == labels
    np.testing.assert_array_equal(arrays["events"].reshape(-1), np.concatenate(tensors).reshape(-1))


def test_what_is_made_can_be_loaded(tmp_path) -> None:
    options = FrameOptions(Slicing(bins=3), layout="samples")
    collector = FrameCollector(options)
    collector.add(options.tensor(recording()), 7, "a")
    np.savez(tmp_path / "a.npz", **collector.arrays())
    data = load(tmp_path / "a.npz", [InputSpec("any", np.dtype("f4"), ("N", 2, 34, 34))])
    assert (len(data), data.labels.tolist()) == (3, [7, 7, 7])


def test_without_labels_there_are_none() -> None:
    options = FrameOptions(Slicing(bins=1))
    collector = FrameCollector(options)
    collector.add(options.tensor(recording()), None, "a")
    assert set(collector.arrays()) == {"events"}


def test_what_doesnt_go_together() -> None:
    for layout in ("sequence", "samples"):
        options = FrameOptions(Slicing(count=2), layout=layout)
        collector = FrameCollector(options)
        collector.add(options.tensor(recording()), 0, "first")
        with pytest.raises(DataError, match=r"second is of a sensor of 40x40 pixels, first of one of 34x34.*--sensor"):
            collector.add(options.tensor(recording(40)), 0, "second")
        other = options.tensor(recording(first=3))
        if layout == "samples":
            collector.add(other, 0, "second")
            continue
        with pytest.raises(DataError, match=r"second gives 2 slices, first 3: .* need --bins, or --layout samples"):
            collector.add(other, 0, "second")
    with pytest.raises(DataError, match="no recording gave a sample"):
        FrameCollector(options).arrays()


def test_options_that_dont_fit() -> None:
    with pytest.raises(UsageError, match="representation is 'x': it must be one of counts"):
        FrameOptions(Slicing(bins=1), "x")
    with pytest.raises(UsageError, match="layout is 'x'"):
        FrameOptions(Slicing(bins=1), layout="x")
    with pytest.raises(UsageError, match="a voxel grid covers the whole recording"):
        FrameOptions(Slicing(window=5), "voxel")

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from event_files import random_events
from PIL import Image

from snncc.errors import DataError, UsageError
from snncc.events import Events, Slicing
from snncc.events.plot import check_plot, plot, render


def recording() -> Events:
    t, x, y, p = (np.array(c) for c in zip(*random_events(2000, 40, 30, 100_000), strict=True))
    return Events(x.astype(np.uint16), y.astype(np.uint16), t.astype(np.int64), p.astype(bool), 40, 30, "dir/a.bin")


def drawn(suffix: str, slicing: Slicing | None = None) -> bytes:
    stream = io.BytesIO()
    plot(recording(), stream, suffix, slicing)
    return stream.getvalue()


def test_colours() -> None:
    frame = np.zeros((2, 1, 3), np.float32)
    frame[0, 0, 1] = frame[1, 0, 2] = 5
    white, off, on = render(frame, 5)[0].astype(int)
    assert white.tolist() == [255, 255, 255]
    assert off[2] > off[0], "OFF is blue"
    assert on[0] > on[2], "ON is red"


def test_an_animation_has_a_frame_per_slice() -> None:
    image = Image.open(io.BytesIO(drawn(".gif", Slicing(window=10_000))))
    assert image.format == "GIF"
    assert image.n_frames == recording().duration // 10_000
    assert image.size == (40 * 8, 30 * 8)
    assert Image.open(io.BytesIO(drawn(".gif"))).n_frames == 30


def test_too_long_an_animation() -> None:
    with pytest.raises(UsageError, match=r"animation of 1,000 frames is too long \(at most 600\)"):
        drawn(".gif", Slicing(bins=1000))
    with pytest.raises(DataError, match="less than a window"):
        drawn(".gif", Slicing(window=10**9))


def test_pictures() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra plot")
    image = Image.open(io.BytesIO(drawn(".png")))
    assert image.format == "PNG"
    assert np.asarray(image.convert("RGB")).std() > 10, "an empty page"
    svg = drawn(".svg", Slicing(bins=50)).decode()
    assert "a.bin: 2,000 events, 40x30 pixels" in svg
    assert svg.count("<image") == 12, "of 50 frames 12 are shown"
    assert svg == drawn(".svg", Slicing(bins=50)).decode()


def test_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'a\.pdf' must end in \.png, \.svg or \.gif"):
        check_plot(Path("a.pdf"))
    check_plot(Path("a.gif"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_plot(Path("a.gif"))
    with pytest.raises(UsageError, match=r"needs matplotlib, which is not installed.*snncc\[plot\].*or choose \.gif"):
        check_plot(Path("a.png"))

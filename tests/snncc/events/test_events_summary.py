import json

import numpy as np
from event_files import random_events

from snncc.events import Events
from snncc.events.summary import hot_pixels, rate_over_time, summarise


def recording(count: int = 3000, hot: int = 0) -> Events:
    t, x, y, p = (np.array(c) for c in zip(*random_events(count, 20, 10, 1_000_000), strict=True))
    x[:hot], y[:hot] = 3, 7
    return Events(x.astype(np.uint16), y.astype(np.uint16), t.astype(np.int64), p.astype(bool), 20, 10, "a.bin")


def test_facts() -> None:
    events = recording()
    summary = summarise(events)
    assert (summary.events, summary.width, summary.height, summary.hot) == (3000, 20, 10, ())
    assert summary.rate == 3000 / (summary.duration / 1e6)
    assert summary.on == np.mean(events.p)
    assert summary.active == len(set(zip(events.x.tolist(), events.y.tolist(), strict=True)))
    assert json.loads(json.dumps(summary.to_dict()))["sensor"] == {"width": 20, "height": 10, "from": "given"}


def test_a_hot_pixel_is_found() -> None:
    events = recording(hot=500)
    at = int(((events.x == 3) & (events.y == 7)).sum())
    assert hot_pixels(events) == ((3, 7, at),)


def test_few_events_make_no_hot_pixel() -> None:
    sparse = Events(
        np.array([0] * 4 + list(range(200)), np.uint16),
        np.zeros(204, np.uint16),
        np.arange(204),
        np.ones(204, bool),
        200,
        1,
    )
    assert hot_pixels(sparse) == ()


def test_rates_sum_up_to_all_events() -> None:
    events = recording()
    edges, rate = rate_over_time(events, 40)
    per_bin = rate * (events.duration / 40 / 1e6)
    np.testing.assert_allclose(per_bin.sum(axis=1), [(~events.p).sum(), events.p.sum()], rtol=1e-12)
    first = (events.t - events.start < events.duration / 40) & events.p
    np.testing.assert_allclose(per_bin[1, 0], first.sum(), rtol=1e-12)
    assert (edges[0], edges[-1], len(edges)) == (0, events.duration / 1e6, 41)

"""What a part of a network keeps from one timestep to the next."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Carried = dict[str, NDArray[Any]]
"""By name, arrays [N, ...]. Empty before the first timestep; whoever is given it changes it.

Where None is given instead, all timesteps are there at once, and nothing need be kept.
"""

"""What a part of a network keeps from one timestep to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Carried = dict[str, NDArray[np.float32]]
"""By name, arrays [N, ...]. Empty before the first timestep; whoever is given it changes it.

Where None is given instead, all timesteps are there at once, and nothing need be kept.
"""

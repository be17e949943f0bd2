"""What the node of a layer of neurons says, in a network without time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from snncc.graph import constant


@dataclass(frozen=True)
class NeuronParameters:
    """The parameters of one layer.

    Attributes:
        op: "BurstIF", "SignedBurst", "SignedBurstRelu" or "SignedBurstClip".
        theta: effective threshold θe, float32, broadcastable to [N, ...].
        v_init: v0.
        max_burst: ψ.
        upper: bound of what is encoded, infinity where there is none.
    """

    op: str
    theta: NDArray[np.float32]
    v_init: np.float32
    max_burst: int
    upper: np.float32

    @classmethod
    def of(cls, node: gs.Node) -> NeuronParameters:
        """Read them.

        Raises:
            ValueError: threshold or initial potential is no constant.
        """
        theta, v_init = constant(node.inputs[1]), constant(node.inputs[2])
        if theta is None or v_init is None:
            raise ValueError(f"node '{node.name}' has no constant threshold and initial potential")
        effective = theta.astype(np.float32) * np.float32(node.attrs["threshold_ratio"])
        upper = np.float32(node.attrs.get("upper", np.inf))
        return cls(node.op, effective, np.float32(v_init), int(node.attrs["max_burst"]), upper)

"""Networks of the speed benchmark stepped through time in PyTorch: by a plain loop, and as SpikingJelly converts them.

Both fire at most one spike per neuron and timestep, so they do no more work per step than a network with bursts.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from timing import Work
from torch import Tensor, nn

Images = NDArray[np.float32]
Maker = Callable[[Images], Work]


class IntegrateAndFire(nn.Module):
    """A neuron with reset by subtraction, whose threshold is the largest activation that it has seen.

    Attributes:
        v_threshold: that threshold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.v_threshold, self._v_mem, self._learns = 0.0, torch.zeros(()), True

    def forward(self, current: Tensor) -> Tensor:
        """Take the activations of the calibration; afterwards the current of a timestep, and return spikes."""
        if self._learns:
            result = current.relu()
            self.v_threshold = max(self.v_threshold, float(result.max()))
            return result
        v_mem = self._v_mem + current
        spikes: Tensor = (v_mem >= self.v_threshold).to(current.dtype) * self.v_threshold
        self._v_mem = v_mem - spikes
        return spikes

    def reset(self) -> None:
        """Begin with the next samples."""
        self._learns, self._v_mem = False, torch.full((), 0.5 * self.v_threshold)


def runners(network: nn.Module, calibration: Images, timesteps: int) -> dict[str, Maker]:
    """Return what runs a network over T timesteps, by its name; SpikingJelly's only where that is installed."""
    found = {"torch": _stepped(_plain(network, calibration), _reset, timesteps)}
    try:
        from spikingjelly.activation_based import ann2snn, functional
    except ImportError:
        return found
    data = [(torch.from_numpy(calibration), torch.zeros(len(calibration)))]
    recipe = ann2snn.RateCodingRecipe(dataloader=data, mode="Max")
    converted = ann2snn.Converter(recipe).convert(copy.deepcopy(network))
    return found | {"spikingjelly": _stepped(converted, functional.reset_net, timesteps)}


def _stepped(network: nn.Module, reset: Callable[[nn.Module], object], timesteps: int) -> Maker:
    def maker(batch: Images) -> Work:
        images = torch.from_numpy(batch)

        def work() -> Tensor:
            reset(network)
            with torch.inference_mode():
                total: Tensor = network(images)
                for _ in range(timesteps - 1):
                    total = total + network(images)
            mean: Tensor = total / timesteps
            return mean

        return work

    return maker


def _plain(network: nn.Module, calibration: Images) -> nn.Module:
    """Return a copy with neurons for activations and batch normalisation folded into the convolutions."""
    spiking = copy.deepcopy(network).eval()
    for parent in list(spiking.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, IntegrateAndFire())
        if isinstance(parent, nn.Sequential):
            _fold(parent)
    with torch.inference_mode():
        spiking(torch.from_numpy(calibration))
    return spiking


def _fold(layers: nn.Sequential) -> None:
    for index, (layer, following) in enumerate(itertools.pairwise(list(layers))):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            layers[index] = nn.utils.fuse_conv_bn_eval(layer, following)
            layers[index + 1] = nn.Identity()


def _neurons(network: nn.Module) -> Iterator[IntegrateAndFire]:
    return (module for module in network.modules() if isinstance(module, IntegrateAndFire))


def _reset(network: nn.Module) -> None:
    for neuron in _neurons(network):
        neuron.reset()

"""Random weights with which a network stays alive: no layer dies out or explodes, and the outputs vary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

SHIFT = 1.0
"""Mean of what BatchNorm puts out, in standard deviations. Around 0, deep networks with random weights are chaotic: 1 %
of noise after each layer becomes 40 % at the output of MobileNetV2 or ShuffleNetV2, where no trained network is, and no
conversion could converge. At 1 it becomes 1 to 6 %, and the outputs still depend on the input."""


def enliven(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Scale every weighted layer to outputs of unit variance, then take the statistics of every BatchNorm, in place.

    The scaling is that of LSUV (Mishkin and Matas, 2016), in one pass: a layer's output is corrected before the next
    one sees it. Biases and the affine parts of BatchNorm get random values, so that no channel is like another.

    Args:
        network: left in evaluation mode.
        inputs: as many samples as the statistics should rest on.

    Raises:
        ValueError: an output doesn't depend on the inputs all the same.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, NORMS):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, SHIFT, 0.2)
    hooks = [module.register_forward_hook(_scale) for module in network.modules() if isinstance(module, LAYERS)]
    with torch.no_grad():
        network(*inputs)
        for hook in hooks:
            hook.remove()
        _take_statistics(network, inputs)
        _check(network(*inputs))


def _scale(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    bias = layer.bias
    axis = -1 if isinstance(layer, nn.Linear) else 1
    shape = [1] * output.ndim
    shape[axis] = -1
    if bias is not None:
        output = output - bias.view(shape)
    if float(output.std()) < 1e-6:  # a head that is initialised to zeros
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(bias) if bias is not None else None
        output = layer.forward(*inputs)
    factor = 1 / output.std()
    layer.weight.mul_(factor)
    output = output * factor
    if bias is None:
        return output
    nn.init.normal_(bias, 0.0, 0.2)
    return output + bias.view(shape)


def _take_statistics(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches: there is one
        norm.train()
    network(*inputs)
    network.eval()


def _check(outputs: Tensor | tuple[Tensor, ...]) -> None:
    for output in (outputs,) if isinstance(outputs, Tensor) else outputs:
        if not torch.isfinite(output).all():
            raise ValueError("an output holds NaN or Inf")
        variation = float((output - output.mean(dim=0)).norm() / output.norm())
        if variation < 0.01:
            raise ValueError(f"an output hardly depends on the input (variation {variation:.2g})")

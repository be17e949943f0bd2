"""A ResNet-18 for images of 32x32 pixels as an ONNX file: random weights, of which every layer passes something on."""

from __future__ import annotations

from pathlib import Path


def export(path: Path) -> None:
    """Write the network: 3x3 stem without pooling, as it is used for CIFAR; needs torch and onnxscript.

    The weights are drawn so that currents keep their variance (He et al. 2015), and half of each layer is active.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, wide: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
            self.side: nn.Module = nn.Identity()
            if stride > 1 or wide != out:
                self.side = nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.side(x))

    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    wide = 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(wide, out, stride), Block(out, out, 1)]
        wide = out
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    with torch.no_grad():  # the statistics of batch normalisation, so that sums of two branches don't grow
        model.train()
        for _ in range(20):
            model(torch.randn(16, 3, 32, 32))
    example, dynamic = (torch.randn(2, 3, 32, 32),), {"input": {0: "N"}, "output": {0: "N"}}
    torch.onnx.export(
        model.eval(), example, str(path), input_names=["input"], output_names=["output"], dynamic_axes=dynamic,
        dynamo=False, opset_version=17,
    )  # fmt: skip

"""Architectures that torchvision doesn't have, in the usual form and small."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, act: nn.Module | None = None):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), act or nn.ReLU())


class UNet(nn.Module):
    """Encoder and decoder with skips (Ronneberger et al. 2015), three levels: [N, 3, H, W] to [N, 2, H, W]."""

    def __init__(self, width: int = 16):
        super().__init__()
        w = width
        self.down1 = nn.Sequential(ConvBlock(3, w), ConvBlock(w, w))
        self.down2 = nn.Sequential(ConvBlock(w, 2 * w), ConvBlock(2 * w, 2 * w))
        self.bottom = nn.Sequential(ConvBlock(2 * w, 4 * w), ConvBlock(4 * w, 4 * w))
        self.open2 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2)
        self.up2 = nn.Sequential(ConvBlock(4 * w, 2 * w), ConvBlock(2 * w, 2 * w))
        self.open1 = nn.ConvTranspose2d(2 * w, w, 2, 2)
        self.up1 = nn.Sequential(ConvBlock(2 * w, w), ConvBlock(w, w))
        self.head = nn.Conv2d(w, 2, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        one = self.down1(image)
        two = self.down2(self.pool(one))
        up = self.up2(torch.cat([two, self.open2(self.bottom(self.pool(two)))], 1))
        return self.head(self.up1(torch.cat([one, self.open1(up)], 1)))


class Split(nn.Module):
    """A YOLO block: half of the channels pass by residual bottlenecks, every stage is concatenated."""

    def __init__(self, inputs: int, outputs: int, count: int = 1):
        super().__init__()
        half = outputs // 2
        self.enter = ConvBlock(inputs, outputs, 1, act=nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvBlock(half, half, act=nn.SiLU()), ConvBlock(half, half, act=nn.SiLU()))
            for _ in range(count)
        )
        self.leave = ConvBlock(half * (2 + count), outputs, 1, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """A YOLO-style detector: SiLU, pyramid pooling, top-down path, and boxes decoded on two grids.

    Image [N, 3, 64, 64] to boxes [N, 240, 4 + 1 + classes]: 3 anchors each on an 8×8 and a 4×4 grid.
    """

    def __init__(self, width: int = 16, classes: int = 5):
        super().__init__()
        w, self.values = width, 5 + classes
        self.stem = nn.Sequential(ConvBlock(3, w, 3, 2, nn.SiLU()), ConvBlock(w, 2 * w, 3, 2, nn.SiLU()))
        self.stage = nn.Sequential(Split(2 * w, 2 * w), ConvBlock(2 * w, 4 * w, 3, 2, nn.SiLU()), Split(4 * w, 4 * w))
        self.deep = nn.Sequential(ConvBlock(4 * w, 8 * w, 3, 2, nn.SiLU()), Split(8 * w, 8 * w))
        self.enter = ConvBlock(8 * w, 4 * w, 1, act=nn.SiLU())
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvBlock(16 * w, 4 * w, 1, act=nn.SiLU())
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge = Split(8 * w, 4 * w)
        self.heads = nn.ModuleList(nn.Conv2d(4 * w, 3 * self.values, 1) for _ in range(2))
        anchors = torch.tensor([[[8.0, 8.0], [16.0, 8.0], [8.0, 16.0]], [[24.0, 24.0], [48.0, 24.0], [24.0, 48.0]]])
        self.register_buffer("anchors", anchors.view(2, 1, 3, 1, 1, 2))

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        fine = self.stage(self.stem(image))
        coarse = self.enter(self.deep(fine))
        pools = [coarse]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        coarse = self.leave(torch.cat(pools, 1))
        fine = self.merge(torch.cat([self.larger(coarse), fine], 1))
        found = [self._decode(head(x), i) for i, (head, x) in enumerate(zip(self.heads, (fine, coarse), strict=True))]
        return torch.cat(found, 1)

    def _decode(self, raw: Tensor, level: int) -> Tensor:
        size = raw.shape[-1]
        raw = raw.view(-1, 3, self.values, size, size).permute(0, 1, 3, 4, 2).sigmoid()
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        grid = torch.stack([columns, rows], -1).view(1, 1, size, size, 2).float()
        centre = (raw[..., :2] * 2 - 0.5 + grid) * (64 / size)
        extent = (raw[..., 2:4] * 2) ** 2 * self.anchors[level]
        return torch.cat([centre, extent, raw[..., 4:]], -1).reshape(-1, 3 * size * size, self.values)


class TextTransformer(nn.Module):
    """An encoder over token ids: ids [N, 12] to scores [N, 4]."""

    def __init__(self, words: int = 100, length: int = 12, width: int = 32):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """Run the network."""
        return self.head(self.norm(self.encoder(self.words(ids) + self.places)).mean(1))


class Recurrent(nn.Module):
    """Two LSTM layers over features [N, 12, 8], a ReLU and a dense layer on the last state: scores [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 24, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, features: Tensor) -> Tensor:
        """Run the network."""
        states, _ = self.lstm(features)
        return self.head(torch.relu(self.hidden(states[:, -1])))

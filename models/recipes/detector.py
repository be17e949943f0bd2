"""The detector of the zoo and its loss: YOLOv2's grid of anchors on a residual backbone.

The network takes raw pixels (float32 ``[N, 1, 128, 128]``, values 0 to 255) and returns ``[N, 75, 8, 8]``: per cell of
16x16 pixels and per anchor the numbers tx, ty, tw, th, objectness and ten class scores (Redmon and Farhadi 2016,
section 2). It has no sigmoid and no exponential: `snncc.tasks.decoders` turns the grid into boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snncc.models.recipes.networks import BasicBlock, Normalise, named

CLASSES = 10
STRIDE = 16
# Width and height in pixels: medians of five clusters of boxes by overlap, as in section 2 of the paper, of 1,500
# scenes made of the calibration images.
ANCHORS = ((28.0, 15.0), (17.0, 26.0), (25.0, 37.0), (46.0, 27.0), (39.0, 49.0))
MATCH = 0.5  # overlap with a box from which an anchor answers for it, beside the best one
IGNORE = 0.6  # overlap from which a box that nobody asked for is no false alarm
WEIGHTS = {"box": 3.0, "object": 1.0, "class": 1.0}


class FashionDetector(nn.Module):
    """Six residual blocks of 24, 48 and 72 channels at 32x32, 16x16 and 8x8 behind a strided stem; ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = named({"conv": nn.Conv2d(1, 16, 3, 2, padding=1, bias=False), "bn": nn.BatchNorm2d(16)})
        self.relu = nn.ReLU(inplace=True)
        self.stage1 = nn.Sequential(BasicBlock(16, 24, 2), BasicBlock(24, 24, 1))
        self.stage2 = nn.Sequential(BasicBlock(24, 48, 2), BasicBlock(48, 48, 1))
        self.stage3 = nn.Sequential(BasicBlock(48, 72, 2), BasicBlock(72, 72, 1))
        self.head = nn.Conv2d(72, len(ANCHORS) * (5 + CLASSES), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Raw pixels to the grid of predictions."""
        features = self.stage3(self.stage2(self.stage1(self.relu(self.stem(self.normalise(image))))))
        grid: Tensor = self.head(features)
        return grid


def decode(grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the grid into boxes.

    Args:
        grid: float32 ``[N, A * (5 + C), G, G]``.

    Returns:
        Centre x, centre y, width, height in pixels ``[N, A, G, G, 4]``; logits of objectness ``[N, A, G, G]`` and of
        the classes ``[N, A, G, G, C]``.
    """
    count, _, rows, columns = grid.shape
    parts = grid.view(count, len(ANCHORS), 5 + CLASSES, rows, columns).permute(0, 1, 3, 4, 2)
    anchors = torch.tensor(ANCHORS)[None, :, None, None, :]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = (torch.sigmoid(parts[..., :2]) + torch.stack([x, y], dim=-1)) * STRIDE
    size = anchors * torch.exp(parts[..., 2:4].clamp(-4.0, 4.0))
    return torch.cat([centre, size], dim=-1), parts[..., 4], parts[..., 5:]


def overlap(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU (Rezatofighi et al. 2019) of pairs of boxes, centre and size ``[..., 4]``."""
    low = torch.maximum(left[..., :2] - left[..., 2:] / 2, right[..., :2] - right[..., 2:] / 2)
    high = torch.minimum(left[..., :2] + left[..., 2:] / 2, right[..., :2] + right[..., 2:] / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    union = left[..., 2:].prod(-1) + right[..., 2:].prod(-1) - shared
    outer_low = torch.minimum(left[..., :2] - left[..., 2:] / 2, right[..., :2] - right[..., 2:] / 2)
    outer_high = torch.maximum(left[..., :2] + left[..., 2:] / 2, right[..., :2] + right[..., 2:] / 2)
    outer = (outer_high - outer_low).prod(-1)
    iou = shared / union
    return iou, iou - (outer - union) / outer


def loss(grid: Tensor, boxes: Tensor, classes: Tensor, owner: Tensor) -> Tensor:
    """Return the loss of a batch.

    Args:
        grid: what the network says.
        boxes: centre x, centre y, width, height of every item of the batch, ``[K, 4]``.
        classes: int64 ``[K]``.
        owner: the scene that each item is on, int64 ``[K]``.

    Returns:
        A scalar: generalised IoU, cross-entropy of objectness (whose target is the overlap that was reached, as in
        YOLOv2) and of the class, per item.
    """
    predicted, objectness, scores = decode(grid)
    scene, anchor, row, column, item = _assign(boxes, owner)
    target = torch.zeros_like(objectness)
    weight = 1.0 - _well_placed(predicted.detach(), boxes, owner).float()
    iou, giou = overlap(predicted[scene, anchor, row, column], boxes[item])
    target[scene, anchor, row, column] = iou.detach().clamp(0.0, 1.0)
    weight[scene, anchor, row, column] = 1.0
    box_loss = (1.0 - giou).sum()
    object_loss = nn.functional.binary_cross_entropy_with_logits(objectness, target, weight, reduction="sum")
    class_loss = nn.functional.cross_entropy(scores[scene, anchor, row, column], classes[item], reduction="sum")
    total = WEIGHTS["box"] * box_loss + WEIGHTS["object"] * object_loss + WEIGHTS["class"] * class_loss
    return total / max(len(item), 1)


def _assign(boxes: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pair each item with the anchors of the cell that its centre is in: the one of the best shape, and good others.

    Returns:
        Scene, anchor, row, column and item of each pair, int64 ``[P]``.
    """
    anchors = torch.tensor(ANCHORS)
    shared = torch.minimum(boxes[:, None, 2:], anchors).prod(-1)
    iou = shared / (boxes[:, 2:].prod(-1)[:, None] + anchors.prod(-1) - shared)
    chosen = iou >= MATCH
    chosen[torch.arange(len(boxes)), iou.argmax(1)] = True
    item, anchor = chosen.nonzero(as_tuple=True)
    cell = (boxes[item, :2] / STRIDE).long()
    return owner[item], anchor, cell[:, 1], cell[:, 0], item


def _well_placed(predicted: Tensor, boxes: Tensor, owner: Tensor) -> Tensor:
    """Return which predictions overlap some item of their scene by more than `IGNORE`, bool ``[N, A, G, G]``."""
    items = [boxes[owner == scene] for scene in range(len(predicted))]
    # A box of no size overlaps nothing, so it fills the rows of scenes with fewer items.
    padded = nn.utils.rnn.pad_sequence(items, batch_first=True)
    return (overlap(predicted[:, :, :, :, None], padded[:, None, None, None])[0] > IGNORE).any(-1)

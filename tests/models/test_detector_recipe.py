"""The detector's recipe: its grid against the decoder, its loss, and the batches that it composes."""

from __future__ import annotations

import numpy as np
import pytest

from snncc import models
from snncc.tasks.boxes import overlap
from snncc.tasks.yolo import yolov2

torch = pytest.importorskip("torch")

from snncc.models.recipes import detector, train_detector  # noqa: E402

ANCHORS = {"anchors": detector.ANCHORS, "stride": detector.STRIDE}


@pytest.fixture
def grid() -> torch.Tensor:
    return torch.randn((2, 75, 8, 8), generator=torch.Generator().manual_seed(0))


def corners(boxes: torch.Tensor) -> np.ndarray:
    """Centre and size to corners."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1).numpy().astype(float)


def test_training_and_decoder_read_the_grid_alike(grid):
    boxes, objectness, scores = detector.decode(grid)
    said = torch.sigmoid(objectness)[..., None] * torch.softmax(scores, -1)
    for sample in range(2):
        found, confidence, classes = yolov2({"grid": grid[sample].numpy()}, (128, 128), ANCHORS)
        kept = (said[sample] > 1e-3).numpy()
        where = np.argwhere(kept)
        assert len(where) == len(found) > 1000
        # The recipe computes in float32.
        np.testing.assert_allclose(confidence, said[sample].numpy()[kept], rtol=1e-4)
        np.testing.assert_allclose(found, corners(boxes[sample])[tuple(where[:, :3].T)], atol=1e-3)
        np.testing.assert_array_equal(classes, where[:, 3])


def test_overlap_is_that_of_the_evaluation():
    centre = torch.rand((40, 2), generator=torch.Generator().manual_seed(1)) * 60
    boxes = torch.cat([centre, 5 + centre.flip(0) / 2], dim=1)
    iou, giou = detector.overlap(boxes[:, None], boxes[None])
    np.testing.assert_allclose(iou.numpy(), overlap(corners(boxes), corners(boxes)), atol=1e-5)
    assert (giou <= iou + 1e-6).all()
    apart = detector.overlap(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[8.0, 0, 2, 2]]))
    # A hull of 10x2 pixels of which two boxes of 2x2 leave 12.
    assert float(apart[1]) == pytest.approx(-12 / 20)


def test_items_go_to_the_anchors_of_their_shape():
    boxes = torch.tensor([[20.0, 40.0, 28.0, 15.0], [100.0, 5.0, 39.0, 49.0]])
    scene, anchor, row, column, item = detector._assign(boxes, torch.tensor([0, 1]))
    pairs = set(zip(*(part.tolist() for part in (scene, anchor, row, column, item)), strict=True))
    assert {(0, 0, 2, 1, 0), (1, 4, 0, 6, 1)} <= pairs
    assert all((s, r, c) == ((0, 2, 1) if i == 0 else (1, 0, 6)) for s, _, r, c, i in pairs)


def test_the_loss_falls_to_a_grid_that_is_right():
    """Gradient descent on the grid itself ends where the decoder finds both items and nothing else."""
    grid = torch.zeros((1, 75, 8, 8), requires_grad=True)
    boxes = torch.tensor([[30.0, 40.0, 30.0, 20.0], [90.0, 100.0, 25.0, 50.0]])
    optimiser = torch.optim.Adam([grid], lr=0.2)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = detector.loss(grid, boxes, torch.tensor([3, 7]), torch.tensor([0, 0]))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
    found, scores, classes = yolov2({"grid": grid[0].detach().numpy()}, (128, 128), ANCHORS)
    sure = scores > 0.5
    assert set(classes[sure].tolist()) == {3, 7}
    shared = overlap(found[sure], corners(boxes))
    assert shared[np.arange(len(shared)), (classes[sure] == 7).astype(int)].min() > 0.9


def test_a_batch_holds_scenes_and_their_mirror_images():
    images, labels = models.calibration_set()
    made = train_detector.batch(images[:, 0], labels, 1, 0)
    half = train_detector.BATCH // 2
    assert made.images.shape == (2 * half, 1, 128, 128)
    torch.testing.assert_close(made.images[half:], made.images[:half].flip(3))
    count = len(made.boxes) // 2
    assert made.owner.tolist() == made.owner[:count].tolist() + (made.owner[:count] + half).tolist()
    assert made.classes[:count].tolist() == made.classes[count:].tolist()
    # What a box shows is mirrored with it: pixels of the last item's box, which nothing hides.
    x, y, width, height = (
        int(v) for v in (made.boxes[-1, :2] - made.boxes[-1, 2:] / 2).tolist() + made.boxes[-1, 2:].tolist()
    )
    left = int(made.boxes[count - 1, 0] - made.boxes[count - 1, 2] / 2)
    mirrored = made.images[-1, 0, y : y + height, x : x + width]
    torch.testing.assert_close(mirrored.flip(1), made.images[half - 1, 0, y : y + height, left : left + width])
    other = train_detector.batch(images[:, 0], labels, 1, 1)
    assert not torch.equal(other.images[0], made.images[0])

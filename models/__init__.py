"""The model zoo: trained networks and the data that belongs to them, as files of the package.

Only the standard library and NumPy are needed here; PyTorch is needed for `snncc.models.recipes` alone, which made the
files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.errors import UsageError
from snncc.models import scenes

if TYPE_CHECKING:
    from snncc.models.recordings import Recordings

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]

_DATA_FILES = {
    "calibration": "fashion_mnist_calib.npz",
    "test": "fashion_mnist_test.npz",
    "events_calibration": "fashion_events_calib.npz",
    "events_test": "fashion_events_test.npz",
}
EVENTS = ("events_calibration", "events_test")
"""Data sets of recordings of an event camera, for networks whose task is ``events``."""

EVENT_FRAMES = 8
"""Frames that a recording is cut into for a network."""

SCENES = {"scenes": ("test", 500, 20171), "scenes_calibration": ("calibration", 256, 20172)}
"""Data sets for object detection: what they are composed of, how many scenes, and their seed."""


@dataclass(frozen=True)
class NetworkInfo:
    """What `zoo.json` records about a network.

    Attributes:
        name: name in the zoo; the file is ``networks/<name>.onnx``.
        summary: one line about the architecture.
        dataset: name of the data set it was trained on.
        accuracy: fraction of the 10,000 test images that ONNX Runtime classifies right; of an event network, of the
            1,000 bundled recordings, from the mean of their frames; of a detector, COCO's mean average precision on the
            500 scenes.
        parameters: number of trained parameters.
        macs: multiply-accumulate operations of convolutions and fully connected layers per image.
        opset: version of the standard ONNX operator set.
        licence: SPDX identifier of the network's licence.
        recipe: the command line that trained and exported it.
        epochs: passes over the 60,000 training images; 1 for a detector, which sees no scene twice.
        seed: seed of the initialisation, the order of images and the augmentation.
        torch: version of PyTorch that trained it.
        sha256: hexadecimal digest of the file.
        task: ``classification`` of the test images, ``events`` for that of recordings, or ``detection`` on the scenes.
    """

    name: str
    summary: str
    dataset: str
    accuracy: float
    parameters: int
    macs: int
    opset: int
    licence: str
    recipe: str
    epochs: int
    seed: int
    torch: str
    sha256: str
    task: str = "classification"


def names(task: str | None = "classification") -> list[str]:
    """Names of the networks for a task, sorted; None for all."""
    return sorted(name for name, network in _zoo().items() if task in (None, network.task))


def info(name: str) -> NetworkInfo:
    """The record of a network.

    Raises:
        UsageError: there is no network of this name.
    """
    return _zoo()[_known(name, names(None), "network")]


def path(name: str) -> Path:
    """The ONNX file of a network.

    Raises:
        UsageError: there is no network of this name.
    """
    return _folder() / "networks" / f"{_known(name, names(None), 'network')}.onnx"


def data_path(name: str) -> Path:
    """The file of a data set: ``calibration``, ``test``, ``events_calibration`` or ``events_test``.

    Returns:
        An ``.npz`` file with the arrays ``image`` (uint8 ``[N, 1, 28, 28]``) and ``label`` (uint8 ``[N]``), or with
        recordings, see `snncc.models.recordings`.

    Raises:
        UsageError: there is no data set of this name.
    """
    return _folder() / "data" / _DATA_FILES[_known(name, list(_DATA_FILES), "data set")]


def test_data(name: str) -> str:
    """The name of the data set that the recorded accuracy of a network can be measured on, or a sample of it.

    Raises:
        UsageError: there is no network of this name.
    """
    return {"events": "events_test", "detection": "scenes"}.get(info(name).task, "test")


def calibration_set() -> tuple[Images, Labels]:
    """1,024 training images of Fashion-MNIST, balanced over the classes.

    Returns:
        Raw pixels uint8 ``[1024, 1, 28, 28]`` and classes uint8 ``[1024]``.
    """
    return _load(data_path("calibration"))


def scene_set(name: str = "scenes") -> tuple[Images, dict[str, Any]]:
    """Scenes for object detection, composed of the bundled images on first use; see `snncc.models.scenes`.

    Args:
        name: ``scenes``, 500 scenes of test images, or ``scenes_calibration``, 256 of calibration images.

    Returns:
        Raw pixels uint8 ``[N, 1, 128, 128]`` and annotations in COCO's format; neither must be written to.

    Raises:
        UsageError: there are no scenes of this name.
    """
    return _composed(_known(name, list(SCENES), "set of scenes"))


@cache
def _composed(name: str) -> tuple[Images, dict[str, Any]]:
    source, count, seed = SCENES[name]
    images, labels = _load(data_path(source))
    made = scenes.compose_all(images[:, 0], labels, count, seed)
    pixels = np.stack([scene.image for scene in made])[:, None]
    pixels.flags.writeable = False
    return pixels, scenes.coco(made)


def test_set() -> tuple[Images, Labels]:
    """The 10,000 test images of Fashion-MNIST in their original order.

    Returns:
        Raw pixels uint8 ``[10000, 1, 28, 28]`` and classes uint8 ``[10000]``.
    """
    return _load(data_path("test"))


def event_set(name: str) -> Recordings:
    """Recordings of Fashion-MNIST by a simulated event camera of 34x34 pixels.

    Args:
        name: ``events_test``, the first 1,000 test images, or ``events_calibration``, 256 calibration images.

    Raises:
        UsageError: there are no recordings of this name.
    """
    from snncc.models.recordings import Recordings

    return Recordings.load(data_path(_known(name, list(EVENTS), "set of recordings")))


def event_frames(name: str, bins: int = EVENT_FRAMES) -> dict[str, npt.NDArray[Any]]:
    """The recordings as voxel grids, ready for a network.

    Args:
        name: as for `event_set`.
        bins: frames per recording.

    Returns:
        ``events`` float32 ``[N, bins, 2, 34, 34]``, see `snncc.events.voxel_grid`, and ``label`` uint8 ``[N]``.

    Raises:
        UsageError: there are no recordings of this name, or bins is less than 1.
    """
    found = event_set(name)
    return {"events": found.frames(bins), "label": found.label}


# pytest would collect the functions as tests in every module that imports them.
test_set.__test__ = False  # type: ignore[attr-defined]
test_data.__test__ = False  # type: ignore[attr-defined]


@cache
def _zoo() -> dict[str, NetworkInfo]:
    records: dict[str, dict[str, Any]] = json.loads((_folder() / "zoo.json").read_text(encoding="utf-8"))
    return {name: NetworkInfo(name=name, **record) for name, record in records.items()}


def _folder() -> Path:
    # A path on disk, because ONNX Runtime opens files by path: the package isn't meant to be run from a zip archive.
    return Path(str(files(__name__)))


def _known(name: str, known: list[str], kind: str) -> str:
    if name not in known:
        raise UsageError(f"no {kind} '{name}' in the zoo: choose one of {', '.join(known)}")
    return name


def _load(file: Path) -> tuple[Images, Labels]:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["image"], arrays["label"]

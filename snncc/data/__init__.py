"""Calibration and evaluation data: files, folders of images, arrays and iterables, checked against a model's inputs."""

from snncc.data.dataset import Dataset
from snncc.data.images import ImageOptions
from snncc.data.loading import load
from snncc.data.spec import InputSpec

__all__ = ["Dataset", "ImageOptions", "InputSpec", "load"]

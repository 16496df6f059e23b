"""Data sets: MNIST, and digits and a sample of MNIST, which need no download."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cappaper import checks

IMAGE_SIDE = {"digits": 8, "mnist-sample": 28, "mnist": 28}
DATASETS = tuple(IMAGE_SIDE)
IMAGES = Path(__file__).with_name("images")
Folder = str | Path | None
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class Dataset(NamedTuple):
    """``images``: float32 ``[N, 1, H, W]`` in [0, 1]; ``labels``: int64 ``[N]``, classes 0 to 9."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Dataset":
        return Dataset(*(part.to(device) for part in self))


def load(name: str, split: str, *, root: Folder = None, limit: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        name, split: ``"digits"`` (8×8, 1,437 images in ``"train"`` and 360 in ``"test"``, from the
            UCI repository), ``"mnist"`` (28×28, 60,000 and 10,000), or ``"mnist-sample"``, every
            tenth test image of MNIST: 1,000 in ``"test"``, no others.
        root: the folder of MNIST, which is downloaded into ``MNIST/raw`` there if it is absent; by
            default ``CAPPAPER_DATA``, or a cache in the home folder.
        limit: the number of examples to keep, from the first on.

    Raises:
        ValueError, FileNotFoundError: unknown names, a limit below 1, damaged or absent files.

    >>> load("digits", "test").images.shape
    torch.Size([360, 1, 8, 8])
    """
    checks.one_of(name, DATASETS, "dataset")
    checks.one_of(split, ("train", "test"), "split")
    checks.count(1 if limit is None else limit, "limit")
    if name == "mnist":
        images, labels = _mnist(split, data_root(root))
    elif (name, split) == ("mnist-sample", "train"):
        raise ValueError("mnist-sample has no images for training: train on mnist")
    else:
        with np.load(IMAGES / f"{name}-{split}.npz") as arrays:
            images, labels = (torch.from_numpy(arrays[key]) for key in ("images", "labels"))
    side, white = IMAGE_SIDE[name], 16 if name == "digits" else 255
    pixels = images[:limit].float().div(white).reshape(-1, 1, side, side)
    return Dataset(pixels, labels[:limit].long())


def data_root(root: Folder = None) -> Path:
    """The folder that holds downloaded data: ``root``, else ``CAPPAPER_DATA``, else a cache."""
    return Path(root or os.environ.get("CAPPAPER_DATA") or "~/.cache/cappaper/data").expanduser()


def _mnist(split: str, root: Path) -> tuple[Tensor, Tensor]:
    base, raw = import_torchvision().datasets.MNIST, root / "MNIST" / "raw"
    for file, expected in MNIST_MD5.items():
        if (path := raw / file).exists() and hashlib.md5(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{path} is damaged (its MD5 is not {expected}): delete it")
    # Do not read files that old versions of torchvision have processed: nothing checks them.
    https = [url for url in base.mirrors if url.startswith("https:")]
    kind = type("MNIST", (base,), {"mirrors": https, "processed_folder": ""})
    try:
        data = kind(root, train=split == "train", download=True)  # only if the files are absent
    except (AssertionError, KeyError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(f"could not be read or downloaded ({error})".split())
        helps = "delete damaged files, put others there, or set CAPPAPER_DATA"
        raise FileNotFoundError(f"{raw} {why}: {helps}") from error
    return data.data, data.targets


def import_torchvision() -> Any:
    """``import torchvision``, even if its build is for CUDA and torch's is for CPUs."""
    try:
        import torchvision
    except RuntimeError:  # two operators are unknown, which nothing here needs
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", schema)
        import torchvision
    return torchvision

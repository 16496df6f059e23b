"""Data sets: scikit-learn's digits, which need no download, MNIST and Fashion-MNIST."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cappaper import checks

IMAGE_SIDE = {"digits": 8, "mnist": 28, "fashion-mnist": 28}
DATASETS = tuple(IMAGE_SIDE)
SPLITS = ("train", "test")
DIGITS_TEST = 360

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

    def to(self, device: torch.device | str) -> Dataset:
        return Dataset(self.images.to(device), self.labels.to(device))

    def checksum(self) -> str:
        """Twelve hexadecimal digits of SHA-256 over images and labels."""
        digest = hashlib.sha256()
        for tensor in self:
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def load(
    name: str, split: str, *, root: str | Path | None = None, limit: int | None = None
) -> Dataset:
    """Load a data set.

    Args:
        name: ``"digits"`` (8×8, 1,437 for training and 360 for testing, shipped with
            scikit-learn), ``"mnist"`` or ``"fashion-mnist"`` (28×28, 60,000 and 10,000).
        split: ``"train"`` or ``"test"``.
        root: folder with torchvision's layout (``MNIST/raw/...``); by default the environment
            variable ``CAPPAPER_DATA``, else ``~/.cache/cappaper/data``. Absent files are
            downloaded.
        limit: the number of examples to keep, from the first on.

    Raises:
        ValueError: unknown name or split, ``limit`` below 1, or MNIST files with a wrong checksum.
        FileNotFoundError: the files are absent and could not be downloaded.

    >>> load("digits", "test").images.shape
    torch.Size([360, 1, 8, 8])
    """
    checks.one_of(name, DATASETS, "dataset")
    checks.one_of(split, SPLITS, "split")
    if limit is not None:
        checks.count(limit, "limit")
    data = _digits(split) if name == "digits" else _torchvision(name, split, data_root(root))
    return Dataset(*(tensor[:limit] for tensor in data))


def data_root(root: str | Path | None = None) -> Path:
    """The folder that holds downloaded data: ``root``, else ``CAPPAPER_DATA``, else a cache."""
    return Path(root or os.environ.get("CAPPAPER_DATA") or "~/.cache/cappaper/data").expanduser()


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(classes)), test_size=DIGITS_TEST, random_state=0, stratify=classes
    )
    index = train if split == "train" else test
    images = torch.from_numpy(pixels[index]).float().div(16).reshape(-1, 1, 8, 8)
    return Dataset(images, torch.from_numpy(classes[index]).long())


def _torchvision(name: str, split: str, root: Path) -> Dataset:
    datasets = import_torchvision().datasets
    kind = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    raw = root / kind.__name__ / "raw"
    for file, expected in MNIST_MD5.items() if name == "mnist" else ():
        path = raw / file
        if path.exists() and hashlib.md5(path.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{path} is damaged (its MD5 is not {expected}): delete it to download it again"
            )
    try:
        data = kind(root, train=split == "train", download=True)  # only if the files are absent
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"{name} is not in {raw} and could not be downloaded ({reason}): put its four files"
            f" there, or set CAPPAPER_DATA to the folder that holds {kind.__name__}/raw"
        ) from error
    return Dataset(data.data.float().div(255).unsqueeze(1), data.targets.long())


def import_torchvision() -> Any:
    """``import torchvision``, even if its build is for CUDA and torch's for CPUs.

    That import fails because two operators are unknown, which data sets and models do not need.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        import torchvision
    return torchvision

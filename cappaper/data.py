"""Data sets: scikit-learn's digits, which need no download, MNIST and Fashion-MNIST."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cappaper import checks

IMAGE_SIDE = {"digits": 8, "mnist": 28, "fashion-mnist": 28}
DATASETS = tuple(IMAGE_SIDE)
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

    def to(self, device: torch.device | str) -> Dataset:
        return Dataset(self.images.to(device), self.labels.to(device))

    def checksum(self) -> str:
        """Twelve hexadecimal digits of SHA-256 over images and labels."""
        parts = [part.cpu().contiguous().numpy().tobytes() for part in self]
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def load(name: str, split: str, *, root: Folder = None, limit: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        name: ``"digits"`` (8×8, 1,437 for training and 360 for testing, from scikit-learn),
            ``"mnist"`` or ``"fashion-mnist"`` (28×28, 60,000 and 10,000, through torchvision).
        split: ``"train"`` or ``"test"``.
        root: as :func:`data_root`; absent files are downloaded into ``MNIST/raw`` there.
        limit: the number of examples to keep, from the first on; at least 1.

    Raises:
        ValueError: an unknown name or split, a bad limit, or MNIST files with a wrong checksum.
        FileNotFoundError: the files are absent and could not be downloaded.

    >>> load("digits", "test").images.shape
    torch.Size([360, 1, 8, 8])
    """
    checks.one_of(name, DATASETS, "dataset")
    checks.one_of(split, ("train", "test"), "split")
    checks.count(1 if limit is None else limit, "limit")
    data = _digits(split) if name == "digits" else _torchvision(name, split, data_root(root))
    return Dataset(*(tensor[:limit] for tensor in data))


def data_root(root: Folder = None) -> Path:
    """The folder that holds downloaded data: ``root``, else ``CAPPAPER_DATA``, else a cache."""
    return Path(root or os.environ.get("CAPPAPER_DATA") or "~/.cache/cappaper/data").expanduser()


def _digits(split: str) -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, classes = load_digits(return_X_y=True)
    parts = train_test_split(pixels, classes, test_size=360, random_state=0, stratify=classes)
    images, labels = (torch.from_numpy(part) for part in parts[split == "test" :: 2])
    return Dataset(images.float().div(16).reshape(-1, 1, 8, 8), labels.long())


def _torchvision(name: str, split: str, root: Path) -> Dataset:
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    kind, raw = getattr(import_torchvision().datasets, folder), root / folder / "raw"
    for file, expected in MNIST_MD5.items() if name == "mnist" else ():
        path = raw / file
        if path.exists() and hashlib.md5(path.read_bytes()).hexdigest() != expected:
            raise ValueError(f"{path} is damaged (its MD5 is not {expected}): delete it")
    try:
        data = kind(root, train=split == "train", download=True)  # only if the files are absent
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise FileNotFoundError(
            f"{name} is not in {raw} and could not be downloaded ({reason}): put its four files"
            f" there, or set CAPPAPER_DATA to the folder that holds {folder}/raw"
        ) from error
    return Dataset(data.data.float().div(255).unsqueeze(1), data.targets.long())


def import_torchvision() -> Any:
    """``import torchvision``, even if its build is for CUDA and torch's is for CPUs."""
    try:
        import torchvision
    except RuntimeError:  # two operators are unknown, which nothing here needs
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
        import torchvision
    return torchvision

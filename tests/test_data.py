import pytest
import torch

import cappaper
from cappaper.data import MNIST_MD5, data_root


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("test", 360)])
def test_digits(split, count):
    images, labels = cappaper.load("digits", split)
    assert images.shape == (count, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert labels.shape == (count,) and labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(10))


def test_splits_share_no_image():
    train, test = (cappaper.load("digits", s).images.flatten(1) for s in ("train", "test"))
    assert torch.cdist(train, test).min() > 0


def test_limit_and_checksum():
    whole, part = cappaper.load("digits", "test"), cappaper.load("digits", "test", limit=7)
    assert torch.equal(part.images, whole.images[:7])
    assert part.checksum() != whole.checksum()
    assert whole.checksum() == cappaper.load("digits", "test").checksum()


def test_mnist(mnist):
    (train, labels), (test, _) = mnist
    assert train.shape == (60_000, 1, 28, 28) and test.shape == (10_000, 1, 28, 28)
    assert train.dtype == torch.float32 and train.min() == 0 and train.max() == 1
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cifar", "test"), "unknown dataset 'cifar': use one of digits, mnist, fashion-mnist"),
        (("digits", "dev"), "unknown split 'dev'"),
        (("digits", "test", 0), "limit must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    name, split, *limit = arguments
    with pytest.raises(ValueError, match=says):
        cappaper.load(name, split, limit=limit[0] if limit else None)


def test_absent_files_without_a_network_are_reported(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        cappaper.load("mnist", "test", root=tmp_path)
    assert "\n" not in str(caught.value) and "CAPPAPER_DATA" in str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_MD5:
        (raw / name).write_bytes(b"not what it should be")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged"):
        cappaper.load("mnist", "train", root=tmp_path)


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CAPPAPER_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "other") == tmp_path / "other"

import pytest
import torch

import cappaper
from cappaper.data import data_root


def test_digits_have_two_splits_that_share_no_image():
    train, test = (cappaper.load("digits", split) for split in ("train", "test"))
    for (images, labels), count in ((train, 1437), (test, 360)):
        assert images.shape == (count, 1, 8, 8) and images.dtype == torch.float32
        assert images.min() == 0 and images.max() == 1 and (16 * images % 1 == 0).all()
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert set(labels.tolist()) == set(range(10))
    assert torch.cdist(train.images.flatten(1), test.images.flatten(1)).min() > 0


def test_a_limit_keeps_the_first_images():
    whole, part = cappaper.load("digits", "test"), cappaper.load("digits", "test", limit=7)
    assert torch.equal(part.images, whole.images[:7])


def test_the_sample_is_every_tenth_test_image(mnist):
    images, labels = cappaper.load("mnist-sample", "test")
    assert torch.equal(images, mnist[1].images[::10])
    assert torch.equal(labels, mnist[1].labels[::10])


def test_the_sample_needs_no_download_and_has_no_images_for_training(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_DATA", str(tmp_path))
    images, labels = cappaper.load("mnist-sample", "test")
    assert images.shape == (1000, 1, 28, 28) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1 and labels[:4].tolist() == [7, 0, 9, 3]
    with pytest.raises(ValueError, match="mnist-sample has no images for training"):
        cappaper.load("mnist-sample", "train")


def test_mnist(mnist):
    (train, labels), (test, _) = mnist
    assert train.shape == (60_000, 1, 28, 28) and test.shape == (10_000, 1, 28, 28)
    assert train.dtype == torch.float32 and train.min() == 0 and train.max() == 1
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cifar", "test"), "unknown dataset 'cifar': use one of digits, mnist-sample, mnist"),
        (("digits", "dev"), "unknown split 'dev'"),
        (("digits", "test", 0), "limit must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    name, split, *limit = arguments
    with pytest.raises(ValueError, match=says):
        cappaper.load(name, split, limit=limit[0] if limit else None)


def test_absent_files_without_a_network_are_reported(tmp_path, monkeypatch):
    asked = []

    def no_network(request, *args, **kwargs):
        asked.append(request.full_url)
        raise OSError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(FileNotFoundError, match="could not be read or downloaded") as caught:
        cappaper.load("mnist", "test", root=tmp_path)
    assert "\n" not in str(caught.value) and "CAPPAPER_DATA" in str(caught.value)
    assert asked and all(url.startswith("https:") for url in asked)


def test_damaged_files_are_refused(tmp_path):
    (raw := tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged"):
        cappaper.load("mnist", "train", root=tmp_path)


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CAPPAPER_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "other") == tmp_path / "other"

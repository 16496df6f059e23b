"""The notebook that turns every knob, driven without a browser."""

import pytest
import torch

from cappaper import Dataset, pretrained
from cappaper.paper import explorer


@pytest.fixture
def test_images():
    x = torch.rand((3, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Dataset(x, pretrained("cap-0.05")(x).argmax(1))


@pytest.fixture
def box(test_images):
    return explorer.controls(test_images, ["cap-0.05", "relu"], "cap-0.05")


def test_every_control_runs_the_attack_again(box):
    network, first, second, attack, eps, steps, digit, picture = box.children
    seen = [bytes(picture.value)]
    assert bytes(seen[0]).startswith(b"\x89PNG")
    moves = [(eps, 0.3), (attack, "cap-aware PGD"), (steps, 3), (digit, 2)]
    moves += [(first.children[0], "0.5"), (second.children[0], "inf"), (network, "relu")]
    for control, value in moves:
        control.value = value
        assert bytes(picture.value) not in seen
        seen.append(bytes(picture.value))
    assert first.children[0].value == "inf"  # another network comes with its own caps


@pytest.mark.parametrize("wrong", ["", "low", "0", "-1", "nan"])
def test_a_wrong_cap_is_refused_beside_its_control(box, wrong):
    cap, refusal = box.children[1].children
    before = box.children[-1].value
    cap.value = wrong
    assert "a cap is a number above 0" in refusal.value and box.children[-1].value == before
    cap.value = "0.2"
    assert refusal.value == "" and box.children[-1].value != before


def test_a_page_without_a_kernel_shows_a_picture_that_says_what_it_is(test_images, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer, "display", lambda bundle, raw: shown.append(bundle))
    explorer.explore(test_images)
    assert '<img alt="A digit' in shown[0]["text/html"]

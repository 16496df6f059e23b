"""Sliders and controls, driven without a browser."""

import math

import pytest
import torch

from cappaper import PRETRAINED, Dataset, pretrained
from cappaper.paper import figures, widgets
from cappaper.paper.figures import parts

BETAS = [0.1, 1.0, math.inf]


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(parts, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def few_images():
    x = torch.rand((3, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Dataset(x, pretrained("cap-0.05")(x).argmax(1))


def test_every_control_runs_the_attack_again(few_images):
    box = widgets.controls(few_images)
    network, first, second, attack, eps, steps, digit, picture = box.children
    seen = [bytes(picture.value)]
    assert bytes(seen[0]).startswith(b"\x89PNG")
    moves = [(eps, 0.3), (attack, "cap-aware PGD"), (steps, 3), (digit, 2)]
    for control, value in [*moves, (first, 0.5), (second, math.inf), (network, "cap-1")]:
        control.value = value
        assert bytes(picture.value) not in seen
        seen.append(bytes(picture.value))
    assert first.value == second.value == 1  # another network comes with its own caps


def test_the_controls_have_the_caps_of_every_network():
    offered = set(dict(widgets.CAPS).values())
    assert all(offered.issuperset(widgets._caps(name)) for name in PRETRAINED)


def test_a_page_without_a_kernel_shows_a_picture_with_an_alternative_text(few_images, shown):
    widgets.explore(few_images)
    assert '<img alt="A digit' in shown[0]["text/html"]


def test_a_slider_has_a_picture_for_every_beta(shown):
    drawn = []
    figures.beta_explorer(lambda beta: drawn.append(beta) or figures.cap(beta), BETAS, start=1.0)
    (bundle,) = shown
    html = bundle["text/html"]
    assert drawn == BETAS and html.count("<img") == 3 and html.count(" hidden") == 2
    assert 'data-beta="∞"' in html and "<output>β = 1</output>" in html


@pytest.mark.parametrize(("betas", "start"), [([], None), ([0.1], 0.2)])
def test_a_slider_refuses_bad_input(betas, start):
    with pytest.raises(ValueError, match="not on the slider: use one of"):
        figures.beta_explorer(figures.cap, betas, start=start)

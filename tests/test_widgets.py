"""Sliders and controls, driven without a browser."""

import math

import ipywidgets
import pytest
import torch

from cappaper import Dataset, pretrained
from cappaper.paper import figures, widgets
from cappaper.paper.figures import slider

BETAS = [0.1, 1.0, math.inf]


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(slider, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


@pytest.fixture
def few_images():
    x = torch.rand((3, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Dataset(x, pretrained("cap-0.05")(x).argmax(1))


@pytest.fixture
def box(few_images):
    return widgets.controls(few_images, ["cap-0.05", "relu"], "cap-0.05")


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


def test_a_page_without_a_kernel_shows_a_picture_with_an_alternative_text(few_images, shown):
    widgets.explore(few_images)
    assert '<img alt="A digit' in shown[0]["text/html"]


def test_a_slider_redraws_and_a_static_page_has_every_picture(shown):
    drawn = []
    figures.beta_explorer(lambda beta: drawn.append(beta) or figures.cap(beta), BETAS, start=1.0)
    (bundle,) = shown
    model = bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    box = ipywidgets.widget_serialization["from_json"](f"IPY_MODEL_{model}", None)
    control, picture = box.children
    before = picture.value
    control.value = 0.1
    assert drawn[-1] == 0.1 and picture.value != before
    assert [label for label, _ in control.options] == ["0.1", "1", "∞"]
    html = bundle["text/html"]
    assert html.count("<img") == 3 and html.count(" hidden") == 2
    assert 'data-beta="∞"' in html and "<output>β = 1</output>" in html


@pytest.mark.parametrize(
    ("betas", "start", "message"), [([], None, "at least one"), ([0.1], 0.2, "not on the slider")]
)
def test_a_slider_refuses_bad_input(betas, start, message):
    with pytest.raises(ValueError, match=message):
        figures.beta_explorer(figures.cap, betas, start=start)

"""The trained networks that come with the package."""

import json

import pytest
import torch

from cappaper import PRETRAINED, CappedReLU, load, models, pretrained
from cappaper.paper.pages import write_networks
from tests import networks


def test_the_networks_are_those_of_the_book():
    listed = networks.specs()
    assert set(PRETRAINED) == set(listed)
    for name in PRETRAINED:
        assert models.about(name) == networks.metadata(listed[name])


def test_no_two_have_one_title_on_the_live_page(tmp_path):
    write_networks(tmp_path)
    script = (tmp_path / "index.js").read_text()
    listed = json.loads(script.removeprefix("Live.available = ").rstrip(";\n"))
    assert len({title for _, title in listed}) == len(listed) == len(PRETRAINED)
    assert ["relu-adversarial", "ReLU, adversarially trained at ε = 0.3"] in listed


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_network_has_its_caps_and_classifies_digits(name):
    net, spec = pretrained(name), networks.specs()[name]
    caps = [part.beta.item() for part in net if isinstance(part, CappedReLU)]
    assert caps == [pytest.approx(beta) for beta in spec.beta]
    assert not net.training and all(value.dtype == torch.float32 for value in net.parameters())
    x, y = load("mnist-sample", "test")
    with torch.no_grad():
        assert (net(x).argmax(1) == y).double().mean() > 0.85


def test_stored_weights_come_back_in_half_precision(tmp_path, monkeypatch):
    model = networks.specs()["cap-0.05"].build()
    said = networks.metadata(networks.specs()["cap-0.05"])
    networks.store(model, said, tmp_path / "own.safetensors")
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    monkeypatch.setattr(models, "PRETRAINED", ("own",))
    for one, other in zip(model.parameters(), pretrained("own").parameters(), strict=True):
        assert torch.equal(one.half().float(), other)
    with pytest.raises(ValueError, match="unknown network 'none': use one of own"):
        pretrained("none")

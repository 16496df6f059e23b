"""Networks of other people's make: shared layers, frozen weights, functions for activations."""

from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from cappaper import (
    CappedReLU,
    Population,
    adaptive_pgd,
    certify,
    evaluate,
    fit,
    layer_signals,
    load,
    masking_report,
    mlp,
    pgd,
    replace_relu,
    rescale,
    surrogate_gradient,
)
from cappaper.attacks.ascent import classified
from cappaper.certificates.bounds import Interval, _rounding, read_layers


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


class Own(nn.Module):
    """Settings that are neither parameters nor buffers, and no plain public numbers either."""

    def __init__(self, act=torch.relu, scale=1.0, shift=None, mean=0.5):
        super().__init__()
        self.linear, self.act, self._scale, self.shift = nn.Linear(64, 10), act, scale, shift
        self.register_buffer("mean", torch.tensor(mean), persistent=False)

    def forward(self, x):
        z = self._scale * self.act(self.linear((x - self.mean).flatten(1)))
        return z if self.shift is None else z + self.shift


def shared():
    cap = CappedReLU(1.0)
    layers = [nn.Linear(64, 16), cap, nn.Linear(16, 16), cap, nn.Linear(16, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_are_refused(digits, dtype):
    """At 1, a bfloat16 is 0.004 from the next: it leaves its ball, and nothing is certified."""
    x, y = digits
    net = mlp(64, [300]).to(dtype)
    for call in (pgd, adaptive_pgd, certify):
        with pytest.raises(TypeError, match=f"float32 or float64 in .*, got {dtype}"):
            call(net, x.to(dtype), y, 0.1)


def test_nothing_is_certified_that_is_wrong_or_where_rounding_may_do_anything(digits):
    x, net = digits.images, mlp(64, [16])
    wrong = (net(x).argmax(-1) + 1) % 10
    assert not certify(net, x, wrong, 0.0).any()
    box, hidden = (
        Interval(-torch.ones(1, n).double(), torch.ones(1, n).double()) for n in (64, 16)
    )
    for unit, known in ((2.0**-8, True), (2.0**-6, False)):  # of 65 terms in a sum
        error = _rounding(read_layers(net), [hidden], box, unit)
        assert (error.isfinite() == known).all() and (error > 0).all()


def test_a_blank_image_leaves_the_forward_pass_as_it_is(digits):
    """All pre-activations are 0: their root mean square is, too."""
    x = digits.images.clone()
    x[0] = 0
    layers = [nn.Linear(64, 8, bias=False), CappedReLU(0.5), nn.Linear(8, 10)]
    net = nn.Sequential(nn.Flatten(), *layers)
    plain = net(x)
    for sharpness in (0.1, 30.0):
        with surrogate_gradient(net, sharpness):
            point = x.clone().requires_grad_()
            out = net(point)
            out.sum().backward()
        assert torch.equal(out, plain) and point.grad.isfinite().all()


def test_a_clamp_of_indices_or_of_a_scale_is_no_activation(digits):
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.place = mlp(64, [16], beta=1.0), nn.Embedding(4, 64)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            place = self.place(torch.arange(8).clamp(max=3)).mean(0).view(1, 1, 8, 8)
            return self.net(x + place) * self.scale.clamp(max=100.0)

    x, y = digits
    net = Clip()
    report = masking_report(net, x, y, 0.1, steps=[2], epsilons=[0.2])
    alone = masking_report(net.net, x, y, 0.1, steps=[2], epsilons=[0.2])
    assert 0 < report.at_zero < 1 and 0 < alone.at_zero < 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"act": torch.relu}, {"act": torch.tanh}),
        ({"scale": 1.0}, {"scale": 3.0}),
        ({"shift": torch.zeros(10)}, {"shift": torch.ones(10)}),
        ({"act": partial(torch.clamp, max=1)}, {"act": partial(torch.clamp, max=2)}),
        ({"act": lambda z: z.relu()}, {"act": lambda z: z.tanh()}),
    ],
)
def test_members_with_settings_of_their_own_are_no_population(one, other):
    with pytest.raises(ValueError, match="share one architecture"):
        Population([Own(**one), Own(**other)])
    assert len(Population([Own(**one), Own(**one)])) == 2


def test_settings_are_compared_by_what_they_say_not_by_who_made_them():
    def made():
        return Own(act=partial(torch.clamp, max=2), shift=torch.ones(10))

    assert len(Population([made(), made()])) == 2
    assert len(Population([Own(act=lambda z: z.relu()) for _ in range(2)])) == 2
    with pytest.raises(ValueError, match="share one architecture"):
        Population([Own(act=lambda z, k=k: z.clamp(max=k)) for k in (1, 2)])


def test_frozen_weights_stay_frozen_in_a_population(digits):
    net = mlp(64, [8])
    net[1].requires_grad_(False)
    trained = fit(Population([net, net]), *digits, epochs=1)
    for member in trained:
        assert torch.equal(member[1].weight, net[1].weight)
        assert not torch.equal(member[3].weight, net[3].weight)
    with pytest.raises(ValueError, match="share one architecture"):
        Population([net, mlp(64, [8])])


def test_a_member_comes_back_as_it_went_in(digits):
    """Shared modules, buffers that no state dict has, and the population's own dtype."""
    x, y = digits
    for one, other in ((shared(), shared()), (Own(), Own(mean=0.2))):
        both = Population([one, other])
        outputs = both(x)  # the skeleton has been called
        for i, net in enumerate((one, other)):
            assert torch.allclose(both[i](x), net(x), atol=1e-6)
            assert torch.allclose(outputs[i], net(x), atol=1e-6)
        rates = evaluate(both, x, y, partial(pgd, eps=0.1))
        assert rates.standard_accuracy == [
            pytest.approx(classified(net, x, y).double().mean()) for net in (one, other)
        ]
    assert both[1].mean == pytest.approx(0.2)
    member = Population([shared(), shared()])[1]
    assert member[2] is member[4]
    assert Population([mlp(64, [8])]).double()[0](x.double()).dtype == torch.float64


def test_an_attack_leaves_the_statistics_of_a_population_alone(digits):
    def normed():
        layers = [nn.Linear(64, 16), nn.BatchNorm1d(16), CappedReLU(1.0), nn.Linear(16, 10)]
        return nn.Sequential(nn.Flatten(), *layers)

    x, y = digits
    both = Population([normed(), normed()]).train()
    before = {name: value.clone() for name, value in both.state_dict().items()}
    pgd(both, x.expand(2, *x.shape), y.expand(2, -1), 0.1, steps=3, early_exit=False)
    assert all(torch.equal(value, before[name]) for name, value in both.state_dict().items())


def test_a_checkpoint_is_of_one_training_alone(digits, tmp_path):
    x, y = digits
    path = tmp_path / "training"
    given = {"epochs": 1, "checkpoint": path, "lr": np.float64(1e-3)}
    fit(mlp(64, [8], beta=0.1), x, y, **given)
    again = fit(mlp(64, [8], beta=0.1), x, y, **given)  # goes on from it, and has nothing to do
    assert again[2].beta == pytest.approx(0.1)
    attack = partial(pgd, eps=0.1, steps=1, early_exit=False)
    for net, images, more in (
        (mlp(64, [8], beta=5.0), x, {}),
        (mlp(64, [8], beta=0.1), 1 - x, {}),
        (mlp(64, [8], beta=0.1), x, {"attack": attack}),
    ):
        with pytest.raises(ValueError, match="belongs to another training"):
            fit(net, images, y, **given, **more)


def test_a_training_with_dropout_goes_on_to_the_same_result(digits, tmp_path):
    def train(name, stop):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 10))

        def progress(done, of):
            if done == stop:
                raise KeyboardInterrupt

        return fit(net, *digits, epochs=2, checkpoint=tmp_path / name, progress=progress)

    whole = train("whole", None)
    with pytest.raises(KeyboardInterrupt):
        train("halves", 1)
    torch.rand(7)
    halves = train("halves", None)
    for ours, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_cap_in_two_places_moves_once(digits):
    net = shared()
    assert torch.allclose(rescale(net, 0.05)(digits.images), net(digits.images), atol=1e-6)
    with pytest.raises(ValueError, match="one β for a cap"):
        rescale(net, [0.05, 0.1])
    linear = nn.Linear(64, 64)
    tied = nn.Sequential(nn.Flatten(), linear, CappedReLU(1.0), linear)
    with pytest.raises(ValueError, match="weights of its own"):
        rescale(tied, 0.1)


def test_an_activation_in_place_shows_the_gradient_before_it(digits):
    def dead(inplace):
        layers = [nn.Linear(64, 16), nn.ReLU(inplace), nn.Linear(16, 10)]
        net = nn.Sequential(nn.Flatten(), *layers)
        with torch.no_grad():
            net[1].bias.fill_(-100)
        return net

    for inplace in (False, True):
        (signal,) = layer_signals(dead(inplace), *digits)
        assert signal.silent == 1


def test_steps_and_radii_ascend(digits):
    for given in ({"steps": [10, 5]}, {"epsilons": [1.0, 0.1]}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} must ascend"):
            masking_report(mlp(64, [8]), *digits, 0.1, **given)


def test_a_gpu_is_left_alone_and_followed():
    """No seed is set on it, and a cap goes where the weights are."""
    with mock.patch("torch.cuda.manual_seed_all") as reseeded:
        mlp(64, [8], seed=5)
    reseeded.assert_not_called()
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).to("meta")
    net[0].is_meta = False
    with mock.patch("cappaper.activations.check_module"):
        assert replace_relu(net, 1.0)[1].beta.is_meta

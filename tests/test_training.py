import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import CappedReLU, Population, evaluate, fit, mlp, paper, pgd
from cappaper.paper.experiment import one_cycle, train
from tests.spellings import Function


def test_digits_are_learned_and_adversarial_training_helps(digits):
    (x, y), test = digits
    plain, hardened = mlp(64, [64, 32]), mlp(64, [64, 32])
    attack = partial(pgd, eps=0.1, steps=5, early_exit=False)
    fit(plain, x, y, epochs=20, batch_size=64, lr=3e-3)
    fit(hardened, x, y, epochs=20, batch_size=64, lr=3e-3, attack=attack)
    before, after = (evaluate(net, *test, partial(pgd, eps=0.1)) for net in (plain, hardened))
    assert before.standard_accuracy > 0.93
    assert after.robust_accuracy > before.robust_accuracy + 0.1


@pytest.mark.parametrize(
    "layer",
    [nn.Dropout(), nn.ReLU(), Function(F.dropout), Function(lambda z: z + torch.randn_like(z))],
)
def test_all_that_is_random_is_drawn_from_the_seed_and_spares_the_global_state(twenty, layer):
    def trained(seed):
        net = mlp(64, [16], activation=lambda beta: layer)
        return fit(net, *twenty, epochs=2, batch_size=5, seed=seed)[1].weight

    before = torch.get_rng_state()
    first, _, again = trained(1), torch.rand(3), trained(1)
    assert torch.equal(first, again) and not torch.equal(first, trained(2))
    torch.set_rng_state(before)
    trained(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_last_example_that_is_alone_joins_the_step_before(twenty):
    seen, net = [], nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for batch_size, sizes in ((19, [20]), (20, [20]), (9, [9, 9, 2])):
        fit(net, *twenty, epochs=1, batch_size=batch_size)
        assert seen == sizes
        seen.clear()
    single = mlp(64, [4])
    single.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    lr = lambda *at: seen.append(at) or 1e-3  # noqa: E731
    fit(single, *(part[:1] for part in twenty), epochs=2, lr=lr)
    assert seen == [(0, 2), 1, (1, 2), 1]
    seen.clear()
    fit(single, *twenty, epochs=1, batch_size=1, progress=lambda *at: seen.append(at))
    assert seen == [1] * 20 + [(1, 1)]


def test_an_exported_module_is_taken_as_it_is(twenty):
    x, y = twenty
    sizes = ({0: torch.export.Dim("images", min=2)},)
    net = torch.export.export(mlp(64, [16]), (x,), dynamic_shapes=sizes).module()
    before = [weight.detach().clone() for weight in net.parameters()]
    fit(net, x, y, epochs=1)
    assert not any(map(torch.equal, net.parameters(), before))
    assert evaluate(net, x, y, partial(pgd, eps=0.1)).robust_accuracy <= 1


@pytest.mark.parametrize(
    "inside", [partial(torch.autocast, "cpu", torch.bfloat16), torch.no_grad, torch.inference_mode]
)
def test_training_works_inside_a_callers_context(sixty, inside):
    net = mlp(64, [32])
    with inside():
        rates = evaluate(fit(net, *sixty, epochs=40, lr=5e-3), *sixty, partial(pgd, eps=0.0))
    assert rates.standard_accuracy > 0.9


X, Y = torch.rand(8, 1, 2, 2), torch.arange(8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X + 1}, ValueError, r"lie in \[0, 1\]"),
        ({"x": X.long()}, TypeError, "float32 or float64"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"epochs": "3"}, TypeError, "epochs must be a whole number, got '3'"),
        ({"seed": "3"}, TypeError, "the seed must be a whole number, got '3'"),
        ({"lr": "3"}, TypeError, "the learning rate must be a number, got '3'"),
        ({"lr": lambda *at: -1.0}, ValueError, "learning rate must be a finite number"),
        ({"lr": float("inf")}, ValueError, "learning rate must be a finite number"),
        ({"seed": [1, 2]}, ValueError, "2 seeds for 1 network"),
        ({"model": Population([mlp(4, [3])] * 3), "seed": [1]}, ValueError, "1 seeds for 3"),
        ({"attack": pgd, "attack_at": lambda *at: pgd}, ValueError, "give one of them"),
        ({"attack": lambda net, x, y: x.flatten(1), "epochs": 1}, ValueError, "must give images"),
        ({"model": nn.Sequential(nn.Flatten(), nn.ReLU()), "epochs": 1}, ValueError, "no weights"),
        ({"model": mlp(4, [3], num_classes=7), "epochs": 1}, ValueError, "0 to 6"),
    ],
)
def test_bad_input_gets_a_sentence(change, error, message):
    given = {"model": mlp(4, [3]), "x": X, "y": Y} | change
    with pytest.raises(error, match=message):
        fit(given.pop("model"), given.pop("x"), given.pop("y"), **given)


def test_attack_and_step_size_may_depend_on_the_step():
    """Adam's first step depends on signs alone, so it moves a weight by the step size."""
    attacks, rates, biases = [], [], []

    def lr(*at):
        rates.append(at)
        return 0 if at[0] else 0.1

    net = mlp(4, [3])
    before = net[3].bias.detach().clone()
    given = {"lr": lr, "attack_at": lambda *at: attacks.append(at)}
    watch = lambda *at: biases.append(net[3].bias.detach().clone())  # noqa: E731
    fit(net, X, Y, epochs=2, batch_size=3, progress=watch, **given)
    assert attacks == rates == [(step, 6) for step in range(6)]
    torch.testing.assert_close(
        (biases[0] - before).abs(), torch.full((10,), 0.1), rtol=1e-3, atol=0
    )
    assert torch.equal(biases[1], biases[0])


def test_a_training_that_diverges_is_refused():
    with pytest.raises(ValueError, match=r"diverged.*try a smaller learning rate"):
        fit(mlp(4, [3]), X, Y, epochs=2, batch_size=8, lr=1e38)


def test_a_cycle_rises_to_its_peak_and_falls_to_nothing():
    sizes = [one_cycle(0.3, 0.4, step, 99) for step in range(99)]
    top = sizes.index(max(sizes))
    assert max(sizes) == pytest.approx(0.3) and top == 39
    assert sizes[:top] == sorted(sizes[:top]) and sizes[top:] == sorted(sizes[top:], reverse=True)
    assert 0 < min(sizes) <= max(sizes[0], sizes[-1]) < 0.01
    for rise in (0, 1, 40):
        with pytest.raises(ValueError, match="a share between 0 and 1"):
            one_cycle(0.3, rise, 0, 10)


def test_networks_that_differ_in_the_cycle_alone_are_trained_apart():
    small = paper.profile("quick", epochs=1, hidden=[4], seeds=[0])
    apart = [paper.sweep(small, betas=[1.0], cycle=cycle)[0] for cycle in (None, 0.5)]
    assert apart[0].recipe != apart[1].recipe
    plain, cycled = (next(iter(train([spec], "cpu").values())) for spec in apart)
    assert not torch.equal(plain["1.weight"], cycled["1.weight"])


def test_a_step_follows_the_gradient_of_the_mean_loss():
    net = mlp(4, [3])
    loss = nn.functional.cross_entropy(net(X), Y)
    expected = torch.autograd.grad(loss, list(net.parameters()))

    def compare(*_):
        for parameter, gradient in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)

    fit(net, X, Y, epochs=1, batch_size=len(Y), progress=compare)
    assert all(parameter.grad is None for parameter in net.parameters())


def learned(seed=0):
    return mlp(64, [16, 8], beta=1.0, seed=seed, activation=partial(CappedReLU, learned=True))


def test_learned_caps_of_each_member_move_as_they_would_alone(twenty):
    x, y = twenty.images.double(), twenty.labels
    nets = [learned(seed).double() for seed in (0, 1)]
    both = fit(Population(nets), x, y, epochs=40, lr=1e-2)
    for net, member in zip(nets, both, strict=True):
        alone = fit(net, x, y, epochs=40, lr=1e-2)
        for i in (2, 4):
            assert abs(alone[i].beta - 1) > 0.05
            torch.testing.assert_close(member[i].beta, alone[i].beta, atol=1e-8, rtol=0)


def test_no_default_changes_unnoticed():
    assert [*fit.__kwdefaults__.values()] == [10, 128, 0.001, None, None, 0, None, None]


def test_a_bar_counts_the_epochs(capsys):
    fit(mlp(4, [3]), X, Y, epochs=2, progress=True)
    shown = capsys.readouterr().err
    assert [f"epoch {n} of 2" in shown for n in range(4)] == [False, True, True, False]


@pytest.mark.parametrize("seed", [0, range(3)], ids=["the same batches", "each its own"])
@pytest.mark.parametrize("attack", [None, partial(pgd, eps=0.1, steps=3, early_exit=False)])
def test_members_train_as_they_would_alone(digits, seed, attack):
    x, y = (t[:256] for t in digits[0])
    given = {"epochs": 2, "attack": attack}
    together = fit(Population([mlp(64, [12], seed=i) for i in range(3)]), x, y, seed=seed, **given)
    for i, member in enumerate(together):
        alone = fit(mlp(64, [12], seed=i), x, y, seed=seed[i] if seed else 0, **given)
        for ours, theirs in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_an_adversary_that_knows_about_the_cap_moves_where_pgd_cannot(twenty):
    x, y = twenty
    plain, knowing = paper.Adversary(0.1).at(5, 10), paper.Adversary(0.1, sharpness=10.0).at(5, 10)
    for beta in (1e-4, math.inf):  # through ReLU, too: a control differs in its cap alone
        model = mlp(64, [16], beta=beta, seed=0)
        assert not torch.equal(plain(model, x, y), knowing(model, x, y))
        assert (knowing(model, x, y) - x).abs().max() <= 0.1 + 1e-6


def test_an_adversary_moves_as_far_as_its_reach_and_in_bfloat16_nearly_the_same_way(twenty):
    x, y = (t[:20] for t in twenty)
    model = mlp(64, [16], seed=0)
    full, half = (paper.Adversary(0.1, half=half).at(9, 10)(model, x, y) for half in (False, True))
    assert (full == half).float().mean() > 0.9 and not torch.equal(full, half)
    near = paper.Adversary(0.1, reach=1e-6).at(9, 10)(model, x, y)
    start = pgd(model, x, y, 0.1, steps=1, step_size=1e-9, early_exit=False, seed=9)
    assert (near - start).abs().max() < 1e-5


def test_training_takes_any_default_device(twenty):
    net, same = mlp(64, [4]), mlp(64, [4])
    with torch.device("meta"):
        fit(net, *twenty, epochs=1)
    assert torch.equal(net[1].weight, fit(same, *twenty, epochs=1)[1].weight)

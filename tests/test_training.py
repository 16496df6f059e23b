import copy
from functools import partial

import pytest
import torch
from torch import nn

import cappaper
from cappaper import CappedReLU, Population, evaluate, fit, mlp, paper, pgd
from cappaper.paper.experiment import one_cycle, train


def test_digits_are_learned_and_adversarial_training_helps(digits):
    (x, y), test = digits
    plain, hardened = mlp(64, [64, 32]), mlp(64, [64, 32])
    attack = partial(pgd, eps=0.1, steps=5, early_exit=False)
    fit(plain, x, y, epochs=20, batch_size=64, lr=3e-3)
    fit(hardened, x, y, epochs=20, batch_size=64, lr=3e-3, attack=attack)
    before, after = (evaluate(net, *test, partial(pgd, eps=0.1)) for net in (plain, hardened))
    assert before.standard_accuracy > 0.93
    assert after.robust_accuracy > before.robust_accuracy + 0.1


def test_the_same_seed_gives_the_same_network_and_spares_the_global_state(digits):
    (x, y), _ = digits
    before = torch.get_rng_state()
    first, again, other = (fit(mlp(64, [16]), x, y, epochs=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_is_told_and_eval_mode_is_left(digits):
    (x, y), _ = digits
    seen = []
    net = fit(mlp(64, [4]), x[:64], y[:64], epochs=3, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)] and not net.training


@pytest.mark.parametrize("members", [1, 2])
def test_an_interrupted_training_goes_on_from_its_last_epoch(digits, tmp_path, members):
    x, y = (tensor[:200] for tensor in digits[0])
    attack = partial(pgd, eps=0.1, steps=2, early_exit=False)

    def network():
        nets = [mlp(64, [8], seed=i) for i in range(members)]
        return Population(nets) if members > 1 else nets[0]

    class Stopped(Exception):
        pass

    def stop(epoch, epochs):
        if epoch == 2:
            raise Stopped

    settings = {"epochs": 4, "attack": attack, "seed": list(range(members))}
    path, seen = tmp_path / "deep" / "training.pt", []
    with pytest.raises(Stopped):
        fit(network(), x, y, checkpoint=path, progress=stop, **settings)
    resumed = network()
    fit(resumed, x, y, checkpoint=path, progress=lambda *at: seen.append(at[0]), **settings)
    whole = fit(network(), x, y, **settings)
    assert seen == [2, 3, 4] and not resumed.training
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [p.name for p in path.parent.iterdir()] == ["training.pt"]
    with pytest.raises(ValueError, match="belongs to another training: delete it"):
        fit(network(), x, y, checkpoint=path, **settings | {"lr": 1e-2})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no checkpoint"):
        fit(network(), x, y, checkpoint=path, **settings)


X, Y = torch.rand(8, 1, 2, 2), torch.arange(8)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"x": X + 1}, ValueError, r"lie in \[0, 1\]"),
        ({"x": X[:4]}, ValueError, "labels"),
        ({"x": X.long()}, TypeError, "float32 or float64"),
        ({"y": Y + 5}, ValueError, "0 to 9"),
        ({"x": X.tolist()}, TypeError, "images must be a tensor, got list"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"epochs": "3"}, TypeError, "epochs must be a whole number, got '3'"),
        ({"seed": "3"}, TypeError, "the seed must be a whole number, got '3'"),
        ({"lr": "3"}, TypeError, "the learning rate must be a number, got '3'"),
        ({"lr": lambda *at: -1.0}, ValueError, "learning rate must be a finite number"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"lr": 0}, ValueError, "learning rate must be a finite number"),
        ({"lr": float("inf")}, ValueError, "learning rate must be a finite number"),
        ({"seed": [1, 2]}, ValueError, "2 seeds for 1 network"),
        ({"model": Population([mlp(4, [3])] * 3), "seed": [1]}, ValueError, "1 seeds for 3"),
        ({"attack": pgd, "attack_at": lambda *at: pgd}, ValueError, "give one of them"),
        ({"attack": lambda net, x, y: x.flatten(1), "epochs": 1}, ValueError, "must return"),
        ({"model": nn.Sequential(nn.Flatten(), nn.ReLU()), "epochs": 1}, ValueError, "no weights"),
        ({"model": mlp(4, [3], num_classes=7), "epochs": 1}, ValueError, "0 to 6"),
    ],
)
def test_bad_input_gets_a_sentence(change, error, says):
    given = {"model": mlp(4, [3]), "x": X, "y": Y} | change
    with pytest.raises(error, match=says):
        fit(given.pop("model"), given.pop("x"), given.pop("y"), **given)


def test_an_attack_that_grows_is_told_of_every_step():
    told = []
    attack_at = lambda *at: told.append(at)  # noqa: E731
    fit(mlp(4, [3]), X, Y, epochs=2, batch_size=3, attack_at=attack_at)
    assert told == [(step, 6) for step in range(6)]


def test_a_schedule_is_the_step_size_of_every_step():
    """Adam's first steps go by signs alone, so each moves a weight by its step size."""
    told, seen = [], []

    def lr(step, steps):
        told.append((step, steps))
        return 0.1 if step == 0 else 1e-12

    net = mlp(4, [3])
    before = net[3].bias.detach().clone()
    watch = lambda *at: seen.append(net[3].bias.detach().clone())  # noqa: E731
    fit(net, X, Y, epochs=2, batch_size=len(Y), lr=lr, progress=watch)
    assert told == [(0, 2), (1, 2)]
    torch.testing.assert_close((seen[0] - before).abs(), torch.full((10,), 0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-9)


def test_a_schedule_may_begin_and_end_at_nothing():
    net = mlp(4, [3])
    before = net[1].weight.detach().clone()
    fit(net, X, Y, epochs=2, batch_size=len(Y), lr=lambda *at: 0)
    assert torch.equal(net[1].weight, before)


def test_a_training_that_diverges_names_its_largest_step_size():
    with pytest.raises(ValueError, match=r"diverged.*try a learning rate below 1e\+38"):
        fit(mlp(4, [3]), X, Y, epochs=2, batch_size=8, lr=lambda step, _: 1e-9 if step else 1e38)


def test_a_schedule_that_stays_is_a_number(digits):
    x, y = (tensor[:100] for tensor in digits[0])
    fixed, told = (fit(mlp(64, [8]), x, y, epochs=2, lr=lr) for lr in (3e-3, lambda *at: 3e-3))
    assert torch.equal(fixed[1].weight, told[1].weight)


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


def on_caps(weight, model):
    caps = [cap for name, cap in model.named_parameters() if name.endswith("beta")]
    return weight * sum(cap.square().sum() for cap in caps)


def test_a_penalty_moves_what_it_is_about_and_each_member_as_it_would_alone(digits):
    x, y = (
        tensor[:300].double() if tensor.is_floating_point() else tensor[:300]
        for tensor in digits[0]
    )
    nets = [learned(seed).double() for seed in (0, 1)]
    settings = {"epochs": 3, "lr": 1e-2, "penalty": partial(on_caps, 0.5)}
    both = fit(Population(nets), x, y, **settings)
    for net, member in zip(nets, both, strict=True):
        free = fit(copy.deepcopy(net), x, y, epochs=3, lr=1e-2)
        alone = fit(net, x, y, **settings)
        for i in (2, 4):
            assert alone[i].beta < free[i].beta - 0.05
            torch.testing.assert_close(member[i].beta, alone[i].beta, atol=1e-8, rtol=0)


def test_a_step_follows_the_gradient_of_loss_and_penalty():
    """Adam's first step goes by the sign alone: a penalty that outweighs the loss decides it."""
    net = learned()
    before = net[2].beta.item()
    fit(net, torch.rand(8, 1, 8, 8), torch.arange(8), epochs=1, penalty=partial(on_caps, 100.0))
    assert net[2].beta.item() == pytest.approx(before - 1e-3, abs=1e-5)


@pytest.mark.parametrize("returned", [1.0, torch.ones(2), None])
def test_a_penalty_that_is_no_number_gets_a_sentence(returned):
    with pytest.raises(ValueError, match="what penalty returns must be a tensor of one number"):
        fit(mlp(4, [2]), torch.rand(4, 1, 2, 2), torch.arange(4), penalty=lambda model: returned)


def test_a_foreign_model_trains_too():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 10))
    assert cappaper.fit(net, X, Y, epochs=1) is net


@pytest.mark.parametrize("seed", [0, range(3)], ids=["the same batches", "each its own"])
def test_members_train_as_they_would_alone_on_whatever_batches(digits, seed):
    x, y = (t[:256] for t in digits[0])
    together = fit(Population([mlp(64, [12], seed=i) for i in range(3)]), x, y, epochs=2, seed=seed)
    for i, member in enumerate(together):
        alone = fit(mlp(64, [12], seed=i), x, y, epochs=2, seed=seed[i] if seed else 0)
        for ours, theirs in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_an_adversary_that_knows_about_the_cap_moves_where_pgd_stands_still():
    x, y = cappaper.load("digits", "test", limit=20)
    plain, knowing = paper.Adversary(0.1).at(5, 10), paper.Adversary(0.1, sharpness=10.0).at(5, 10)
    relu, capped = mlp(64, [16], seed=0), mlp(64, [16], beta=1e-4, seed=0)
    assert torch.equal(plain(relu, x, y), knowing(relu, x, y))
    assert not torch.equal(plain(capped, x, y), knowing(capped, x, y))
    assert (knowing(capped, x, y) - x).abs().max() <= 0.1 + 1e-6

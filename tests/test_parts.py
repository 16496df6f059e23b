"""Large populations train in parts, and Adam is torch's."""

from functools import partial

import pytest
import torch
from torch import nn

from cappaper import Population, fit, mlp, pgd, training
from cappaper.adam import Adam


def network(seed):
    torch.manual_seed(seed)
    inner = nn.Linear(64, 12, bias=False)  # BatchNorm takes a bias out, and Adam rounding for one
    layers = [nn.Flatten(), inner, nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10)]
    return nn.Sequential(*layers)


@pytest.fixture
def few(monkeypatch):
    """No more than two of these networks are to train at once."""
    monkeypatch.setattr(training, "_MAPPED", 2 * (64 * 12 * 4 + 1))


@pytest.fixture
def sizes():
    """A population, and how many members there are at each call of it."""
    population, seen = Population([network(seed) for seed in range(5)]), []
    population.register_forward_pre_hook(lambda part, _: seen.append(len(part)))
    return population, seen


@pytest.mark.parametrize("seed", [0, range(5)], ids=["the same batches", "each its own"])
def test_a_large_population_trains_in_parts_to_the_same_result(digits, few, sizes, seed):
    x, y = (t[:256] for t in digits[0])
    population, seen = sizes
    fit(population, x, y, epochs=2, seed=seed)
    assert seen == ([1] * 2 + [2] * 4) * 2
    for i, member in enumerate(population):
        alone = fit(network(i), x, y, epochs=2, seed=seed[i] if seed else 0)
        for ours, theirs in zip(member.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        for ours, theirs in zip(member.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_who_may_know_how_many_there_are_sees_all(digits, few, sizes):
    x, y = (t[:128] for t in digits[0])
    population, seen = sizes
    fit(population, x, y, epochs=1, attack=partial(pgd, eps=0.1, steps=1, early_exit=False))
    fit(population, x, y, epochs=1, penalty=lambda model: model.get_parameter("4__bias").sum())
    assert set(seen) == {5}


def test_a_training_in_parts_goes_on_from_its_last_epoch(digits, few, tmp_path, monkeypatch):
    x, y = (t[:256] for t in digits[0])

    def train(stop=None):
        def progress(done, of):
            if done == stop:
                raise KeyboardInterrupt

        population = Population([mlp(64, [12], seed=seed) for seed in range(5)])
        given = {"epochs": 2, "checkpoint": tmp_path / str(stop), "progress": progress}
        return fit(population, x, y, **given)

    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(stop=1)
    (tmp_path / "1").rename(tmp_path / "None")
    for ours, theirs in zip(train().parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="belongs to another training"):
        train()


def test_adam_is_torchs_and_so_is_its_state():
    weights = [torch.randn(shape).requires_grad_() for shape in ((3, 4), (4,), (2,), ())]
    copies = [weight.detach().clone().requires_grad_() for weight in weights]
    ours, torchs = Adam(weights), torch.optim.Adam(copies, fused=True)
    for step in range(6):
        if step == 3:
            ours = Adam(weights)
            ours.load_state_dict(torchs.state_dict())
        ours.forget()
        torchs.zero_grad()
        for own, other in zip(weights, copies, strict=True):
            if own.shape != (2,) or step > 1:  # one without a gradient to begin with
                own.grad = torch.randn(own.shape)
                other.grad = own.grad.clone()
        rate = torchs.param_groups[0]["lr"] = 0.1 / (step + 1)
        ours.step(rate)
        torchs.step()
    for own, other in zip(weights, copies, strict=True):
        assert torch.equal(own, other)

"""The work that is timed: attacks, a curve over ε, training, and one step against the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cappaper
from benchmarks.clock import Hand
from benchmarks.peers import PGD, STEPS, Peer, pyautoattack_part
from cappaper.data import Dataset

EPS = 0.1
HIDDEN = (300, 100)
RADII = tuple(0.04 * i for i in range(1, 9))
MEMBERS = 36

_SIZES = (256, 1024, 4096)


class Bench(NamedTuple):
    """What the work is done on: data, trained networks by name, and how many images there are."""

    train: Dataset
    test: Dataset
    nets: dict[str, nn.Module]
    images: int


def bench(device: str, images: int) -> Bench:
    """MNIST, and the networks: ReLU, two caps, one with convolutions, and one trained to resist."""
    train, test = (cappaper.load("mnist", split).to(device) for split in ("train", "test"))
    madry = partial(cappaper.pgd, eps=EPS, steps=7, early_exit=False)
    mlp = partial(cappaper.mlp, 28 * 28, HIDDEN)
    nets: dict[str, nn.Module] = {}
    for name, net, attack in (
        ("ReLU", mlp(), None),
        ("β = 0.1", mlp(beta=0.1), None),
        ("β = 0.05", mlp(beta=0.05), None),
        ("convolutions", cappaper.convnet(28, [8, 16, 100]), None),
        ("adversarially trained ReLU", mlp(), madry),
    ):
        print(f"training {name}", flush=True)
        nets[name] = cappaper.fit(net.to(device), *train, epochs=2, attack=attack)
    return Bench(train, test, nets, images)


def works(bench: Bench) -> Iterator[tuple[str, dict[str, Hand]]]:
    """Every contest: what the work is, and who does it; the first hand is ours."""
    for name in ("ReLU", "β = 0.1", "β = 0.05"):
        yield f"PGD-40, {name}", _attacks(bench, name, cappaper.pgd, PGD, bench.images)
    few = max(1, bench.images // 2)
    yield (
        "PGD-40, convolutions",
        _attacks(bench, "convolutions", cappaper.pgd, PGD, few),
    )
    yield "PGD-40 at 8 radii, ReLU", _curve(bench, few)
    for name in ("ReLU", "β = 0.1", "adversarially trained ReLU"):
        for part, ours in (
            ("apgd-ce", cappaper.apgd),
            ("apgd-t", partial(cappaper.apgd, targets=9)),
            ("square", cappaper.square),
        ):
            peers = {"pyautoattack": pyautoattack_part(part)}
            yield f"{part}, {name}", _attacks(bench, name, ours, peers, 500, sizes=(500,))
    yield f"training of {MEMBERS} networks, the same batches", _training(bench, [0] * MEMBERS)
    yield f"training of {MEMBERS} networks, each its own", _training(bench, [*range(MEMBERS)])
    yield "a step of PGD", _step(bench)


def _attacks(
    bench: Bench,
    name: str,
    ours: Callable[..., Tensor],
    peers: dict[str, Peer],
    images: int,
    sizes: tuple[int, ...] = _SIZES,
) -> dict[str, Hand]:
    net, (x, y) = bench.nets[name], (t[:images] for t in bench.test)

    def by(attack: Peer, size: int, seed: int) -> float:
        batches = zip(x.split(size), y.split(size), strict=True)
        return _left(net, torch.cat([attack(net, *both, EPS, seed) for both in batches]), y)

    def own(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        return ours(model, x, y, eps=eps, seed=seed)

    hands = {"cappaper": own, **peers}
    return {name: Hand(partial(by, attack), sizes) for name, attack in hands.items()}


def _curve(bench: Bench, images: int) -> dict[str, Hand]:
    """A curve over ε: ours attacks what is left, a peer runs once for each radius."""
    net, (x, y) = bench.nets["ReLU"], (t[:images] for t in bench.test)

    def ours(size: int, seed: int) -> float:
        attack = partial(cappaper.pgd, seed=seed)
        curve = cappaper.robustness_curve(net, x, y, attack, RADII, batch_size=size)
        return float(curve[-1].robust_accuracy)  # type: ignore[arg-type]

    def peer(attack: Peer, size: int, seed: int) -> float:
        for eps in RADII:
            batches = zip(x.split(size), y.split(size), strict=True)
            found = torch.cat([attack(net, *both, eps, seed) for both in batches])
        return _left(net, found, y)

    return {
        "cappaper": Hand(ours, _SIZES),
        "torchattacks": Hand(partial(peer, PGD["torchattacks"]), _SIZES),
    }


def _training(bench: Bench, seeds: list[int]) -> dict[str, Hand]:
    """One epoch of 30 batches: as populations, and network by network with torch's own Adam.

    ``seeds`` are of the order in which each network sees its batches.
    """
    x, y = (t[: 30 * 128] for t in bench.train)

    def nets() -> list[nn.Module]:
        made = [cappaper.mlp(28 * 28, HIDDEN, seed=seed) for seed in range(MEMBERS)]
        return [net.to(x.device) for net in made]

    def populations(at_once: int, _: int) -> None:
        made = nets()
        for first in range(0, MEMBERS, at_once):
            some = slice(first, first + at_once)
            population = cappaper.Population(made[some])
            cappaper.fit(population, x, y, epochs=1, batch_size=128, seed=seeds[some])

    def loop(*_: int) -> None:
        for seed, net in zip(seeds, nets(), strict=True):
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
            for batch in order.to(x.device).split(128):
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()

    return {"cappaper": Hand(populations, (12, 18, 36)), "a loop of torch's Adam": Hand(loop)}


def _step(bench: Bench) -> dict[str, Hand]:
    """Steps in which nothing is finished, against their matrix products and nothing else."""
    net = bench.nets["ReLU"]
    x, y = (t[:1024] for t in bench.test)
    weights = [m.weight.detach() for m in net.modules() if isinstance(m, nn.Linear)]

    def step(*_: int) -> None:
        cappaper.pgd(net, x, y, EPS, steps=STEPS, early_exit=False, random_start=False)

    def products(*given: int) -> None:
        for _ in range(STEPS):
            z = x.flatten(1)
            for weight in weights:
                z = F.linear(z, weight)
            for weight in reversed(weights):
                z = F.linear(z, weight.t())

    return {"cappaper": Hand(step), "its matrix products alone": Hand(products)}


def _left(net: nn.Module, found: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        right: Tensor = net(found).argmax(-1) == y
    return right.double().mean().item()


def growth(bench: Bench) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """How cost grows: what grows, to how much, and the work."""
    x, y = (t[:512] for t in bench.test)
    some = tuple(t[: 8 * 128] for t in bench.train)
    mlp = partial(cappaper.mlp, 28 * 28)
    for members in (1, 4, 16, 64, 256):
        nets = [mlp(HIDDEN, seed=seed).to(x.device) for seed in range(members)]
        population = cappaper.Population(nets)
        yield (
            "members trained as one, 8 steps",
            members,
            partial(cappaper.fit, population, *some, epochs=1),
        )
    for width in (32, 128, 512, 2048):
        net = mlp([width, width]).to(x.device)
        yield (
            "width, PGD-40 on 512 images",
            width,
            partial(cappaper.pgd, net, x, y, EPS, early_exit=False),
        )
    for count in (1, 2, 4, 8, 16, 32):
        radii = [0.32 * (i + 1) / count for i in range(count)]
        yield (
            "radii, PGD-40 on 512 images",
            count,
            partial(cappaper.robustness_curve, bench.nets["ReLU"], x, y, cappaper.pgd, radii),
        )

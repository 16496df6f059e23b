"""Values that make no sense for a parameter, or are unusual and right: factories, by kind."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import cappaper

Make = Callable[[], Any]
NAN, INF = float("nan"), float("inf")


class Raises(nn.Module):
    """A model with a mistake of its own, which is not ours to explain."""

    def forward(self, x):
        raise KeyError("a mistake of the user's")


class Returns(nn.Module):
    """A model whose output is changed by ``after``."""

    def __init__(self, after):
        super().__init__()
        self.net, self.after = net(), after

    def forward(self, x):
        return self.after(self.net(x))


class Mistake(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(64, 10)

    def forward(self, x):
        return self.lin(x.flatten(1))


def net(**changes: Any) -> nn.Sequential:
    return cappaper.mlp(64, [8], beta=0.5, **changes)


def poisoned(value: float) -> nn.Module:
    model = net()
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    return model


def frozen() -> nn.Module:
    return net().requires_grad_(False)


def images() -> torch.Tensor:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def labels() -> torch.Tensor:
    return torch.tensor([3, 0, 9, 1])


NUMBERS: list[Make] = [
    *(
        partial(float, v)
        for v in ("nan", "inf", "-inf", "-1", "0", "-0.0", "1e308", "5e-324", "2.5")
    ),
    *(partial(int, v) for v in (0, -1, -3)),
    lambda: "0.1",
    lambda: "",
    lambda: None,
    lambda: True,
    list,
    lambda: [0.1, 0.2],
    dict,
    lambda: 1 + 2j,
    lambda: Decimal("0.1"),
    lambda: np.float32(0.1),
    lambda: np.array([0.1, 0.2]),
    lambda: torch.tensor(0.1),
    lambda: torch.tensor([0.1, 0.2]),
    lambda: torch.tensor(NAN),
    object,
    lambda: len,
]
SEQUENCES: list[Make] = [
    *NUMBERS,
    lambda: [NAN],
    lambda: [-1],
    lambda: [None],
    lambda: ["a"],
    lambda: "abc",
    lambda: [[1, 2]],
    lambda: (0,),
    lambda: {1: 2},
    lambda: iter([8]),
    lambda: [2.5],
]
NAMES: list[Make] = [
    *(partial(str, v) for v in ("", "LINF", "l3", "pdg", "ε")),
    *(lambda v=v: v for v in (None, 0, 1.5, [], ["linf"], b"linf", object())),
]
IMAGES: list[Make] = [
    lambda: None,
    lambda: "images",
    lambda: 0.5,
    list,
    lambda: images().numpy(),
    lambda: images().tolist(),
    lambda: images().int(),
    lambda: (images() * 255).byte(),
    lambda: images() * 255,
    lambda: images() - 1,
    lambda: images() > 0.5,
    lambda: images().half(),
    lambda: images().bfloat16(),
    lambda: images().double(),
    lambda: images().to(torch.complex64),
    lambda: images()[:0],
    lambda: images()[:3],
    lambda: images()[0],
    lambda: images()[:, 0],
    lambda: images().flatten(1),
    lambda: images()[..., :7],
    lambda: images().flatten(),
    lambda: images().sum() / 1000,
    lambda: images().expand(4, 3, 8, 8),
    lambda: images()[:1].expand(4, 1, 8, 8),
    lambda: images().transpose(2, 3),
    lambda: images().flip(0)[::1],
    lambda: images().requires_grad_(),
    lambda: images().fill_(NAN),
    lambda: images().fill_(INF),
    lambda: images().to_sparse(),
    lambda: images().to("meta"),
    lambda: images()[None],
]
LABELS: list[Make] = [
    lambda: None,
    lambda: "labels",
    lambda: 3,
    lambda: [3, 0, 9, 1],
    lambda: labels().numpy(),
    lambda: labels().int(),
    lambda: labels().float(),
    lambda: labels() > 1,
    lambda: labels() + 1,
    lambda: labels() - 1,
    lambda: labels() * 10**9,
    lambda: labels()[:3],
    lambda: labels()[:0],
    lambda: labels()[0],
    lambda: labels()[:, None],
    lambda: labels()[None],
    lambda: nn.functional.one_hot(labels(), 10),
    lambda: nn.functional.one_hot(labels(), 10).float(),
    lambda: labels().to("meta"),
    lambda: labels()[:1].expand(4),
]
MODELS: list[Make] = [
    lambda: None,
    lambda: "resnet18",
    lambda: 3,
    list,
    lambda: nn.Linear,
    lambda: nn.Linear(64, 10),
    lambda: nn.Identity(),
    lambda: nn.Sequential(),
    lambda: nn.Flatten(),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(63, 10)),
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
    lambda: net().half(),
    lambda: net().double(),
    lambda: net().to("meta"),
    lambda: net().state_dict(),
    frozen,
    lambda: poisoned(NAN),
    lambda: poisoned(INF),
    lambda: poisoned(0.0),
    lambda: lambda x: x,
    lambda: lambda x: torch.zeros(len(x), 10),
    lambda: lambda: None,
    lambda: Returns(lambda out: (out, out)),
    lambda: Returns(lambda out: {"logits": out}),
    lambda: Returns(lambda out: None),
    lambda: Returns(lambda out: out.detach()),
    lambda: Returns(lambda out: out.detach().numpy()),
    lambda: Returns(lambda out: out.argmax(-1)),
    lambda: Returns(lambda out: out.round().long()),
    lambda: Returns(lambda out: out[:1]),
    lambda: Returns(lambda out: out[None]),
    lambda: Returns(lambda out: out.sum()),
    lambda: Returns(lambda out: out.to(torch.complex64)),
    lambda: Returns(lambda out: out * NAN),
    lambda: Returns(lambda out: out * INF),
    lambda: Returns(lambda out: out > 0),
    Raises,
    Mistake,
    lambda: nn.DataParallel(net()),
    lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)),
    lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
    lambda: cappaper.Population([net(), net(seed=1)]),
]
CALLABLES: list[Make] = [
    *NAMES,
    lambda: lambda: None,
    lambda: lambda *given: None,
    lambda: lambda *given: "x",
    lambda: lambda *given: torch.tensor(1.0),
    lambda: lambda *given: given[0] * NAN if torch.is_tensor(given[0]) else None,
    lambda: lambda *given: 1 / 0,
    lambda: partial(cappaper.pgd, eps=0.1, steps=2),
]

"""Attacks that are interrupted at a random moment, and attacks in threads that share a model."""

import copy
import random
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cappaper
from tests.trust.nonsense import CALLS, value_of

ATTACKS = ("pgd", "adaptive_pgd", "apgd", "square", "strongest_attack", "auto_attack", "cw_l2")


class Brake(nn.Module):
    """A layer that is interrupted after ``left`` more calls, and moves a buffer at each."""

    left = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("moved", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        self.moved = self.moved + 1
        if self.left < 0:
            raise KeyboardInterrupt
        return x


def trial(draw: random.Random, _: Path) -> None:
    """Interrupt an attack by a signal or, on a population, in a layer; then look at the model."""
    name, together = draw.choice(ATTACKS), draw.random() < 0.5
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.ReLU6(), Brake(), nn.Linear(8, 10)]
    model: Any = nn.Sequential(*layers).train()
    model = cappaper.Population([model, copy.deepcopy(model)]) if together else model
    attack, (x, _) = _bound(name, model, 2 if together else 0)
    kept = copy.deepcopy(model.state_dict())
    brake = model.template[3] if together else model[3]
    before, start = _state(model, x), time.monotonic()
    model.load_state_dict(kept)
    attack()
    taken, passes = time.monotonic() - start, 10**9 - brake.left
    with suppress(KeyboardInterrupt):
        if together:
            brake.left = draw.randrange(passes)
        else:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, taken))
        attack()
        signal.setitimer(signal.ITIMER_REAL, 0)  # it came to its end
    brake.left = 10**9
    (hooks, *after), (hooks_before, *state) = _state(model, x), before
    # A signal while torch registers a hook can leave this one, and it does nothing.
    assert 0 <= hooks - hooks_before <= (not together), f"after {name} hooks are left"
    same = partial(torch.testing.assert_close, atol=0, rtol=0)
    same(after, state, msg=lambda said: f"after {name}: {said}")


def shared(draw: random.Random, _: Path) -> None:
    """Four attacks on one network at once: each finds what it finds alone."""
    model = cappaper.pretrained("cap-0.2")
    names = draw.sample([n for n in ATTACKS if n != "auto_attack"], 4)  # it seeds all of torch
    attacks = [_bound(name, model, side=28)[0] for name in names]
    alone = [attack() for attack in attacks]
    with ThreadPoolExecutor(4) as pool:
        together = [run.result() for run in [pool.submit(attack) for attack in attacks]]
    torch.testing.assert_close(together, alone, atol=0, rtol=0, msg=f"of {names}")


def _bound(name: str, model: nn.Module, members: int = 0, side: int = 8) -> tuple[Any, Any]:
    """A short run of an attack, and its images and labels, those of each member."""
    x, y = torch.rand(4, 1, side, side), torch.tensor([3, 0, 9, 1])
    x, y = (t.expand(members, *t.shape).clone() if members else t for t in (x, y))
    given = value_of(f"dict({CALLS[name]})") | {"model": model, "x": x, "y": y}

    def run() -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(cappaper, name)(**given)

    return run, (x, y)


def _state(model: nn.Module, x: Tensor) -> Any:
    """How many hooks there are, the next gradient, all buffers, and the modes."""
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(point).square().sum(), point)
    parts = {*model.modules(), *getattr(model, "template", model).modules()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in parts)
    modes = [m.training for m in parts] + [torch.is_grad_enabled()]
    return hooks, gradient, [b.clone() for b in model.buffers()], modes

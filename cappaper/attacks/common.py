"""What attacks share: a look at the model, batches, steps on the examples left, and unions."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar
from weakref import WeakSet

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.attacks.balls import Linf, choose
from cappaper.population import Population, set_mode
from cappaper.progress import Progress, watched

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]  # as partial(pgd, eps=0.1)
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits [N, classes] and labels [N]; attacks raise it

_BATCH_ON_CPU = 2048  # larger batches do not fit the cache, smaller ones leave cores idle
_DROP_BELOW = 0.9  # drop finished examples once this share of the batch, or less, is left
_LOOKS = 8  # passes that show whether a model is stochastic
_DRAWS = 64  # passes over which a stochastic model is evaluated


class Averaged(nn.Module):
    """A stochastic model, evaluated by the sum of its probabilities over some passes.

    Source: expectation over transformation, Athalye et al., arXiv 1802.00420, section 4.2; the
    loss is that of the mean, as in Salman et al., arXiv 1906.04584, equation 6.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model, self.samples = model, samples

    def forward(self, x: Tensor) -> Tensor:
        passes = [self.model(x).log_softmax(-1).clamp(min=-1e4) for _ in range(self.samples)]
        return torch.stack(passes).logsumexp(0)


def is_fooled(logits: Tensor, labels: Tensor, targeted: bool = False) -> Tensor:
    """Which examples are misclassified or, if ``targeted``, classified as the label; not if NaN."""
    top, found = logits.max(-1)
    return ((found != labels) ^ targeted) & ~top.isnan()


def predict(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Checked logits without a graph; a stochastic model is averaged over many draws."""
    if isinstance(model, Averaged):
        model = Averaged(model.model, max(model.samples, _DRAWS))
    with torch.no_grad():
        logits = checks.logits_of(model, x, y)
    checks.warn_of_nan(logits)
    return logits


def is_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which examples the model classifies correctly, ``[B]`` or ``[M, B]``; NaN counts as wrong."""
    return is_fooled(predict(model, x, y), y, targeted=True)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The true class's logit minus the largest other one; below 0 where misclassified."""
    true = labels.unsqueeze(-1)
    others = logits.scatter(-1, true, -torch.inf).amax(-1)
    return logits.gather(-1, true).squeeze(-1) - others


LOSSES: dict[str, Loss] = {
    "cross-entropy": lambda logits, labels: F.cross_entropy(logits, labels, reduction="sum"),
    "margin": lambda logits, labels: -margin(logits, labels).sum(),
}


def look(model: nn.Module, x: Tensor, y: Tensor, samples: int = 1) -> nn.Module:
    """Warn of what makes attacks weak; returns the model, or its :class:`Averaged`, to attack."""
    if isinstance(model, Averaged):
        return model
    batch, count = y.ndim - 1, min(2, y.shape[-1])
    few, labels = x.narrow(batch, 0, count), y.narrow(batch, 0, count)
    first, label = few.narrow(batch, 0, 1), labels.narrow(batch, 0, 1)
    # The first image in another batch, beside its negative.
    another = torch.cat([first, 1 - first], batch), torch.cat([label, label], batch)
    passes, put_back = [], _save(model)
    with undisturbed(model), torch.no_grad():
        for images, known in [another, *[(few, labels)] * _LOOKS]:
            passes.append(checks.logits_of(model, images.clone(), known))
            put_back()
    in_another, one, *others = passes
    if one.isnan().all():
        raise ValueError("the model's logits are NaN: its weights or its input are not finite")
    checks.warn_of_probabilities(one)
    scale = one.topk(2).values.abs().nan_to_num().max()  # impossible classes have -1e9 or -∞

    def differ(one: Tensor, other: Tensor, tolerance: float) -> bool:
        return bool((one - other).abs().nan_to_num().max() > tolerance * scale)

    draws = differ(one, torch.stack(others), 1e-4)
    if draws and samples == 1:
        checks.warn(
            "the model is stochastic: passes differ, so no image stops at its first success."
            " pgd and adaptive_pgd follow the mean of 20 passes with samples=20;"
            " dropout in train mode needs model.eval()"
        )
    elif not draws and differ(one.select(batch, 0), in_another.select(batch, 0), 0.03):
        checks.warn("logits depend on the batch: BatchNorm in train mode needs model.eval()")
    return Averaged(model, samples) if draws or samples > 1 else model


def in_batches(
    attack: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    batch_size: int | None,
    progress: Progress | None,
) -> Tensor:
    """The results of ``attack(x, y)`` on batches, whose size counts the examples of all members."""
    if batch_size is not None:
        checks.count(batch_size, "batch_size")
    elif x.device.type == "cpu":
        batch_size = _BATCH_ON_CPU
    batch, count = y.ndim - 1, y.shape[-1]
    size = max(1, (batch_size or y.numel()) * count // y.numel())
    size = min(size, count // 10 + 1) if progress else size  # so that there is progress
    # A single example that is left joins the batch before: BatchNorm may refuse it alone.
    starts = [*range(size, count - (size > 1), size)]  # of all batches but the first
    with undisturbed(model):
        # A tensor made in inference mode has no gradient; its clone has.
        x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
        parts = (t.tensor_split(starts, batch) for t in (x, y))
        batches = watched(list(zip(*parts, strict=True)), progress, "batches")
        results = [attack(images, labels) for images, labels in batches]
    return torch.cat(results, batch)


_open: dict[int, tuple[WeakSet[Any], Any]] = {}  # by model: its open blocks, and what restores it
_lock = threading.Lock()


@contextmanager
def undisturbed(model: nn.Module, *, in_eval_mode: bool = False) -> Iterator[None]:
    """Gradients are on inside the block; after it, the model's buffers and modes are as before.

    A forward pass may change a BatchNorm's statistics, a counter or an observer's range. Blocks may
    be nested, or run in several threads: the last one to end restores what the first one found.
    """
    block, grad = lambda: None, torch.is_grad_enabled()  # a lambda: _open refers to it weakly

    def end() -> None:
        with _lock:
            blocks, put_back = _open.get(id(model), (WeakSet[Any](), None))
            blocks.discard(block)
            if put_back and not blocks:
                put_back()
                del _open[id(model)]
        torch.set_grad_enabled(grad)

    with ExitStack() as again, ExitStack() as stack:  # again: an interrupt may end the first
        for each in (again, stack):
            each.callback(end)
        with _lock:
            if not (id(model) in _open and _open[id(model)][0]):
                _open[id(model)] = WeakSet(), _save(model)
            _open[id(model)][0].add(block)
            if in_eval_mode:
                set_mode(model, False)
        with torch.inference_mode(False), torch.enable_grad():
            yield


def _save(model: nn.Module) -> Callable[[], None]:
    """A function that puts modes and buffers back."""
    parts = [*model.modules()] if isinstance(model, nn.Module) else []
    shared = [p for part in parts if isinstance(part, Population) for p in part.template.modules()]
    modes = [(part, part.training) for part in (*parts, *shared) if hasattr(part, "training")]
    # torch has no public list that names a buffer of None, which a forward pass may fill.
    named: list[Any] = [(part, *b) for part in parts for b in part._buffers.items()]
    kept = {b: b.clone() for *_, b in named if b is not None and b.layout == torch.strided}

    def put_back() -> None:
        for part, training in modes:  # parents first
            if part.training != training:
                set_mode(part, training)  # a train method of the user's may do more
            part.training = training
        for part, name, buffer in named:
            setattr(part, name, buffer)  # a forward pass may have put another in its place
            if buffer in kept and not torch.equal(buffer, kept[buffer]):
                # Graphs from before hold the value that is put back: data keeps them valid.
                buffer.resize_(kept[buffer].shape).data.copy_(kept[buffer])

    return torch.no_grad()(put_back)


@dataclass
class State:
    """What an attack knows about each example; with ``stops``, finished examples do not move."""

    ball: Linf
    stops: bool
    x: Tensor
    y: Tensor
    here: Tensor

    def __post_init__(self) -> None:
        self.project = self.ball.projection(self.x)
        self.running = torch.ones_like(self.y, dtype=torch.bool)

    def select(self: "S", left: Tensor) -> "S":
        """The state of examples at positions ``left``, which run until a step stops them again."""
        batch, chosen = self.y.ndim - 1, dict[str, Any]()
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), Tensor):
                chosen[field.name] = value.index_select(batch, left)
        return replace(self, **chosen)

    def stop(self, finished: Tensor) -> None:
        if self.stops:
            self.running = self.running & ~finished

    def move(self, ahead: Tensor) -> None:
        if self.stops:  # in place, as all passes over images: memory costs more than arithmetic
            ahead = choose(self.running, ahead, self.here, out=ahead)
        self.here = ahead


S = TypeVar("S", bound=State)


def climb(step: Callable[[int, S], None], state: S, numbers: Iterable[int]) -> Tensor:
    """Call ``step(number, state)`` for each number on the examples left; returns where all end."""
    batch, end = state.y.ndim - 1, state.here
    index = torch.arange(state.y.shape[-1], device=end.device)  # where the examples left belong
    look_every = 1 if end.device.type == "cpu" else 8  # on a GPU, looking waits for the device
    for number in numbers:
        if state.stops and number % look_every == 0:
            left = left_over(state.running)
            if len(left) <= _DROP_BELOW * len(index):
                end, index = end.index_copy(batch, index, state.here), index[left]
                if not len(left):
                    return end
                state = state.select(left)
        step(number, state)
    return end.index_copy(batch, index, state.here)


def left_over(running: Tensor) -> Tensor:
    """The positions of examples that some member still works on, ascending."""
    some = running.reshape(-1, running.shape[-1]).any(0)
    if some.sum() == 1:  # add another one: BatchNorm in train mode refuses a batch of one
        some[some.int().argmin()] = True
    return some.nonzero().squeeze(1)


def run_in_turn(
    model: nn.Module,
    attacks: Sequence[Callable[..., Tensor]],
    x: Tensor,
    y: Tensor,
    *more: Tensor,
    targeted: bool = False,
) -> Tensor:
    """Examples after attacks ``attack(x, y, *more) -> x_adv``, each run on what is still robust."""
    adversarial, batch = x, y.ndim - 1
    for attack in attacks:
        logits = predict(model, adversarial, y)
        robust = ~is_fooled(logits, y, targeted)
        left = left_over(robust)
        if not len(left):
            break
        results = attack(*(t.index_select(batch, left) for t in (x, y, *more)))
        candidate = adversarial.index_copy(batch, left, results)
        if isinstance(model, Averaged):  # the example with the worse mean over draws is kept
            worse = margin(predict(model, candidate, y), y) < margin(logits, y)
            robust = robust & (worse ^ targeted)
        adversarial = choose(robust, candidate, adversarial)
    return adversarial

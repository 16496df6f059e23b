"""Standard and adversarial training of a network or a population, with checkpoints."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU, M, ScaledSigmoid
from cappaper.attacks.common import Attack
from cappaper.files import atomic
from cappaper.population import Population, described, layout, members, set_mode
from cappaper.progress import Progress, watched


def fit(
    model: M,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float | Callable[[int, int], float] = 1e-3,
    attack: Attack | None = None,
    attack_at: Callable[[int, int], Attack] | None = None,
    seed: int | Sequence[int] = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> M:
    """Train in place with Adam on the cross-entropy; the same seed trains the same network.

    Source of adversarial training: Madry et al., arXiv 1706.06083, equation 2.1: every batch is
    replaced by the examples that ``attack`` makes of it.

    Args:
        model: one network, or a :class:`~cappaper.Population`; it is returned, in eval mode. Each
            member sees its own batches, in the order of its own seed, so the others change its
            result by rounding alone. Layers that draw at random are the exception: all members
            draw from the first member's seed.
        x: images ``[N, ...]`` in [0, 1], on the model's device.
        y: int64 labels ``[N]``.
        epochs, batch_size: passes over the data, and examples in a step. The last step takes what
            is left; a single example joins the step before, since BatchNorm refuses it alone.
        lr: Adam's learning rate, or a schedule ``lr(step, steps)``, which may return 0.
        attack: ``attack(model, x, y) -> x_adv``. Bind ``early_exit=False`` in
            :func:`~cappaper.pgd`: training needs the end of each run, not its first success.
        attack_at: instead of ``attack``: ``attack_at(step, steps)`` returns the attack for a step,
            so that ε can grow, and every step can have new random starts.
        seed: for the order of batches, and for dropout and the like: one number, or one for each
            member. The global random state stays as it was.
        checkpoint: a file for the state after every epoch. If it exists, training resumes from it
            to the same result, dropout on a CPU included. The file stays when training ends. Give
            each network its own: the file's weights replace the model's, whatever they were.
        progress: True for a bar; or a function that is called after every epoch, and when training
            resumes, with (epochs done, epochs in all). It may read ``model``, in train mode then.

    Raises:
        ValueError: ``checkpoint`` is damaged, or belongs to a training with other data, caps or
            settings. Functions are compared by their code and by the values that they bind.
        TypeError, ValueError: images, labels or counts as in :func:`~cappaper.pgd`; a learning rate
            that is not above 0; a wrong number of seeds; both ``attack`` and ``attack_at``;
            or training diverges.

    >>> from functools import partial
    >>> from cappaper import load, mlp, pgd
    >>> x, y = load("digits", "train", limit=256)
    >>> madry = partial(pgd, eps=0.1, steps=7, early_exit=False)
    >>> net = fit(mlp(64, [32]), x, y, epochs=1, attack=madry)
    """
    checks.batch(x, y)
    checks.count(epochs, "epochs")
    checks.count(batch_size, "batch_size")
    checks.module(model)
    if not callable(lr):
        checks.positive(lr, "the learning rate")
    if attack is not None and attack_at is not None:
        raise ValueError("got both attack and attack_at: give one of them")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no weights to train: none requires a gradient")
    count = len(model) if isinstance(model, Population) else 1
    seeds = checks.each(seed, count, "seed", "networks", whole=True)
    seeded = [torch.Generator().manual_seed(s) for s in seeds]
    set_mode(model, True)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    starts = range(0, max(1, len(y) - (batch_size > 1)), batch_size)
    steps = epochs * len(starts)
    done, stored, gpus = 0, None, [x.device] if x.is_cuda else []
    with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad():
        # Dropout and the like draw from the first seed. torch.manual_seed would reseed every GPU.
        own = (torch.cuda.default_generators[gpu.index] for gpu in gpus)
        for generator in (torch.default_generator, *own):
            generator.manual_seed(seeds[0])
        if checkpoint is not None:
            about = _identity(model, x, y, seeds, epochs, batch_size, lr, attack, attack_at)
            stored = _Checkpoint(Path(checkpoint), about, model, optimizer, seeded)
            done = stored.resume(epochs)
            if done and callable(progress):
                progress(done, epochs)
        for epoch in range(done, epochs):
            order = torch.stack([torch.randperm(len(y), generator=g, device="cpu") for g in seeded])
            batches = torch.tensor_split(order.to(y.device), [*starts[1:]], dim=1)
            shown = watched(batches, progress is True, f"epoch {epoch + 1} of {epochs}")
            for step, batch in enumerate(shown, epoch * len(starts)):
                chosen = batch if isinstance(model, Population) else batch[0]
                images, labels = x[chosen].detach(), y[chosen]
                current = attack if attack_at is None else attack_at(step, steps)
                first = step == done * len(starts)  # only then is the input checked
                if current is not None:
                    checks.untargeted(current)
                    clean = images  # the attack may work in place
                    images = current(model, images.clone(), labels.clone())
                    if first:
                        checks.adversarial(images, clean)
                    if not model.training:  # an attack may have changed the mode
                        set_mode(model, True)
                rate = lr(step, steps) if callable(lr) else lr
                checks.number(rate, "the learning rate", 0)  # a schedule may begin or end with 0
                optimizer.param_groups[0]["lr"] = float(rate)
                optimizer.zero_grad()
                logits = checks.logits_of(model, images, labels) if first else model(images)
                # The sum over members of their mean losses: no gradient depends on another member.
                loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
                (loss / batch.shape[1]).backward()
                optimizer.step()
                torch.clear_autocast_cache()  # else a user's autocast goes on with the old weights
            helps = "try a smaller learning rate"
            if not all(p.isfinite().all() for p in model.parameters()):
                raise ValueError(f"training diverged: weights are not finite; {helps}")
            layers = nn.ModuleList(members(model)).modules()
            if not all((part.beta > 0).all() for part in layers if isinstance(part, CappedReLU)):
                raise ValueError(f"training moved a learned max value β to 0 or below: {helps}")
            if stored is not None:
                stored.save(epoch + 1)
            if callable(progress):
                progress(epoch + 1, epochs)
    optimizer.zero_grad()
    set_mode(model, False)
    return model


def _identity(model: nn.Module, x: Tensor, y: Tensor, *settings: Any) -> str:
    """A digest of the architecture, constants, data and settings of a training."""
    shape = [*layout(model.template if isinstance(model, Population) else model, strict=False)]
    # A learned cap is a parameter and moves; a fixed one is a buffer.
    layers = nn.ModuleList(members(model)).modules()
    constants = [[*a.buffers()] for a in layers if isinstance(a, CappedReLU | ScaledSigmoid)]
    return hashlib.sha256(described((shape, constants, settings, x, y)).encode()).hexdigest()


@dataclass
class _Checkpoint:
    """The file of one training's state. ``about`` is its :func:`_identity`."""

    path: Path
    about: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    generators: Sequence[torch.Generator]

    def save(self, epoch: int) -> None:
        """Write the state after so many epochs; a reader never sees half a file."""
        state = {
            "about": self.about,
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "global": torch.get_rng_state(),  # of dropout and the like
        }
        # Through memory: on a full disk, Python's own error says so, and torch's does not.
        torch.save(state, stored := io.BytesIO())
        with atomic(self.path) as unfinished:
            unfinished.write_bytes(stored.getvalue())

    def resume(self, epochs: int) -> int:
        """Restore the state; returns how many of the ``epochs`` are done, 0 if there is no file."""
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            other, epoch, weights = (state[key] for key in ("about", "epoch", "model"))
        except FileNotFoundError:  # or another run has just finished with it
            return 0
        except Exception as error:
            raise ValueError(f"{self.path} is not a training checkpoint: delete it") from error
        if other != self.about:
            raise ValueError(f"{self.path} belongs to another training: delete it or rename it")
        finite = all(weights[name].isfinite().all() for name, _ in self.model.named_parameters())
        if not (finite and epoch in range(1, epochs + 1)):
            raise ValueError(f"{self.path} is damaged: delete it")
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, before in zip(self.generators, state["generators"], strict=True):
            generator.set_state(before)
        torch.set_rng_state(state["global"])
        return int(epoch)

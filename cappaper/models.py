"""Networks like the paper's, the same network under another cap, and trained networks."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from cappaper import checks
from cappaper.activations import Activation, CappedReLU, copy_of

WEIGHTS = Path(__file__).with_name("weights")
#: The names that :func:`pretrained` knows.
PRETRAINED = tuple(sorted(path.stem for path in WEIGHTS.glob("*.safetensors")))


def mlp(
    in_features: int,
    hidden: Sequence[int],
    *,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A fully connected classifier of images ``[B, 1, H, W]`` with capped hidden layers.

    Args:
        in_features: pixels of an image (channels × height × width).
        hidden: units of each hidden layer, from the input on, for example ``[300, 100]``.
        num_classes: number of classes; the network returns logits ``[B, num_classes]``.
        beta: the max value of every hidden layer, or one per hidden layer; ``inf`` is ReLU.
        seed: seed of torch's default initialisation; the global random state stays as it was.
        activation: makes a layer from its ``beta``, such as :class:`~cappaper.ScaledSigmoid`.

    Raises:
        TypeError, ValueError: a width that is not a whole number of at least 1; a ``beta`` that is
            not above 0, or too many or too few.

    >>> mlp(784, [300, 100], beta=[0.1, math.inf])(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    hidden = checks.sequence(hidden, "hidden", "widths", empty=True)
    caps = checks.per_layer(beta, len(hidden))
    return _network(in_features, [], [*hidden, num_classes], caps, seed, activation)


def convnet(
    side: int,
    hidden: Sequence[int],
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A classifier of 5×5 convolutions with stride 2 and one dense layer, all capped.

    Args:
        side: height and width of an image.
        hidden: filters of each convolution, at least one, from the input on, then units of the
            dense layer, for example ``[8, 16, 100]``.
        in_channels: of the images ``[B, in_channels, side, side]``.
        num_classes, beta, seed, activation: as :func:`mlp`; so are the errors.

    >>> convnet(28, [8, 16, 100], beta=0.5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    hidden = checks.sequence(hidden, "hidden", "widths")
    if len(hidden) < 2:
        raise ValueError("hidden must hold at least one convolution and the dense layer")
    filters, units = [in_channels, *hidden[:-1]], [hidden[-1], num_classes]
    return _network(side, filters, units, checks.per_layer(beta, len(hidden)), seed, activation)


def _network(
    size: int, filters: list[int], units: list[int], caps: list[float], seed: int, make: Activation
) -> nn.Sequential:
    """A network of convolutions, then dense layers; a cap follows every layer but the last."""
    for width in (size, *filters, *units):
        checks.count(width, "every width of a network")
    checks.whole(seed, "the seed")
    generator = torch.Generator().manual_seed(int(seed))  # threads share the global one

    def drawn(kind: type[nn.Module], *sizes: int, **settings: int) -> nn.Module:
        """A layer with torch's default initialisation, drawn from this generator alone."""
        layer: nn.Module = nn.utils.skip_init(kind, *sizes, **settings)
        weight, bias = layer.parameters()
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(bias, -bound, bound, generator=generator)
        return layer.to(torch.get_default_device())

    layers: list[nn.Module] = []
    for before, after, cap in zip(filters, filters[1:], caps, strict=False):
        layers += [drawn(nn.Conv2d, before, after, kernel_size=5, stride=2, padding=2), make(cap)]
        size = math.ceil(size / 2)
    layers.append(nn.Flatten())
    widths = [filters[-1] * size**2 if filters else size, *units]
    for before, after, cap in zip(widths, units[:-1], caps[1 - len(units) :], strict=False):
        layers += [drawn(nn.Linear, before, after), make(cap)]
    return nn.Sequential(*layers, drawn(nn.Linear, *widths[-2:]))


def rescale(model: nn.Sequential, beta: float | Sequence[float]) -> nn.Sequential:
    """Copy a network with other max values and the same logits.

    A cap is only a scale: ``a(z, β) = (β/β') · a((β'/β) · z, β')``. So a layer's weights and bias
    are multiplied by β'/β, and the next layer's weights divided by it.

    Args:
        model: as :func:`mlp` or :func:`convnet` give it, with :class:`CappedReLU` layers.
        beta: the new max value of every capped layer, or one per layer; ``inf`` where it was ∞.

    Raises:
        ValueError: the model is not an nn.Sequential in which weighted layers and caps alternate,
            or shares weights; a finite value for ∞ or the reverse; or a wrong number of values.

    >>> net = mlp(64, [32, 16], beta=1.0)
    >>> x = torch.rand(5, 1, 8, 8)
    >>> torch.allclose(net(x), rescale(net, 0.05)(x), atol=1e-5)
    True
    """
    model = copy_of(model)
    layers = model if isinstance(model, nn.Sequential) else []
    parts: list[Any] = [part for part in layers if not isinstance(part, nn.Flatten)]
    weighted, caps = parts[::2], parts[1::2]
    known = [type(part) in (nn.Linear, nn.Conv2d) for part in weighted]
    known += [isinstance(cap, CappedReLU) for cap in caps]
    weights = [weight for part in parts for weight in part.parameters()]
    known += [len({*own}) == len(own) for own in (parts, weights)]
    if not all(known) or len(weighted) == len(caps) or checks.has_hooks(model):
        raise ValueError("rescale needs an mlp or convnet without hooks or shared layers")
    factors = [1.0]
    with torch.no_grad():
        for cap, new in zip(caps, checks.per_layer(beta, len(caps)), strict=True):
            if math.isinf(old := cap.beta.item()) != math.isinf(new):
                raise ValueError(f"a cap at {old:g} cannot be rescaled to {new:g}, finite or not")
            cap.beta.copy_(CappedReLU(new).beta)  # CappedReLU refuses a bad value
            factors.append(1.0 if math.isinf(old) else new / old)
        for part, before, after in zip(weighted, factors, [*factors[1:], 1.0], strict=True):
            part.weight.mul_(after / before)
            if part.bias is not None:
                part.bias.mul_(after)
    return model


def pretrained(name: str) -> nn.Sequential:
    """A network of the book, trained on MNIST, with hidden layers of 300 and 100 units and seed 0.

    Args:
        name: one of ``cappaper.PRETRAINED``, or a ValueError is raised. It has the cap of both
            layers, or ``"relu"``, and the ε of adversarial training: ``"-adversarial"`` is 0.3,
            ``"-adversarial-0.1"`` is 0.1.

    Returns:
        A module in eval mode, from images ``[B, 1, 28, 28]`` in [0, 1] to logits ``[B, 10]``. Its
        weights are stored in half precision.

    >>> pretrained("cap-0.05")(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    header = about(name)
    model = mlp(784, header["hidden"], beta=[float(beta) for beta in header["beta"]])
    model.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return model.eval()


def about(name: str) -> dict[str, Any]:
    """The widths, caps, training, data and seed of a network of :func:`pretrained`."""
    checks.one_of(name, PRETRAINED, "network")
    with safe_open(WEIGHTS / f"{name}.safetensors", framework="pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}

"""Calls of public functions with one or two odd arguments: a sentence, or a right answer."""

import random
import signal
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import export, nn

import cappaper

PATIENCE = 60  # seconds, after which a call hangs
CALLER = "<the caller's>"  # the file name of code in an odd argument
SHARES = ("standard", "standard_accuracy", "robust_accuracy", "pgd", "strongest", "zero_gradient")


class Returns(nn.Module):
    """A model whose output is changed by ``after``."""

    def __init__(self, after: Any) -> None:
        super().__init__()
        self.net, self.after = net(), after

    def forward(self, x: torch.Tensor) -> Any:
        return self.after(self.net(x))


class Threaded(nn.Module):
    """A model that runs in another thread."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.net, x).result()


def net() -> nn.Sequential:
    return cappaper.mlp(64, [8], beta=0.5)


def exported(x: torch.Tensor) -> nn.Module:
    """A model as torch exports it, for batches of any size."""
    return export.export(net(), (x,), dynamic_shapes=[{0: export.Dim("n", min=1)}]).module()


def filled(value: float) -> nn.Module:
    """A model with all weights of its first layer at one value."""
    model = net()
    nn.init.constant_(next(model.parameters()), value)
    return model


BATCH = "model=net(), x=x, y=y, "
# Arguments of a call that works, for each public function.
SHORT = ("fgsm", "certify", "certified_accuracy", "exact_robustness")
CALLS = dict.fromkeys(SHORT, BATCH + "eps=0.1") | {
    "pgd": BATCH + "eps=0.1, steps=3, step_size=0.01, batch_size=2",
    "adaptive_pgd": BATCH + "eps=0.1, steps=3, sharpnesses=(10.0,), losses=('margin',)",
    "apgd": BATCH + "eps=0.1, steps=3, batch_size=2",
    "square": BATCH + "eps=0.1, queries=5, batch_size=2",
    "strongest_attack": BATCH + "eps=0.1, steps=2, queries=3, batch_size=2",
    "auto_attack": BATCH + "eps=0.1, parts=('apgd-ce',), batch_size=2",
    "cw_l2": BATCH + "steps=3, search_steps=1, batch_size=2",
    "masking_report": BATCH + "eps=0.1, steps=(2, 4), epsilons=(0.2,), batch_size=2",
    "robustness_report": BATCH + "eps=0.1, steps=2, queries=3",
    "evaluate": BATCH + "attack=partial(cappaper.fgsm, eps=0.1)",
    "robustness_curve": BATCH + "attack=cappaper.fgsm, epsilons=[0.1, 0.2]",
    "is_robust": BATCH + "attacks=[partial(cappaper.fgsm, eps=0.1)]",
    "fit": BATCH + "epochs=1",
    "surrogate_gradient": "model=net(), sharpness=10.0",
    "capped_relu": "z=x - 0.5, beta=0.1",
    "CappedReLU": "beta=0.1",
    "ScaledSigmoid": "c=0.1",
    "replace_relu": "model=nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU()), beta=0.1",
    "mlp": "in_features=64, hidden=[8]",
    "convnet": "side=8, hidden=[2, 4, 8]",
    "rescale": "model=net(), beta=0.1",
    "Population": "models=[net(), net()]",
    "load": "name='digits', split='test', limit=5",
    "pretrained": "name='relu'",
    "register_bounded": "activation=nn.Softsign, read=lambda *given: None",
}
KINDS = {
    "images": "x x_adv z",
    "labels": "y",
    "model": "model other",
    "callable": "attack attack_at attacks progress loss lr activation",
    "name": "name norm method split targeted",
    "sequence": "hidden beta layers epsilons losses twins parts models",
    "path": "root checkpoint",
}
KIND_OF = {parameter: kind for kind, text in KINDS.items() for parameter in text.split()}
# Expressions, evaluated for each call; x and y are images and labels that fit the model.
ODD = {
    "number": """nan; inf; -inf; -1.0; 0.0; -0.0; 1e308; 5e-324; 2.5; 0; -1; -3; '0.1'; ''; None;
        True; []; [0.1, 0.2]; {}; 1 + 2j; numpy.float32(0.1); numpy.array([0.1, 0.2]); object();
        torch.tensor(0.1); torch.tensor([0.1, 0.2]); torch.tensor(nan); len""",
    "sequence": """[nan]; [-1]; [None]; ['a']; 'abc'; [[1, 2]]; (0,); {1: 2}; iter([8]); [2.5];
        [net(), 3]; [net(), nn.Tanh()]; nan; -1; 0; None; {}; object(); torch.tensor([0.1])""",
    "name": "''; 'LINF'; 'l3'; 'pdg'; 'ε'; None; 0; 1.5; []; ['linf']; b'linf'; object()",
    "callable": """'pgd'; 1.5; []; object(); lambda: None; lambda *given: None; lambda *given: 'x';
        lambda *given: torch.tensor(1.0); lambda *given: 1 / 0;
        lambda *given: given[0] * nan if torch.is_tensor(given[0]) else None;
        partial(cappaper.pgd, eps=0.1, steps=2)""",
    "images": """None; 'images'; 0.5; []; x.numpy(); x.tolist(); x.int(); x * 255; x - 1; x > 0.5;
        x.half(); x.bfloat16(); x.double(); x.to(torch.complex64); x[:0]; x[:3]; x[0]; x[:, 0];
        x.flatten(1); x[..., :7]; x.flatten(); x.sum() / 1000; x.expand(4, 3, 8, 8);
        x.transpose(2, 3); x.requires_grad_(); x * nan; x * inf; x.to_sparse(); x.to('meta')""",
    "labels": """None; 'labels'; 3; [3, 0, 9, 1]; y.numpy(); y.int(); y.float(); y > 1; y + 1;
        y - 1; y * 10**9; y[:3]; y[:0]; y[0]; y[:, None]; y[None]; y[:1].expand(4); y.to('meta')""",
    "model": """None; 'resnet18'; 3; []; nn.Linear; nn.Linear(64, 10); nn.Flatten();
        nn.Sequential(nn.Flatten(), nn.LazyLinear(9));
        nn.Sequential(nn.Flatten(), nn.Linear(64, 1)); nn.Identity();
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)); net().half();
        net().double(); net().to('meta'); net().state_dict(); net().requires_grad_(False);
        nn.DataParallel(net()); cappaper.Population([net(), net()]); filled(nan); filled(inf);
        filled(0.0); lambda x: x; lambda x: torch.zeros(len(x), 10); lambda: None;
        Returns(lambda out: out); Returns(lambda out: (out, out)); Returns(lambda out: None);
        Returns(lambda out: {'logits': out}); Returns(lambda out: out.detach().numpy());
        Returns(lambda out: out.detach()); Returns(lambda out: out.argmax(-1));
        Returns(lambda out: out.round().long()); Returns(lambda out: out[:1]);
        Returns(lambda out: out[None]); Returns(lambda out: out.sum());
        Returns(lambda out: out > 0); Returns(lambda out: out.to(torch.complex64));
        Returns(lambda out: out * nan); Returns(lambda out: out * inf);
        Returns(lambda out: {}['a mistake']); Returns(lambda out: out.softmax(-1));
        Returns(lambda out: out + torch.randn_like(out)); nn.Sequential(net(), nn.Dropout());
        torch.jit.trace(net(), x); exported(x);
        torch.compile(net(), backend='eager'); Threaded(net())""",
}


def value_of(expression: str) -> Any:
    """An expression's value, made of new images, labels and models."""
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    values = {"x": x, "y": torch.tensor([3, 0, 9, 1]), "partial": partial}
    code = compile(" ".join(expression.split()), CALLER, "eval")
    return eval(code, {**globals(), **values, "nan": float("nan"), "inf": float("inf")})


def trial(draw: random.Random, _: Path) -> bool:
    """Call a random function with one or two odd arguments; whether it was refused."""
    name = draw.choice(sorted(CALLS))
    kinds = {p: KIND_OF.get(p, "number") for p in signature(getattr(cappaper, name)).parameters}
    known = [parameter for parameter, kind in kinds.items() if kind in ODD]
    chosen = draw.sample(known, min(len(known), draw.choice([1, 1, 2])))
    return call(name, {p: draw.choice(ODD[kinds[p]].split(";")) for p in chosen})


def call(name: str, odd: dict[str, str]) -> bool:
    """Call a public function with these arguments odd; whether it was refused, as it should be."""
    given = value_of(f"dict({CALLS[name]})") | {p: value_of(text) for p, text in odd.items()}
    before, fault, refused = _state(given.get("model")), None, False
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = getattr(cappaper, name)(**given)
            if name == "surrogate_gradient":
                with result as wrapped:
                    result = wrapped(value_of("x"))
        fault = None if _is_right(name, given, result) else f"the answer {result!r:.80} is wrong"
    except Exception as error:
        fault, refused = _fault(error), True
    finally:
        signal.alarm(0)
    # What is called within a surrogate gradient may train the model, as fit does.
    changed = name not in ("fit", "surrogate_gradient") and before != _state(given.get("model"))
    fault = "the model is changed" if changed else fault
    assert fault is None, f"{name} with {odd}: {fault}"
    return refused


def _give_up(*_: Any) -> None:
    raise TimeoutError("it hangs")


def _fault(error: Exception) -> str | None:
    """What is wrong with a refusal: it must be a sentence of the package's or of torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    last, text = frames[-1], " ".join(str(error).split())
    if not isinstance(error, TimeoutError) and any(f.filename == CALLER for f in frames):
        return None  # the caller's own code failed
    inside = Path(last.filename).is_relative_to(Path(cappaper.__file__).parent)
    torchs = isinstance(error, RuntimeError) and not (inside and str(last.line)[:5] == "raise")
    if (torchs or isinstance(error, ValueError | TypeError | FileNotFoundError)) and text[19:]:
        return None
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {text:.120}"


def _state(model: Any) -> Any:
    """All that a call must leave as it is: weights, modes, hooks and gradients."""
    if not isinstance(model, nn.Module) or any(map(nn.parameter.is_lazy, model.parameters())):
        return None  # the first call of a lazy model makes its weights
    dicts = [[len(v) for v in vars(m).values() if isinstance(v, dict)] for m in model.modules()]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    weights = [v.is_meta or v.numpy(force=True).tobytes() for v in model.state_dict().values()]
    return dicts, [m.training for m in model.modules()], flags, weights


def _is_right(name: str, given: dict[str, Any], result: Any) -> bool:
    """Whether shape, type and range are those of a right answer."""
    if not isinstance(result, torch.Tensor):
        shares = [getattr(result, s) for s in SHARES if hasattr(result, s)]
        shares += [result] if isinstance(result, float) else []
        return all(0 <= v <= 1 for s in shares for v in numpy.atleast_1d(s)) and bool(str(result))
    if name in ("surrogate_gradient", "capped_relu"):
        return name == "surrogate_gradient" or result.is_meta or not bool((result < 0).any())
    if result.dtype == torch.bool:
        return result.shape[-1] == len(given["x"])
    x, eps = given["x"], float(given.get("eps", 1)) if given.get("norm", "linf") == "linf" else 1
    near = (result.double() - x.double()).abs().amax() <= eps + 1e-2
    same = result.shape[-x.ndim :] == x.shape and result.dtype == x.dtype
    return bool(same and near and (result >= 0).all() and (result <= 1).all())

"""The public functions, each with a call that works and what a right answer to it looks like."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn

import cappaper
from tests.trust.calls import Subject
from tests.trust.nonsense import (
    CALLABLES,
    IMAGES,
    LABELS,
    MODELS,
    NAMES,
    NUMBERS,
    SEQUENCES,
    images,
    labels,
    net,
)
from tests.trust.right import (
    adversarial,
    flat,
    masking,
    network,
    rates,
    shares,
    surrogate,
    verdicts,
)

BATCH = {"model": net, "x": images, "y": labels}
POOLS = {"model": MODELS, "x": IMAGES, "y": LABELS, "eps": NUMBERS}


def attack(function: Any, right: Any = adversarial, **changes: Any) -> Subject:
    """An attack with small budgets, and nonsense for each of its parameters in ``changes``."""
    small = {name: partial(lambda v: v, value) for name, (value, _) in changes.items()}
    pools = {name: pool for name, (_, pool) in changes.items()}
    eps = {} if function is cappaper.cw_l2 else {"eps": lambda: 0.1}
    works = {**BATCH, **eps, **small}
    known = {k: v for k, v in POOLS.items() if k in works}
    return Subject(function.__name__, function, works, {**known, **pools}, right)


SUBJECTS = [
    attack(cappaper.fgsm),
    attack(
        cappaper.pgd,
        steps=(3, NUMBERS),
        step_size=(0.01, NUMBERS),
        norm=("linf", NAMES),
        restarts=(1, NUMBERS),
        loss=("cross-entropy", CALLABLES),
        batch_size=(2, NUMBERS),
        seed=(0, NUMBERS),
        targeted=(False, NAMES),
        progress=(None, CALLABLES),
    ),
    attack(
        cappaper.adaptive_pgd,
        steps=(3, NUMBERS),
        step_size=(0.01, NUMBERS),
        norm=("linf", NAMES),
        restarts=(1, NUMBERS),
        sharpnesses=((10.0,), SEQUENCES),
        losses=(("margin",), SEQUENCES),
        batch_size=(2, NUMBERS),
        seed=(0, NUMBERS),
    ),
    attack(
        cappaper.apgd,
        steps=(3, NUMBERS),
        norm=("linf", NAMES),
        targets=(0, NUMBERS),
        restarts=(1, NUMBERS),
        batch_size=(2, NUMBERS),
        seed=(0, NUMBERS),
    ),
    attack(
        cappaper.square,
        queries=(5, NUMBERS),
        share=(0.8, NUMBERS),
        batch_size=(2, NUMBERS),
        seed=(0, NUMBERS),
    ),
    attack(
        cappaper.strongest_attack,
        twins=((), SEQUENCES),
        steps=(2, NUMBERS),
        restarts=(1, NUMBERS),
        queries=(3, NUMBERS),
        sharpness=(10.0, NUMBERS),
        batch_size=(2, NUMBERS),
    ),
    attack(
        cappaper.auto_attack,
        norm=("linf", NAMES),
        parts=(("apgd-ce",), SEQUENCES),
        batch_size=(2, NUMBERS),
    ),
    attack(
        cappaper.cw_l2,
        confidence=(0.0, NUMBERS),
        steps=(3, NUMBERS),
        search_steps=(1, NUMBERS),
        lr=(0.01, NUMBERS),
        initial_const=(0.01, NUMBERS),
        batch_size=(2, NUMBERS),
    ),
    attack(
        cappaper.masking_report,
        masking,
        steps=((2, 4), SEQUENCES),
        epsilons=((0.2,), SEQUENCES),
        other=(None, MODELS),
        batch_size=(2, NUMBERS),
    ),
    attack(
        cappaper.robustness_report,
        lambda given, r: shares(r.standard, r.pgd, r.strongest) and bool(str(r)),
        name=("a", NAMES),
        steps=(2, NUMBERS),
        queries=(3, NUMBERS),
    ),
    attack(cappaper.certify, verdicts, method=("crown", NAMES)),
    attack(
        cappaper.certified_accuracy,
        lambda given, result: shares(*flat(result)),
        method=("ibp", NAMES),
    ),
    attack(
        cappaper.exact_robustness,
        lambda given, result: not bool((result.robust & result.undecided).any()),
        time_limit=(5.0, NUMBERS),
    ),
    Subject(
        "evaluate",
        cappaper.evaluate,
        {**BATCH, "attack": lambda: partial(cappaper.fgsm, eps=0.1)},
        {k: POOLS[k] for k in BATCH} | {"attack": CALLABLES, "batch_size": NUMBERS},
        rates,
    ),
    Subject(
        "robustness_curve",
        cappaper.robustness_curve,
        {**BATCH, "attack": lambda: cappaper.fgsm, "epsilons": lambda: [0.1, 0.2]},
        {k: POOLS[k] for k in BATCH}
        | {"attack": CALLABLES, "epsilons": SEQUENCES, "batch_size": NUMBERS},
        lambda given, result: all(rates(given, one) for one in result),
    ),
    Subject(
        "standing",
        cappaper.standing,
        {**BATCH, "attacks": lambda: [partial(cappaper.fgsm, eps=0.1)]},
        {k: POOLS[k] for k in BATCH} | {"attacks": [*SEQUENCES, *CALLABLES], "batch_size": NUMBERS},
        lambda given, result: result.dtype == torch.bool,
    ),
    Subject(
        "fit",
        cappaper.fit,
        {**BATCH, "epochs": lambda: 1},
        {k: POOLS[k] for k in BATCH}
        | {
            "epochs": NUMBERS,
            "batch_size": NUMBERS,
            "lr": [*NUMBERS, *CALLABLES],
            "seed": SEQUENCES,
        }
        | {"attack": CALLABLES, "attack_at": CALLABLES, "penalty": CALLABLES}
        | {"progress": CALLABLES},
        lambda given, result: all(p.isfinite().all() for p in result.parameters()),
    ),
    Subject(
        "layer_distances",
        cappaper.layer_distances,
        {"model": net, "x": images, "x_adv": images},
        {"model": MODELS, "x": IMAGES, "x_adv": IMAGES},
        lambda given, result: all(math.isfinite(v) for one in result for v in one[1:3]),
    ),
    Subject(
        "layer_signals",
        cappaper.layer_signals,
        BATCH,
        {k: POOLS[k] for k in BATCH},
        lambda given, result: isinstance(result, list),
    ),
    Subject(
        "surrogate_gradient",
        surrogate,
        {"model": net, "sharpness": lambda: 10.0},
        {"model": MODELS, "sharpness": NUMBERS, "relu": NUMBERS},
        lambda given, result: result.shape == images().shape,
    ),
    Subject(
        "capped_relu",
        cappaper.capped_relu,
        {"z": lambda: images() - 0.5, "beta": lambda: 0.1},
        {"z": IMAGES, "beta": NUMBERS},
        lambda given, result: result.is_meta or not bool((result < 0).any()),
    ),
    Subject(
        "CappedReLU",
        cappaper.CappedReLU,
        {"beta": lambda: 0.1, "learned": lambda: False},
        {"beta": NUMBERS},
        lambda given, result: bool((result(images()) >= 0).all()),
    ),
    Subject(
        "ScaledSigmoid",
        cappaper.ScaledSigmoid,
        {"c": lambda: 0.1},
        {"c": NUMBERS},
        lambda given, result: bool(result(images()).isfinite().all()),
    ),
    Subject(
        "replace_relu",
        cappaper.replace_relu,
        {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU())}
        | {"beta": lambda: 0.1, "layers": lambda: None},
        {"model": MODELS, "beta": SEQUENCES, "layers": SEQUENCES},
        lambda given, result: isinstance(result, nn.Module),
    ),
    Subject(
        "mlp",
        cappaper.mlp,
        {"in_features": lambda: 64, "hidden": lambda: [8]},
        {"in_features": NUMBERS, "hidden": SEQUENCES, "num_classes": NUMBERS}
        | {"beta": SEQUENCES, "seed": NUMBERS, "activation": CALLABLES},
        lambda given, result: given["in_features"] != 64 or network(given, result),
    ),
    Subject(
        "convnet",
        cappaper.convnet,
        {"side": lambda: 8, "hidden": lambda: [2, 4, 8]},
        {"side": NUMBERS, "hidden": SEQUENCES, "num_classes": NUMBERS, "in_channels": NUMBERS}
        | {"beta": SEQUENCES, "seed": NUMBERS, "activation": CALLABLES},
        lambda given, result: given["side"] != 8 or network(given, result),
    ),
    Subject(
        "rescale",
        cappaper.rescale,
        {"model": net, "beta": lambda: 0.1},
        {"model": MODELS, "beta": SEQUENCES},
        lambda given, result: isinstance(result, nn.Module),
    ),
    Subject(
        "Population",
        cappaper.Population,
        {"models": lambda: [net(), net(seed=1)], "sample_dims": lambda: 3},
        {"models": [*SEQUENCES, lambda: [net(), 3], lambda: [net(), nn.Tanh()]]}
        | {"sample_dims": NUMBERS},
        lambda given, result: len(result) == 2,
    ),
    Subject(
        "load",
        cappaper.load,
        {"name": lambda: "digits", "split": lambda: "test", "limit": lambda: 5},
        {"name": NAMES, "split": NAMES, "limit": NUMBERS},
        lambda given, result: len(result.images) == len(result.labels) > 0,
    ),
    Subject(
        "pretrained",
        cappaper.pretrained,
        {"name": lambda: "relu"},
        {"name": NAMES},
        lambda given, result: isinstance(result, nn.Module),
    ),
    Subject(
        "register_bounded",
        cappaper.register_bounded,
        {"activation": lambda: nn.Softsign, "read": lambda: lambda *a, **k: None},
        {"activation": NUMBERS, "read": NUMBERS},
        lambda given, result: result is None,
    ),
]

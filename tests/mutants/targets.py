"""What is mutated, and the tests that ought to notice: of each part of the code that decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Modules, and tests in the order in which they run: the quick ones first."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


_ATTACKS = (
    "ascent",
    "auto_pgd",
    "autoattack",
    "balls",
    "batches",
    "carlini_wagner",
    "columns",
    "gradient",
    "square_attack",
    "strongest",
)
_DECISIONS = ("claims", "decision", "decisions", "growth", "statistics")

TARGETS = {
    "attacks": Target(
        tuple(f"cappaper/attacks/{name}.py" for name in _ATTACKS),
        (
            "cappaper/attacks",
            "tests/test_attacks.py",
            "tests/test_attack_manners.py",
            "tests/test_auto_pgd.py",
            "tests/test_autoattack.py",
            "tests/test_carlini.py",
            "tests/test_strongest.py",
            "tests/test_adaptive.py",
        ),
    ),
    "training": Target(
        ("cappaper/training.py", "cappaper/population.py"),
        (
            "cappaper/training.py",
            "cappaper/population.py",
            "tests/test_training.py",
            "tests/test_models.py",
            "tests/test_resuming.py",
        ),
    ),
    "certificates": Target(
        ("cappaper/certificates/bounds.py", "cappaper/certificates/exact.py"),
        ("cappaper/certificates", "tests/test_certification.py", "tests/test_layers.py"),
    ),
    "operators": Target(
        tuple(f"cappaper/operators/{name}.py" for name in ("convolutions", "dense", "eligible")),
        ("tests/test_operators.py", "tests/test_free_layers.py"),
    ),
    "surrogate": Target(
        ("cappaper/attacks/surrogate.py", "cappaper/bounded.py", "cappaper/signs.py"),
        (
            "cappaper/attacks",
            "cappaper/bounded.py",
            "cappaper/signs.py",
            "tests/test_surrogate.py",
            "tests/test_activations.py",
            "tests/test_adaptive.py",
            "tests/test_masking.py",
        ),
    ),
    "decisions": Target(
        tuple(f"cappaper/paper/{name}.py" for name in _DECISIONS),
        (
            *(f"cappaper/paper/{name}.py" for name in _DECISIONS),
            "tests/test_statistics.py",
            "tests/test_claims.py",
        ),
    ),
}

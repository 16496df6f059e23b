"""All that a notebook of this book imports: networks, judges, tables, figures, claims.

Names are imported on first use: the base install lacks packages that most of them need.
"""

from importlib import import_module

_NAMES = {
    "experiment": "Adversary Profile profile sweep",
    "figures": "figures",
    "judges": "CW FGSM PGD AdaptivePGD AutoAttack Certificate Clean Exact GrowingBalls Noise"
    " SmoothPGD Strongest",
    "claims": "show_verdicts",
    "machines": "Machine machine",
    "observers": "Distances Masking Signals masking_of",
    "parameters": "PARTS check_parameters",
    "publishing": "glue publish",
    "runner": "networks run test_images transfers",
    "tables": "RATES STRONGEST contradictions format_mean_sd markdown_table network_name"
    " over_seeds show_markdown strongest",
    "widgets": "explore",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    return module if name == _HOMES[name] else getattr(module, name)


def __dir__() -> list[str]:
    return __all__

"""``python -m tests.animation`` draws one image under two attacks, as an SVG that moves."""

import base64
import io
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from matplotlib.image import imsave

import cappaper

EPS, STEPS, SHARPNESS = 0.1, 40, 10.0
SECONDS, SHARE = 7, 0.7  # of one round, and the share of it that moves
SIDE = 28
PATH = Path(__file__).parent.parent / "book" / "results" / "attack.svg"

PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 222" role="img" \
font-family="sans-serif" font-size="15" text-anchor="middle">
<title>{title}</title>
<style>
.moves {{ animation-duration: {seconds}s; animation-iteration-count: infinite }}
{rules}
@media (prefers-reduced-motion: reduce) {{ .moves {{ animation-play-state: paused; \
animation-delay: -{late}s }} }}
</style>
<rect width="400" height="222" fill="#ffffff"/>
{panels}
</svg>
"""
PANEL = """<g transform="translate({x} 0)">
<text x="70" y="24">{name}</text>
<svg y="36" width="140" height="140" viewBox="0 0 28 28"><image class="moves" \
style="animation-name: walk" width="{width}" height="28" preserveAspectRatio="none" \
image-rendering="pixelated" href="data:image/png;base64,{png}"/></svg>
{labels}
</g>"""


def draw() -> str:
    """The first 8 of the sample that PGD leaves right and the cap-aware attack does not."""
    net = cappaper.pretrained("cap-0.05")
    images, labels = cappaper.load("mnist-sample", "test")
    for image, label in zip(images[labels == 8], labels[labels == 8], strict=True):
        walks = {
            "PGD": _walk(net, image[None], label[None], None),
            "cap-aware PGD": _walk(net, image[None], label[None], SHARPNESS),
        }
        said = [[int(net(x[None]).argmax()) for x in walk] for walk in walks.values()]
        if {*said[0]} == {8} and said[1][0] == 8 != said[1][-1]:
            break
    rules = [
        f"@keyframes walk {{0% {{transform: none; animation-timing-function: steps({STEPS})}}"
        f" {SHARE:.0%}, 100% {{transform: translateX(-{STEPS * SIDE}px)}}}}"
    ]
    panels = []
    for number, (name, walk) in enumerate(walks.items()):
        texts, first = [], 0
        for run, (digit, steps) in enumerate(groupby(said[number])):
            last = first + len(list(steps))
            key, colour = f"s{number}{run}", "#006b4f" if digit == 8 else "#b34700"
            rules.append(_shown(key, first, last if last <= STEPS else None))
            texts.append(
                f'<text x="70" y="206" fill="{colour}" class="moves" style="animation-name: {key};'
                f' animation-timing-function: step-end">the network says {digit}</text>'
            )
            first = last
        panel = {"x": 30 + 200 * number, "name": name, "width": (STEPS + 1) * SIDE}
        panels.append(PANEL.format(**panel, png=_sprite(walk), labels="\n".join(texts)))
    title = f"One image of an 8 under two attacks: PGD leaves it an 8, the other one a {digit}."
    late = SECONDS * (1 + SHARE) / 2
    given = {"title": title, "rules": "\n".join(rules), "panels": "\n".join(panels)}
    return PAGE.format(seconds=SECONDS, late=late, **given)


def _walk(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, slope: float | None) -> list:
    """The image and where PGD is after each step; a run is the beginning of every longer one."""
    attack = partial(cappaper.pgd, eps=EPS, step_size=2.5 * EPS / STEPS, early_exit=False)
    with cappaper.surrogate_gradient(net, slope):
        return [x[0], *(attack(net, x, y, steps=n)[0] for n in range(1, STEPS + 1))]


def _sprite(walk: list) -> str:
    imsave(picture := io.BytesIO(), torch.cat(walk, dim=2)[0].numpy(), cmap="gray", vmin=0, vmax=1)
    return base64.b64encode(picture.getvalue()).decode()


def _shown(name: str, first: int, last: int | None) -> str:
    """A rule that shows a text from one step to another, or to the end."""
    at = [100 * SHARE * step / STEPS for step in (first, last or 0)]
    hidden = f"{at[1]:.2f}%, 100% {{opacity: 0}}" if last else "100% {opacity: 1}"
    before = "0% {opacity: 0}" if first else ""
    return f"@keyframes {name} {{{before} {at[0]:.2f}% {{opacity: 1}} {hidden}}}"


if __name__ == "__main__":
    PATH.write_text(draw(), encoding="utf-8")

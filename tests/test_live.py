"""The page that attacks a digit: its logits and gradients, its attacks, and its controls."""

import base64
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cappaper import PRETRAINED, pretrained, surrogate_gradient
from cappaper.paper.pages import write_networks
from tests.browser import run_on_page

LIVE = Path(__file__).parents[1] / "book" / "extra" / "live"


@pytest.fixture(scope="module")
def run(tmp_path_factory, browser):
    """What a script returns on the page's own part, without the book around it."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(LIVE, folder / "live")
    write_networks(folder / "live" / "networks")
    text = (LIVE.parents[1] / "attack-a-digit.md").read_text()
    html = text.split("```{raw} html\n")[1].split("```")[0]
    path = folder / "page.html"
    still = '<p class="live-still">A picture.</p>'
    path.write_text(f"<html><head><title></title></head><body>{still}{html}</body></html>")
    return partial(run_on_page, browser, path)


def images(count):
    """MNIST's digits of the page, each with noise: bytes, so that both sides read the same."""
    rows = json.loads((LIVE / "digits.js").read_text().split("= ", 1)[1].split(".map")[0])
    digits = torch.tensor([list(base64.b64decode(text)) for _, text in rows])
    noise = torch.randn((count, 784), generator=torch.Generator().manual_seed(0)) * 40
    noisy = digits.repeat(-(-count // len(digits)), 1)[:count] + noise
    labels = torch.tensor([label for label, _ in rows]).repeat(-(-count // len(digits)))[:count]
    return noisy.clamp(0, 255).byte(), labels


def returned(run, names, pixels, script):
    """What a script returns that has these networks and, as ``images``, these bytes."""
    text = base64.b64encode(pixels.numpy().tobytes()).decode()
    return run(
        f"""
      for (const name of {json.dumps(list(names))}) await new Promise((resolve, reject) => {{
        const tag = document.createElement("script");
        tag.src = `live/networks/${{name}}.js`; tag.onload = resolve; tag.onerror = reject;
        document.head.append(tag);
      }});
      const bytes = Uint8Array.from(atob("{text}"), (c) => c.charCodeAt(0));
      const images = Array.from({{ length: {len(pixels)} }}, (_, i) =>
        Float64Array.from(bytes.subarray(784 * i, 784 * (i + 1)), (b) => b / 255));
      const ofEach = (f) => Object.fromEntries(Object.entries(Live.networks).map(
        ([name, net]) => [name, images.map((x, i) => Array.from(f(net, x, i)))]));
      {script}""",
    )


def test_its_logits_are_pytorchs(run):
    pixels, script = images(200)[0], "return ofEach((n, x) => Live.forward(n, x).logits)"
    of_each = returned(run, PRETRAINED, pixels, script)
    assert set(of_each) == set(PRETRAINED)
    for name, logits in of_each.items():
        with torch.no_grad():
            expected = pretrained(name)(pixels.float().reshape(-1, 1, 28, 28) / 255)
        ours = torch.tensor(logits)
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=0)
        assert (ours.argmax(1) == expected.argmax(1)).float().mean() >= 0.99


@pytest.mark.parametrize("sharpness", [None, 10.0])
def test_its_gradients_are_pytorchs(run, sharpness):
    pixels, labels = images(20)
    script = f"""const labels = {labels.tolist()}, sharpness = {json.dumps(sharpness)};
      return ofEach((n, x, i) => Live.gradient(n, Live.forward(n, x), labels[i], sharpness));"""
    of_each = returned(run, ["cap-0.2", "relu"], pixels, script)
    x = pixels.double().reshape(-1, 1, 28, 28) / 255
    for name, gradient in of_each.items():
        model, point = pretrained(name).double(), x.clone().requires_grad_()
        with surrogate_gradient(model, sharpness):
            F.cross_entropy(model(point), labels, reduction="sum").backward()
        ours, expected = torch.tensor(gradient, dtype=torch.float64), point.grad.flatten(1)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-9)


def test_two_attacks_walk_side_by_side_and_stay_in_the_ball(run):
    digits = returned(
        run,
        ["cap-0.05"],
        images(1)[0],
        """
      const net = Live.networks["cap-0.05"];
      return Live.digits.map(([label, image], i) => [0, 10].map((sharpness) => {
        const start = Live.randomStart(image, 0.1, 1);
        const side = Live.attack(net, image, label, 0.1, { sharpness, start });
        let look = null;
        for (let step = 0; step < 40; step++) look = side.step();
        const moved = Math.max(...side.image.map((pixel, j) => Math.abs(pixel - image[j])));
        return [look.predicted === label, moved, Math.min(...side.image), Math.max(...side.image)];
      }));""",
    )
    for sides in digits:
        assert all(d <= 0.1 + 1e-12 and low >= 0 and high <= 1 for _, d, low, high in sides)
    assert sum(pgd[0] for pgd, _ in digits) > sum(aware[0] for _, aware in digits)


def test_the_page_plays_an_attack_and_describes_it_in_words(run):
    state = run(
        """
      const press = (text) => [...document.querySelectorAll("#live button")]
        .find((button) => button.textContent === text).click();
      const status = () => document.querySelector("#live [role=status]").textContent;
      const until = async (test) => {
        while (!test()) await new Promise((resolve) => setTimeout(resolve, 20));
      };
      await until(() => status().startsWith("Before"));
      const before = status();
      press("Step"); const one = status();
      press("Play"); await until(() => status().includes("step 40"));
      const after = status();
      const slider = document.querySelector("#live-eps");
      slider.value = 0; slider.dispatchEvent(new Event("input"));
      press("Play"); await until(() => status().includes("step 40"));
      const harmless = status();
      document.querySelector("#live input[value='relu']").click();
      await until(() => status().startsWith("Before"));
      return { before, one, after, harmless, text: slider.getAttribute("aria-valuetext"),
        still: document.querySelector(".live-still").hidden,
        wide: document.documentElement.scrollWidth, images: [...document.querySelectorAll(
          "#live canvas:not([aria-hidden])")].every((c) => c.getAttribute("aria-label")) };
      """,
        width=500,
    )
    assert state["before"] == "Before the attack. PGD: still a 0; Cap-aware PGD: still a 0."
    assert state["one"].startswith("After step 1 of 40. PGD: ")
    assert state["after"].startswith("After step 40 of 40. PGD: ")
    assert state["harmless"].endswith("PGD: still a 0; Cap-aware PGD: still a 0.")
    assert state["text"] == "every pixel may change by 0.00"
    assert state["still"] and state["images"] and state["wide"] <= 500

"""The page that attacks a digit: PyTorch's logits and gradients, and two attacks that walk."""

import base64
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cappaper import PRETRAINED, pretrained, surrogate_gradient
from cappaper.paper import weights
from tests.browser import run_on_page

LIVE = Path(__file__).parents[1] / "book" / "extra" / "live"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page's own part, without the book around it."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(LIVE, folder / "live")
    weights.write_scripts(folder / "live" / "networks")
    text = (LIVE.parents[1] / "attack-a-digit.md").read_text()
    html = text.split("```{raw} html\n")[1].split("```")[0]
    path = folder / "page.html"
    still = '<p class="live-still">A picture.</p>'
    path.write_text(f"<html><head><title></title></head><body>{still}{html}</body></html>")
    return path


def images(count):
    """MNIST's digits of the page, each with noise: bytes, so that both sides read the same."""
    rows = json.loads((LIVE / "digits.js").read_text().split("= ", 1)[1].split(".map")[0])
    digits = torch.tensor([list(base64.b64decode(text)) for _, text in rows])
    noise = torch.randn((count, 784), generator=torch.Generator().manual_seed(0)) * 40
    noisy = digits.repeat(-(-count // len(digits)), 1)[:count] + noise
    labels = torch.tensor([label for label, _ in rows]).repeat(-(-count // len(digits)))[:count]
    return noisy.clamp(0, 255).byte(), labels


def script(names, bytes_, then):
    text = base64.b64encode(bytes_.numpy().tobytes()).decode()
    return f"""
      for (const name of {json.dumps(list(names))}) await new Promise((resolve, reject) => {{
        const tag = document.createElement("script");
        tag.src = `live/networks/${{name}}.js`; tag.onload = resolve; tag.onerror = reject;
        document.head.append(tag);
      }});
      const bytes = Uint8Array.from(atob("{text}"), (c) => c.charCodeAt(0));
      const images = Array.from({{ length: {len(bytes_)} }}, (_, i) =>
        Float64Array.from(bytes.subarray(784 * i, 784 * (i + 1)), (b) => b / 255));
      {then}"""


def test_its_logits_are_pytorchs(page):
    bytes_, _ = images(200)
    found = run_on_page(
        page,
        script(
            PRETRAINED,
            bytes_,
            "return Object.fromEntries(Object.entries(Live.networks).map(([name, net]) =>"
            " [name, images.map((x) => Array.from(Live.forward(net, x).logits))]));",
        ),
    )
    assert set(found) == set(PRETRAINED)
    for name, logits in found.items():
        with torch.no_grad():
            expected = pretrained(name)(bytes_.float().reshape(-1, 1, 28, 28) / 255)
        ours = torch.tensor(logits)
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=0)
        assert (ours.argmax(1) == expected.argmax(1)).float().mean() >= 0.99


@pytest.mark.parametrize("sharpness", [None, 10.0])
def test_its_gradients_are_pytorchs(page, sharpness):
    bytes_, labels = images(20)
    found = run_on_page(
        page,
        script(
            ["cap-0.2", "relu"],
            bytes_,
            f"const labels = {labels.tolist()}, sharpness = {json.dumps(sharpness)};"
            "return Object.fromEntries(Object.entries(Live.networks).map(([name, net]) =>"
            " [name, images.map((x, i) => Array.from("
            " Live.gradient(net, Live.forward(net, x), labels[i], sharpness)))]));",
        ),
    )
    x = bytes_.double().reshape(-1, 1, 28, 28) / 255
    for name in ("cap-0.2", "relu"):
        model, point = pretrained(name).double(), x.clone().requires_grad_()
        with surrogate_gradient(model, sharpness):
            F.cross_entropy(model(point), labels, reduction="sum").backward()
        expected = point.grad.flatten(1)
        torch.testing.assert_close(
            torch.tensor(found[name], dtype=torch.float64), expected, rtol=1e-3, atol=1e-9
        )


def test_two_attacks_walk_side_by_side_and_stay_in_the_ball(page):
    found = run_on_page(
        page,
        script(
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
        return [look.predicted === label, look.loss, moved, Math.min(...side.image),
                Math.max(...side.image)];
      }));""",
        ),
    )
    for sides in found:
        for _, _, moved, low, high in sides:
            assert moved <= 0.1 + 1e-12 and low >= 0 and high <= 1
    robust = [[side[0] for side in sides] for sides in found]
    assert sum(pgd for pgd, _ in robust) > sum(aware for _, aware in robust)


def test_the_page_plays_and_answers_in_words(page):
    found = run_on_page(
        page,
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
    assert found["before"] == "Before the attack. PGD: still a 0; Cap-aware PGD: still a 0."
    assert found["one"].startswith("After step 1 of 40. PGD: ")
    assert found["after"].startswith("After step 40 of 40. PGD: ")
    assert found["harmless"].endswith("PGD: still a 0; Cap-aware PGD: still a 0.")
    assert found["text"] == "every pixel may change by 0.00"
    assert found["still"] and found["images"] and found["wide"] <= 500


def test_it_takes_thirty_steps_a_second(page):
    per_second = run_on_page(
        page,
        script(
            ["relu"],
            images(1)[0],
            """
      const [label, image] = Live.digits[0], net = Live.networks.relu;
      const sides = [0, 10].map((s) => Live.attack(net, image, label, 0.1, { sharpness: s }));
      const start = Date.now();
      for (let i = 0; i < 100; i++) sides.forEach((side) => side.step());
      return 100 / ((Date.now() - start) / 1000);""",
        ),
    )
    assert per_second is None or per_second > 30  # None: the clock did not move, so fast

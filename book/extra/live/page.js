"use strict";
// The page "Attack a digit": controls, two attacks side by side, and what comes of them.
(() => {
  const STEPS = 40, SIDE = 28;
  const ATTACKS = [["PGD", 0], ["Cap-aware PGD", 10]];
  const root = document.getElementById("live");
  const base = document.currentScript.src.replace(/[^/]*$/, "");
  // A network's name is its cap and its training: "relu", "cap-1-adversarial".
  const state = { cap: "cap-0.05", training: "", digit: 0, eps: 0.1, step: 0, timer: 0, drawn: null,
    label: 0, seed: 1 };
  const name = () => state.cap + state.training;
  const a = (digit) => (digit === 8 ? "an 8" : `a ${digit}`);
  let sides = [];

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  // Dark ink on white paper, whatever the theme: a digit is written, not lit.
  function paint(canvas, image, colour = (pixel) => [255 * (1 - pixel)]) {
    const context = canvas.getContext("2d"), data = context.createImageData(SIDE, SIDE);
    image.forEach((pixel, i) => {
      const [red, green = red, blue = red] = colour(pixel);
      data.data.set([red, green, blue, 255], 4 * i);
    });
    context.putImageData(data, 0, 0);
  }

  // Where ink was added: orange; where it was taken away: blue.
  const change = (eps) => (delta) => {
    const share = eps ? Math.min(1, Math.abs(delta) / eps) : 0;
    const [red, green, blue] = delta > 0 ? [213, 94, 0] : [0, 114, 178];
    return [red, green, blue].map((c) => 255 - share * (255 - c));
  };

  const canvas = (label) =>
    make("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": label });

  function panel(title) {
    const picture = canvas(`the digit as ${title} has changed it`);
    const delta = canvas(`what ${title} has changed: ink added and ink taken away`);
    const bars = Array.from({ length: 10 }, (_, digit) => {
      const bar = make("i"), share = make("span");
      return { row: make("div", { class: "live-bar" }, `${digit}`, bar, share), bar, share };
    });
    const loss = make("dd"), silent = make("dd");
    const verdict = make("p", { class: "live-verdict" });
    const pictures = make("section", { "aria-label": title },
      make("h2", {}, title), verdict,
      make("div", { class: "live-pictures" },
        make("figure", {}, picture, make("figcaption", {}, "attacked")),
        make("figure", {}, delta, make("figcaption", {}, "changed"))));
    const numbers = make("section", { "aria-label": `${title}, in numbers` },
      make("h2", {}, title),
      make("dl", {}, make("dt", {}, "loss"), loss,
        make("dt", {}, "units without gradient"), silent),
      ...bars.map((bar) => bar.row));
    return { pictures, numbers, picture, delta, bars, loss, silent, verdict };
  }

  const panels = ATTACKS.map(([title]) => panel(title));
  const said = make("p", { class: "live-said", role: "status" });
  const epsilon = make("output", { for: "live-eps" });
  const play = make("button", { type: "button", onclick: toggle }, "Play");
  const board = make("canvas", {
    width: SIDE, height: SIDE, class: "live-board", role: "img",
    "aria-label": "a board to draw a digit on with a pointer; the digits above need none",
  });

  // The label of a drawn digit is what the network says before the attack.
  function chosen() {
    if (state.drawn) return { image: state.drawn, label: state.label };
    const [label, image] = Live.digits[state.digit];
    return { image, label };
  }

  function restart() {
    stop();
    state.step = 0;
    const net = Live.networks[name()];
    if (!net) return load(name());
    if (state.drawn) state.label = Live.look(net, state.drawn, 0).predicted;
    const { image, label } = chosen();
    const start = Live.randomStart(image, state.eps, state.seed);
    sides = ATTACKS.map(([, sharpness]) =>
      Live.attack(net, image, label, state.eps, { steps: STEPS, sharpness, start }));
    show(sides.map(() => Live.look(net, image, label)), [image, image]);
  }

  function load(wanted) {
    say("Loading the network …");
    document.head.append(make("script", {
      src: `${base}networks/${wanted}.js`,
      onload: () => { if (name() === wanted) restart(); },
      onerror: () => say("This network could not be loaded."),
    }));
  }

  function step() {
    if (!sides.length || state.step >= STEPS) return stop();
    state.step++;
    const looks = sides.map((side) => side.step());
    show(looks, sides.map((side) => side.image));
    if (state.step >= STEPS) stop();
  }

  function toggle() {
    if (state.timer) return stop();
    if (state.step >= STEPS) restart();
    play.textContent = "Pause";
    state.timer = setInterval(step, 25);
  }

  function stop() {
    clearInterval(state.timer);
    state.timer = 0;
    play.textContent = "Play";
  }

  function say(text) {
    if (said.textContent !== text) said.textContent = text;
  }

  function show(looks, images) {
    const { image, label } = chosen();
    looks.forEach((look, i) => {
      const { picture, delta, bars, loss, silent, verdict } = panels[i];
      paint(picture, images[i]);
      paint(delta, images[i].map((pixel, j) => pixel - image[j]), change(state.eps));
      bars.forEach(({ row, bar, share }, digit) => {
        row.className = "live-bar" + (digit === label ? " live-true" : "") +
          (digit === look.predicted ? " live-top" : "");
        bar.style.width = `${100 * look.shares[digit]}%`;
        share.textContent = look.shares[digit].toFixed(2);
      });
      loss.textContent = look.loss.toPrecision(2);
      silent.textContent = `${Math.round(100 * look.silent)} %`;
      verdict.textContent = look.predicted === label ? `still ${a(label)}` : `taken for ${a(look.predicted)}`;
    });
    const verdicts = ATTACKS.map(([title], i) => `${title}: ${panels[i].verdict.textContent}`);
    const at = state.step ? `After step ${state.step} of ${STEPS}` : "Before the attack";
    // A screen reader hears the beginning and the end, not every step on the way.
    said.setAttribute("aria-live", state.step % STEPS ? "off" : "polite");
    say(`${at}. ${verdicts.join("; ")}.`);
  }

  function radios(name, entries, change) {
    return entries.map(([value, content, label, checked], i) => {
      const input = make("input", { type: "radio", name, value, "aria-label": label,
        onchange: () => change(value, i) });
      input.checked = checked;
      return make("label", {}, input, content);
    });
  }

  function draw() {
    let last = null;
    const ink = new Float64Array(SIDE * SIDE);
    const point = (event) => {
      const box = board.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top].map((at) => (at / box.width) * SIDE);
    };
    const stroke = ([x, y]) => {
      for (let i = 0; i < ink.length; i++) {
        const far = Math.hypot((i % SIDE) + .5 - x, Math.floor(i / SIDE) + .5 - y);
        ink[i] = Math.max(ink[i], Math.min(1, Math.max(0, 2 - far)));
      }
      paint(board, ink);
    };
    const use = () => { state.drawn = Float64Array.from(ink); restart(); };
    board.addEventListener("pointerdown", (event) => {
      board.setPointerCapture(event.pointerId);
      stroke(last = point(event));
    });
    board.addEventListener("pointermove", (event) => {
      if (!last) return;
      const to = point(event), count = Math.ceil(Math.hypot(to[0] - last[0], to[1] - last[1]) * 2) || 1;
      for (let i = 1; i <= count; i++) {
        stroke(last.map((from, axis) => from + ((to[axis] - from) * i) / count));
      }
      last = to;
    });
    for (const end of ["pointerup", "pointercancel"]) {
      board.addEventListener(end, () => { if (last) { last = null; use(); } });
    }
    paint(board, ink);
    return () => { ink.fill(0); paint(board, ink); state.drawn = null; restart(); };
  }

  function build() {
    const pick = (_, i) => { state.digit = i; state.drawn = null; restart(); };
    const thumbs = Live.digits.map(([label, image], i) => {
      const thumb = canvas("");
      thumb.setAttribute("aria-hidden", "true");
      paint(thumb, image);
      return [i, thumb, `${a(label)}, number ${i + 1}`, i === state.digit];
    });
    const split = Live.available.map(([net, text]) => {
      const [, cap, training] = net.match(/^(.*?)((?:-adversarial.*)?)$/);
      const [what, how = "standard"] = text.split(/, (.*)/);
      return { net, cap, training, what, how };
    });
    const rows = [["cap", "what"], ["training", "how"]].map(([key, text]) => {
      const names = new Map(split.map((entry) => [entry[key], entry[text]]));
      const entries = [...names].map(([value, label]) =>
        [value, make("span", {}, label), label, value === state[key]]);
      return make("div", { class: "live-nets", role: "group", "aria-label": key },
        ...radios(`live-${key}`, entries, (value) => { state[key] = value; allow(); restart(); }));
    });
    // Not every cap comes with every training.
    function allow() {
      const there = split.filter((entry) => entry.training === state.training);
      if (!there.some((entry) => entry.cap === state.cap)) state.cap = there[0].cap;
      rows[0].querySelectorAll("input").forEach((input) => {
        input.disabled = !there.some((entry) => entry.cap === input.value);
        input.checked = input.value === state.cap;
      });
    }
    const clear = draw();
    const slider = make("input", { type: "range", id: "live-eps", min: 0, max: 0.4, step: 0.01,
      value: state.eps, oninput: turn });
    function turn() {
      state.eps = Number(slider.value);
      epsilon.value = `ε = ${state.eps.toFixed(2)}`;
      slider.setAttribute("aria-valuetext", `every pixel may change by ${state.eps.toFixed(2)}`);
      restart();
    }
    root.append(
      make("fieldset", {}, make("legend", {}, "The network, and its training"), ...rows),
      make("div", { class: "live-sides" }, ...panels.map((side) => side.pictures)),
      said,
      make("fieldset", {}, make("legend", {}, "The attack"),
        make("div", { class: "live-row" }, play,
          make("button", { type: "button", onclick: () => { stop(); step(); } }, "Step"),
          make("button", { type: "button", onclick: restart }, "Start over"),
          make("button", { type: "button", onclick: () => { state.seed++; restart(); } },
            "Another random start")),
        make("div", { class: "live-row" },
          make("label", { for: "live-eps" }, "largest change of a pixel"), slider, epsilon)),
      make("fieldset", {}, make("legend", {}, "The digit"),
        make("div", { class: "live-digits" }, ...radios("live-digit", thumbs, pick)),
        make("details", {}, make("summary", {}, "or draw one"), board,
          make("button", { type: "button", onclick: clear }, "Clear"))),
      make("div", { class: "live-sides" }, ...panels.map((side) => side.numbers)));
    root.hidden = false;
    document.querySelectorAll(".live-still").forEach((still) => { still.hidden = true; });
    allow();
    turn();
  }

  build();
})();

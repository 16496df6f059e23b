"use strict";
// The book's networks and two attacks on them, in plain numbers: no page, no framework.
const Live = (() => {
  const networks = {};

  // IEEE half precision, little-endian, in base64.
  function halves(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const numbers = new Float32Array(bytes.length / 2);
    for (let i = 0; i < numbers.length; i++) {
      const bits = view.getUint16(2 * i, true);
      const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
      numbers[i] = exponent
        ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
        : sign * 2 ** -14 * (fraction / 1024);
    }
    return numbers;
  }

  // Called by each file of networks/: `layers` are [weight, bias] of every linear layer.
  function add(name, about) {
    const layers = about.layers.map(([weight, bias]) => ({
      weight: halves(weight), bias: halves(bias),
    }));
    const caps = about.beta.map((beta) => (beta === "inf" ? Infinity : beta));
    networks[name] = { ...about, layers, caps };
  }

  // Logits, and the pre-activations of every hidden layer, which the way back needs.
  function forward(net, image) {
    let input = image;
    const hidden = [];
    net.layers.forEach(({ weight, bias }, l) => {
      const fan = input.length, z = new Float64Array(bias.length);
      for (let i = 0, at = 0; i < z.length; i++) {
        let sum = bias[i];
        for (let j = 0; j < fan; j++) sum += weight[at++] * input[j];
        z[i] = sum;
      }
      if (l === net.caps.length) input = z;
      else {
        hidden.push(z);
        input = z.map((value) => Math.max(0, Math.min(value, net.caps[l])));
      }
    });
    return { logits: input, hidden };
  }

  const sigmoid = (value) => 1 / (1 + Math.exp(-value));

  // The derivative of every unit of a layer: its own, or one that is smooth and nowhere zero.
  function slopes(z, cap, sharpness) {
    if (!sharpness || cap === Infinity) return z.map((value) => (value > 0 && value < cap ? 1 : 0));
    let square = 0;
    for (const value of z) square += value * value;
    const k = sharpness / Math.max(Math.sqrt(square / z.length), 1e-38);
    return z.map((value) => sigmoid(k * value) * sigmoid(k * (cap - value)));
  }

  function probabilities(logits) {
    const top = Math.max(...logits);
    const powers = Array.from(logits, (logit) => Math.exp(logit - top));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  function crossEntropy(logits, label) {
    const top = Math.max(...logits);
    const rest = Array.from(logits, (logit) => Math.exp(logit - top)).reduce((a, b) => a + b);
    return top - logits[label] + Math.log(rest);
  }

  // The loss's gradient with respect to the image.
  function gradient(net, { logits, hidden }, label, sharpness) {
    let back = Float64Array.from(probabilities(logits));
    // 1 - p as a sum over the others: the difference itself would round to 0 too soon.
    back[label] = 0;
    back[label] = -back.reduce((a, b) => a + b);
    for (let l = net.layers.length - 1; l >= 0; l--) {
      const { weight } = net.layers[l], fan = weight.length / back.length;
      const next = new Float64Array(fan);
      for (let i = 0; i < back.length; i++) {
        if (back[i] === 0) continue;
        for (let j = 0, at = i * fan; j < fan; j++) next[j] += weight[at++] * back[i];
      }
      back = next;
      if (l > 0) {
        const slope = slopes(hidden[l - 1], net.caps[l - 1], sharpness);
        for (let j = 0; j < fan; j++) back[j] *= slope[j];
      }
    }
    return back;
  }

  // What a page shows of a network at one image.
  function look(net, image, label) {
    const pass = forward(net, image);
    const blocked = pass.hidden.flatMap((z, l) => Array.from(slopes(z, net.caps[l])));
    const shares = probabilities(pass.logits);
    return {
      shares,
      predicted: shares.indexOf(Math.max(...shares)),
      loss: crossEntropy(pass.logits, label),
      silent: blocked.filter((slope) => slope === 0).length / blocked.length,
    };
  }

  // PGD in the L∞ ball, one step at a time; with a sharpness, along the smooth slope.
  function attack(net, image, label, eps, { steps = 40, sharpness = 0, start = image } = {}) {
    const size = (2.5 * eps) / steps;
    const low = image.map((pixel) => Math.max(0, pixel - eps));
    const high = image.map((pixel) => Math.min(1, pixel + eps));
    let current = start.map((pixel, i) => Math.min(high[i], Math.max(low[i], pixel)));
    return {
      get image() { return current; },
      step() {
        const slope = gradient(net, forward(net, current), label, sharpness);
        current = current.map((pixel, i) =>
          Math.min(high[i], Math.max(low[i], pixel + size * Math.sign(slope[i]))));
        return look(net, current, label);
      },
    };
  }

  // Uniform in the ball, the same for the same seed.
  function randomStart(image, eps, seed) {
    let state = seed >>> 0;
    const next = () => { // mulberry32
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return image.map((pixel) => pixel + eps * (2 * next() - 1));
  }

  return { networks, add, forward, gradient, look, attack, randomStart };
})();

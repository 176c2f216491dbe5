/* The page that translates in a browser. Numbers are lanit's own: pictures are cut and resized as Pillow does it, to the
   last bit, and a seed draws the latents that torch draws, so that a result is what lanit.load(…) makes of the picture. */
"use strict";

const about = JSON.parse(document.getElementById("about").textContent);
const size = about.image_size, domains = about.domains, count = domains.length + 1;
const element = (name) => document.getElementById(name);

// ------------------------------------------------------------------------------------------------ what lies in the page

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** What the page holds under a name, or else the file of that name beside it. */
async function dataOf(name) {
  const inside = document.getElementById(`data-${name}`);
  if (inside) return bytesOf(inside.textContent.trim());
  const answer = await fetch(name).catch(() => null);
  if (!answer?.ok) throw new Error(`${name} cannot be read: serve this folder, as the footer says, and open the page there`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function unpacked(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** The address of what the page holds as base64, for import(): a worker of a file on a disk may import no other kind. */
const moduleOf = (name) => `data:text/javascript;base64,${element(`data-${name}`).textContent.trim()}`;

// ------------------------------------------------------------------------------------------------ networks

class Networks {
  #worker = new Worker(URL.createObjectURL(new Blob([element("worker").textContent], { type: "text/javascript" })));
  #waiting = new Map();
  #asked = 0;

  constructor() {
    this.#worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      data.error ? reject(new Error(data.error)) : resolve(data.values);
    };
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message || "this browser cannot run it"));
      this.#waiting.clear();
    };
  }

  #ask(message) {
    const id = this.#asked++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...message });
    });
  }

  async begin() {
    const names = ["generator", "style_encoder", "mapping"];
    const files = await Promise.all(names.map((name) => dataOf(`${name}.onnx`)));
    const networks = Object.fromEntries(names.map((name, index) => [name, files[index]]));
    const binary = await unpacked(bytesOf(element("data-runtime.wasm.gz").textContent.trim()));
    await this.#ask({ runtime: moduleOf("runtime.mjs"), binary, networks });
  }

  run(network, feeds) {
    return this.#ask({ network, feeds });
  }
}

const networks = new Networks();

/** Styles of each domain, slack last: Float32Array (count × style size). */
const drawnStyles = (seed) => {
  const values = latent(seed, about.latent_dim);
  return networks.run("mapping", { latent: { values, dims: [1, values.length] } });
};

const ownStyles = (pixels) => networks.run("style_encoder", { image: { values: pixels, dims: [1, 3, size, size] } });

/** The mean of styles by weight (METHOD 2). chosen: [styles, index, weight], at least one. */
function mixed(chosen) {
  const length = chosen[0][0].length / count, style = new Float32Array(length);
  const total = chosen.reduce((sum, [, , weight]) => sum + weight, 0);
  for (const [styles, index, weight] of chosen) {
    for (let at = 0; at < length; at++) style[at] += (weight / total) * styles[index * length + at];
  }
  return style;
}

/** pixels: Float32Array (3 × size × size) in [-1, 1], of the picture and of one whose style to take, or null. words:
    [{index, weight, keep}], at least one. Gives the generator's output, about [-1, 1]. */
async function translate(pixels, words, seed, reference = null) {
  const others = reference ? await ownStyles(reference) : await drawnStyles(seed);
  const own = words.some((word) => word.keep) ? await ownStyles(pixels) : others;
  const style = mixed(words.map(({ index, weight, keep }) => [keep ? own : others, index, weight]));
  const feeds = { image: { values: pixels, dims: [1, 3, size, size] }, style: { values: style, dims: [1, style.length] } };
  return networks.run("generator", feeds);
}

// ------------------------------------------------------------------------------------------------ as torch draws

/** Mersenne Twister, MT19937 (Matsumoto & Nishimura 1998): 32-bit draws of a seed. */
function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const joined = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** torch.randn(length, generator=torch.Generator().manual_seed(seed)): Box and Muller's, sixteen at a time; of fewer than
    sixteen, two at a time in double precision. */
function latent(seed, length) {
  const next = twister(seed), values = new Float32Array(length);
  if (length < 16) {
    const uniform = () => ((next() & 0x1fffff) * 2 ** 32 + next()) / 2 ** 53;
    for (let i = 0; i < length; i += 2) {
      const angle = 2 * Math.PI * uniform(), radius = Math.sqrt(-2 * Math.log1p(-uniform()));
      values[i] = radius * Math.cos(angle);
      if (i + 1 < length) values[i + 1] = radius * Math.sin(angle);
    }
    return values;
  }
  const uniform = () => (next() & 0xffffff) / 2 ** 24;
  const normal = (from) => {
    for (let i = from; i < from + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[i])), angle = 2 * Math.PI * values[i + 8];
      [values[i], values[i + 8]] = [radius * Math.cos(angle), radius * Math.sin(angle)];
    }
  };
  for (let i = 0; i < length; i++) values[i] = uniform();
  for (let i = 0; i + 16 <= length; i += 16) normal(i);
  if (length % 16) {
    for (let i = length - 16; i < length; i++) values[i] = uniform();
    normal(length - 16);
  }
  return values;
}

// ------------------------------------------------------------------------------------------------ as Pillow resizes

/** Weights of a line of `length` pixels for `size` ones of the part [start, start + side): bicubic, in 22 bits. */
function resampling(length, start, side) {
  const scale = side / size, wide = Math.max(scale, 1), reach = 2 * wide;
  const cubic = (x) => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  };
  return Array.from({ length: size }, (_, index) => {
    const centre = start + (index + 0.5) * scale;
    const from = Math.max(Math.trunc(centre - reach + 0.5), 0), to = Math.min(Math.trunc(centre + reach + 0.5), length);
    const weights = Array.from({ length: to - from }, (_, x) => cubic((x + from - centre + 0.5) / wide));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { from, weights: weights.map((weight) => roundAway((weight / total) * 2 ** 22)) };
  });
}

const roundAway = (value) => Math.trunc(value + (value < 0 ? -0.5 : 0.5));
const byte = (sum) => Math.min(Math.max(Math.floor((sum + 2 ** 21) / 2 ** 22), 0), 255);

/** The middle square of RGBA pixels, resized: bytes (size × size × 4), as pipeline/decoding/squares.py cuts it. */
function square({ width, height, data }) {
  const side = Math.min(width, height);
  const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
  if (width === size && height === size) return data;
  const across = resampling(width, left, side), down = resampling(height, top, side);
  const first = down[0].from, last = down[size - 1].from + down[size - 1].weights.length;
  const rows = new Uint8ClampedArray((last - first) * size * 4), made = new Uint8ClampedArray(size * size * 4).fill(255);
  for (let y = first; y < last; y++) {
    for (let x = 0; x < size; x++) {
      const { from, weights } = across[x];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[(y * width + from + i) * 4 + channel];
        rows[((y - first) * size + x) * 4 + channel] = byte(sum);
      }
    }
  }
  for (let y = 0; y < size; y++) {
    const { from, weights } = down[y];
    for (let at = 0; at < size * 4; at++) {
      if (at % 4 === 3) continue;
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * rows[(from - first + i) * size * 4 + at];
      made[y * size * 4 + at] = byte(sum);
    }
  }
  return made;
}

/** Bytes (size × size × 4) as the networks read them: Float32Array (3 × size × size) in [-1, 1]. */
function toPixels(bytes) {
  const area = size * size;
  return Float32Array.from({ length: 3 * area }, (_, at) => bytes[(at % area) * 4 + Math.trunc(at / area)] / 127.5 - 1);
}

function toBytes(pixels) {
  const area = size * size, bytes = new Uint8ClampedArray(area * 4).fill(255);
  for (let at = 0; at < 3 * area; at++) {
    bytes[(at % area) * 4 + Math.trunc(at / area)] = Math.round((Math.min(Math.max(pixels[at], -1), 1) + 1) * 127.5);
  }
  return bytes;
}

/** The middle square of a picture's file: bytes (size × size × 4). Transparent parts are laid on white. */
async function squareOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "That"} is no picture that this browser can read`);
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return square(context.getImageData(0, 0, bitmap.width, bitmap.height));
}

// ------------------------------------------------------------------------------------------------ the page

const desk = { picture: null, reference: null, busy: false, again: false };
const rows = [...document.querySelectorAll("#words li")];
const excluded = (index) => about.never_together.filter((pair) => pair.includes(domains[index])).flat();

function paint(canvas, bytes) {
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(bytes), size, size), 0, 0);
}

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
}

function wish() {
  const ticked = rows.flatMap((row, index) => (row.querySelector(".word").checked ? [{ row, index }] : []));
  return ticked.map(({ row, index }) => ({
    index,
    weight: ticked.length > 1 ? Number(row.querySelector(".weight").value) : 1,
    keep: row.querySelector(".keep").checked,
  }));
}

function showControls() {
  const ticked = wish().length;
  if (!desk.picture || !ticked) {
    element("result").classList.remove("there");
    say(desk.picture ? "Now tick what it shall show." : "Give it a picture.");
  }
  for (const row of rows) {
    const on = row.querySelector(".word").checked;
    row.classList.toggle("on", on);
    row.querySelector(".own").hidden = !on;
    row.querySelector(".share").hidden = !on || ticked < 2;
  }
  element("seed").disabled = element("another").disabled = desk.reference !== null;
  element("no-reference").hidden = desk.reference === null;
}

/** Draws the result anew; of changes that come faster than results, the last one counts. */
async function redraw() {
  showControls();
  const words = wish();
  if (!desk.picture || !words.length) return;
  desk.again = desk.busy;
  if (desk.busy) return;
  desk.busy = true;
  element("result").setAttribute("aria-busy", "true");
  try {
    const started = performance.now();
    const seed = Math.min(Math.max(Math.trunc(Number(element("seed").value)) || 0, 0), 2 ** 32 - 1);
    const reference = desk.reference && toPixels(desk.reference);
    const made = toBytes(await translate(toPixels(desk.picture), words, seed, reference));
    paint(element("made"), made);
    const names = words.map(({ index }) => domains[index]).join(", ");
    element("made").setAttribute("aria-label", `Your picture with ${names}`);
    element("result").classList.add("there");
    const blob = await new Promise((resolve) => element("made").toBlob(resolve, "image/png"));
    URL.revokeObjectURL(element("save").href);
    element("save").href = URL.createObjectURL(blob);
    say(`${names}: in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  } catch (error) {
    say(`It cannot be drawn: ${error.message}`, true);
  }
  element("result").removeAttribute("aria-busy");
  desk.busy = false;
  if (desk.again) await redraw();
}

async function take(file, name) {
  if (!file) return;
  try {
    desk[name] = await squareOf(file);
  } catch (error) {
    return say(error.message, true);
  }
  paint(element(name === "picture" ? "before" : "style-picture"), desk[name]);
  element(name === "picture" ? "given" : "style-given").hidden = false;
  await redraw();
}

for (const [input, name] of [["picture", "picture"], ["reference", "reference"]]) {
  const field = element(input), zone = field.closest("label");
  field.addEventListener("change", () => take(field.files[0], name).then(() => (field.value = "")));
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer.files[0], name);
  });
}
document.addEventListener("paste", (event) => take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")), "picture"));
for (const button of document.querySelectorAll(".examples button")) {
  const image = button.querySelector("img");
  const name = `${image.alt}.png`;
  button.addEventListener("click", () => take(new File([bytesOf(image.src.split(",")[1])], name, { type: "image/png" }), "picture"));
}
rows.forEach((row, index) => {
  row.querySelector(".word").addEventListener("change", ({ target }) => {
    if (target.checked) {
      for (const name of excluded(index)) {
        if (name !== domains[index]) rows[domains.indexOf(name)].querySelector(".word").checked = false;
      }
    }
    redraw();
  });
  for (const control of row.querySelectorAll(".keep, .weight")) control.addEventListener("input", redraw);
});
element("seed").addEventListener("input", redraw);
element("another").addEventListener("click", () => {
  element("seed").value = (Math.trunc(Number(element("seed").value)) || 0) + 1;
  redraw();
});
element("no-reference").addEventListener("click", () => {
  desk.reference = null;
  element("style-given").hidden = true;
  element("reference").focus();
  redraw();
});

/** For scripts and the console: the same functions that the page uses. */
window.lanit = { about, translate, latent, square, toPixels, ready: networks.begin() };
say("Loading the model…");
window.lanit.ready.then(
  () => {
    element("bench").removeAttribute("inert");
    redraw();
  },
  (error) => say(`The model cannot be loaded: ${error.message}`, true),
);

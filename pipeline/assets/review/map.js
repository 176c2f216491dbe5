"use strict";
/* The map of lanit review: drawn by regl-scatterplot, loaded when it is opened for the first time. */

import createPubSub from "/assets/vendor/pub-sub-es.js";

const byId = (id) => document.getElementById(id);
const script = (source) => new Promise((resolve, reject) => {
  const element = document.createElement("script");
  element.src = source;
  element.onload = resolve;
  element.onerror = () => reject(new Error(`${source} cannot be read.`));
  document.head.append(element);
});
const numbers = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return new Float32Array(await answer.arrayBuffer());
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const kinds = ["#4c9fa8", "#c98a00", "#8a7fd6", "#c0564a", "#6b9a4d", "#b06bb0", "#7d8a94", "#d48a55", "#4f7fd0", "#99a05a"];
const ways = {
  phrase: { by: "categorical", colours: ["#8b949b", "#1f9aa6"], names: (name) => [`not ${name}`, name] },
  people: { by: "categorical", colours: ["#8b949b", "#1f9aa6", "#d4762a"], names: () => ["not answered", "people: yes", "people: no"] },
  source: { by: "categorical", colours: kinds, names: () => ["the largest source", "others, by size"] },
  margin: { by: "continuous", colours: ["#b85c1e", "#d9a679", "#d8d6cf", "#78b6bc", "#126d77"], names: () => ["far below the threshold", "", "at it", "", "far above"] },
};

let page = null, plot = null, renderer = null, points = null, timer = 0;

/* While the map is moved, a machine that draws it less than thirty times a second draws it coarser, then fewer points of
   it, chosen at random once; it is whole again as soon as it rests. What was needed is tried first the next time. */
const LATE = 33, RESTS = 300, FEWEST = 4000, COARSE = 0.5; // milliseconds of a frame, and without one; points; pixels
const sharp = window.devicePixelRatio;
const needed = { pixels: 1, points: Infinity };
let mixed = [], held = false, moves = false, late = 0, last = 0, resting = 0, pixels = 1, whole = true;
Object.defineProperty(window, "devicePixelRatio", { configurable: true, get: () => sharp * pixels }); // the plot asks it

const mix = (count) => {
  mixed = Array.from({ length: count }, (_, k) => k);
  for (let k = count - 1; k > 0; k--) {
    const other = Math.floor(Math.random() * (k + 1));
    [mixed[k], mixed[other]] = [mixed[other], mixed[k]];
  }
};
const drawWith = (share, count) => {
  if (share !== pixels) {
    pixels = share;
    renderer.resize();
    plot.set({ width: "auto", height: "auto" });
  }
  if (count < mixed.length) plot.filter(mixed.slice(0, count), { preventEvent: true });
  else if (!whole) plot.unfilter({ preventEvent: true });
  whole = count >= mixed.length;
};
const moving = () => {
  const now = performance.now(), took = now - last;
  last = now;
  clearTimeout(resting);
  resting = setTimeout(rest, RESTS);
  if (!moves) {
    [moves, late] = [true, 0];
    drawWith(needed.pixels, needed.points);
    return;
  }
  late = took > LATE ? late + 1 : 0;
  if (late < 2) return;
  late = 0;
  if (needed.pixels > COARSE) needed.pixels = COARSE;
  else if (needed.points > FEWEST) needed.points = Math.max(FEWEST, Math.round(Math.min(needed.points, mixed.length) / 4));
  else return;
  drawWith(needed.pixels, needed.points);
};
const rest = () => {
  if (held) {
    resting = setTimeout(rest, RESTS);
    return;
  }
  moves = false;
  drawWith(1, Infinity);
};

const loaded = async () => {
  if (plot) return;
  globalThis.createPubSub = createPubSub;
  await script("/assets/vendor/regl.min.js");
  await script("/assets/vendor/regl-scatterplot.min.js");
  const canvas = byId("canvas");
  renderer = globalThis.createScatterplot.createRenderer();
  plot = globalThis.createScatterplot.default({ renderer, canvas, width: "auto", height: "auto", pointSize: 3, lassoInitiator: true, lassoOnLongPress: true, actionKeyMap: { lasso: "shift" } });
  plot.subscribe("view", moving);
  canvas.addEventListener("pointerdown", () => { held = true; });
  for (const kind of ["pointerup", "pointercancel"]) addEventListener(kind, () => { held = false; });
  plot.subscribe("lassoEnd", ({ coordinates }) => take(coordinates).catch(page.tell));
  plot.subscribe("pointOver", (row) => {
    const [x, y] = plot.getScreenPosition(row), shown = byId("hovered");
    shown.src = page.thumb(row);
    shown.style.cssText = `left:${Math.min(x + 12, byId("plot").clientWidth - 120)}px;top:${Math.min(y + 12, byId("plot").clientHeight - 120)}px`;
    shown.hidden = false;
  });
  plot.subscribe("pointOut", () => { byId("hovered").hidden = true; });
  byId("colours").addEventListener("change", () => colour().catch(page.tell));
  byId("take-view").addEventListener("click", () => {
    const [left, bottom, right, top] = view();
    take([[left, bottom], [right, bottom], [right, top], [left, top]]).catch(page.tell);
  });
};
/* The rectangle that the window shows, in the map's own numbers. */
const view = () => {
  const [x, y] = [plot.get("xScale"), plot.get("yScale")];
  if (x && y) return [x.domain()[0], y.domain()[0], x.domain()[1], y.domain()[1]];
  const camera = plot.get("camera"), canvas = byId("canvas"), aspect = canvas.clientWidth / canvas.clientHeight;
  const [cx, cy] = camera.target, reach = 1 / camera.scaling[0];
  return [cx - reach * aspect, cy - reach, cx + reach * aspect, cy + reach];
};
const take = async (corners) => {
  if (corners.length < 3) return;
  const step = Math.ceil(corners.length / 1000);
  const polygon = [...corners].filter((_, k) => k % step === 0).map(([x, y]) => [x, y]);
  const found = await page.ask("/api/lasso", { polygon });
  byId("map").close();
  await page.show(found, "found");
};
const legend = (way) => {
  const names = way.names(page.domain());
  byId("legend").replaceChildren(...names.map((name, k) => {
    const item = document.createElement("li"), dot = document.createElement("i");
    dot.style.background = way.colours[k];
    item.append(dot, name);
    return item;
  }).filter((item) => item.textContent));
};
const colour = async () => {
  const by = byId("colours").value, way = ways[by];
  const values = await numbers(`/api/map/colours?by=${by}&phrase=${page.phrase()}`);
  plot.set({ colorBy: "valueA", pointColor: way.colours, opacity: 0.8, backgroundColor: dark.matches ? "#1c2024" : "#ffffff" });
  const count = points.length / 2, x = new Float32Array(count), y = new Float32Array(count);
  for (let k = 0; k < count; k++) [x[k], y[k]] = [points[2 * k], points[2 * k + 1]];
  await plot.draw({ x, y, z: values }, { zDataType: way.by });
  if (mixed.length !== count) mix(count);
  legend(way);
  byId("canvas").dataset.drawn = count;
};
const begin = async () => {
  await page.ask("/api/map/make", {});
  await follow();
};
const follow = async () => {
  clearTimeout(timer);
  const state = await page.ask("/api/map"), told = byId("map-told");
  byId("make-map").hidden = !["none", "failed"].includes(state.state);
  byId("take-view").hidden = state.state !== "ready";
  if (state.state === "ready") {
    told.textContent = "Drag to move, wheel to zoom, shift and drag to choose";
    points = await numbers("/api/map/points");
    await loaded();
    await colour();
  } else if (state.state === "making") {
    told.textContent = `${state.what}${state.total ? `: ${Math.floor(100 * state.done / state.total)} %` : "…"}`;
    if (byId("map").open) timer = setTimeout(() => follow().catch(page.tell), 500);
  } else {
    told.textContent = state.error || "No map of this store has been made yet: about a minute for 100 000 images, once.";
  }
};
export const open = async (from) => {
  page = from;
  byId("make-map").onclick ??= () => begin().catch(page.tell);
  await follow();
};

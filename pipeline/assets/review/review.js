"use strict";
/* The page of lanit review. What a person answers is shown once the server has it on its disk, never before. */

const byId = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const thin = "\u202f";
const whole = (n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, thin);
const plural = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;
const signed = (value, digits = 3) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}${thin}%`;
const UNSAID = -1;
const CHUNK = 240; // rows asked for at once
const EVERY = 5; // answers after which the figures are asked for again
const REST = 200, MOST_WAITING = 25; // once keys rest for so many milliseconds, or after so many answers
const PATIENCE = 3000; // milliseconds for an image to come, before keys go on without it
const POLL = 4000; // milliseconds between looks for what others answered

let store = null; // what /api/state says
let phrase = 0; // the shown phrase
let list = { id: 0, count: 0, left: null, groups: [], chunks: new Map() };
let cursor = 0, anchor = null, selecting = false;
const selected = new Set(); // positions in the list
let since = 0, answers = 0;
let details = null, told = Promise.resolve(); // of the image under the cursor, and when they are here

/* ---------------------------------------------------------------- asking the server */

const ask = async (path, body) => {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Nothing that was shown as kept is lost; start lanit review again and reload.");
  }
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error), { status: answer.status });
  return value;
};
export const tell = (error) => {
  byId("trouble").hidden = !error;
  byId("trouble").textContent = error ? error.message : "";
};
/* What keys and buttons set off happens one after another, so that an answer belongs to the image that was shown. */
let chain = Promise.resolve();
const act = (action) => {
  chain = chain.then(action).catch(tell);
  return chain;
};
export const thumb = (row) => `/thumbs/${store.key}/${row}`;
const large = (row) => `/images/${store.key}/${row}`;

/* ---------------------------------------------------------------- the list, of which only what is visible is drawn */

const grid = byId("grid"), sheet = byId("sheet");
const drawn = new Map(); // position to element
const TALLEST = 8_000_000; // pixels that every browser scrolls
let across = 1, cell = 112, real = 0, tall = 0;

const entry = (position) => list.chunks.get(Math.floor(position / CHUNK))?.rows?.[position % CHUNK] ?? null;
const need = (position) => {
  const number = Math.floor(position / CHUNK), asked = list;
  if (position < 0 || position >= list.count) return Promise.resolve();
  let chunk = list.chunks.get(number);
  if (!chunk) {
    chunk = { rows: null };
    const path = `/api/rows?list=${list.id}&start=${number * CHUNK}&count=${CHUNK}&phrase=${phrase}`;
    chunk.ready = ask(path).then(({ rows }) => {
      chunk.rows = rows.map(([row, margin, on, said]) => ({ row, margin, on, said }));
      if (list === asked) draw();
    });
    chunk.ready.catch((error) => { list.chunks.delete(number); tell(error); });
    list.chunks.set(number, chunk);
    if (list.chunks.size > 60) list.chunks.delete(list.chunks.keys().next().value); // far behind
  }
  return chunk.ready;
};
const measure = () => {
  const size = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--cell")) * 16;
  across = Math.max(1, Math.floor(grid.clientWidth / size));
  cell = Math.floor(grid.clientWidth / across);
  real = Math.ceil(list.count / across) * cell;
  tall = Math.min(real, TALLEST);
  sheet.style.height = `${tall}px`;
};
/* Of a list too tall to scroll, a step of the bar is several of the list. */
const stretch = () => tall > grid.clientHeight ? (real - grid.clientHeight) / (tall - grid.clientHeight) : 1;
let frame = 0;
/* Once a frame, however many things change in it: an answer changes the cell that it is of and moves the cursor. */
const draw = () => { frame ||= requestAnimationFrame(paint); };
const paint = () => {
  frame = 0;
  const top = grid.scrollTop * stretch(), shift = grid.scrollTop - top, height = grid.clientHeight || 400;
  const first = Math.max(0, Math.floor(top / cell) - 2) * across;
  const last = Math.min(list.count, (Math.ceil((top + height) / cell) + 2) * across);
  for (const [position, element] of drawn) {
    if (position < first || position >= last) {
      element.remove();
      drawn.delete(position);
    }
  }
  for (let position = first; position < last; position++) {
    let element = drawn.get(position);
    if (!element) {
      element = make("div", { class: "cell", role: "option", id: `at-${position}`, "aria-setsize": list.count, "aria-posinset": position + 1 });
      element.dataset.at = position;
      drawn.set(position, element);
      sheet.append(element);
    }
    const place = `width:${cell}px;height:${cell}px;left:${(position % across) * cell}px;top:${Math.floor(position / across) * cell + shift}px`;
    if (element.place !== place) element.style.cssText = element.place = place;
    dress(element, position);
  }
  grid.setAttribute("aria-activedescendant", `at-${cursor}`);
  if (first < last) {
    need(first);
    need(last - 1);
  }
};
const dress = (element, position) => {
  const known = entry(position);
  element.classList.toggle("cursor", position === cursor);
  element.classList.toggle("selected", selected.has(position));
  element.setAttribute("aria-selected", selected.has(position) || position === cursor);
  if (!known) return;
  if (element.dataset.row !== String(known.row)) {
    element.dataset.row = known.row;
    const image = make("img", { alt: "", decoding: "async", src: thumb(known.row) });
    image.addEventListener("error", () => element.classList.add("gone"));
    element.replaceChildren(image);
  }
  element.classList.toggle("on", known.on);
  element.classList.toggle("off", !known.on);
  element.classList.toggle("people", known.said >= 0);
  const by = known.said >= 0 ? ", by people" : "";
  element.setAttribute("aria-label", `Image ${known.row}: ${known.on ? "" : "not "}${name()}${by}, margin ${signed(known.margin)}`);
};
const reveal = () => {
  const line = Math.floor(cursor / across) * cell, height = grid.clientHeight, top = grid.scrollTop * stretch();
  if (line < top) grid.scrollTop = line / stretch();
  else if (line + cell > top + height) grid.scrollTop = (line + cell - height) / stretch();
};
const name = () => store.domains[phrase].name;

/* ---------------------------------------------------------------- the image under the cursor */

const shown = byId("large"), figure = byId("shown");
const ahead = new Map(); // row to its image and what is known of it, asked for before it is shown
const prepare = (row) => {
  if (!ahead.has(row)) {
    const coming = { image: new Image(), decoded: false, details: null };
    coming.image.src = large(row);
    coming.image.decode().then(() => { coming.decoded = true; }, () => {});
    coming.told = ask(`/api/row?row=${row}`).then((found) => { coming.details = found; });
    coming.told.catch(() => ahead.delete(row)); // it is asked for again, and who shows it tells
    ahead.set(row, coming);
    if (ahead.size > 12) ahead.delete(ahead.keys().next().value);
  }
  return ahead.get(row);
};
const look = async () => {
  await need(cursor);
  const known = entry(cursor);
  byId("earlier").disabled = cursor <= 0;
  byId("later").disabled = cursor >= list.count - 1;
  for (const id of ["accept", "wrong"]) byId(id).disabled = !known;
  say();
  if (!known) {
    details = null;
    shown.removeAttribute("src");
    byId("name").textContent = list.count ? "" : "No image in this list";
    byId("asked").textContent = "";
    byId("chips").replaceChildren();
    figure.dataset.row = "";
    return;
  }
  const row = known.row, coming = prepare(row), whole = coming.image;
  details = null;
  if (coming.decoded) { // nothing to wait for: the next frame has it
    shown.classList.remove("gone");
    shown.src = whole.src;
  } else {
    const first = Object.assign(new Image(), { src: thumb(row) }); // the small one is here already
    const ready = await Promise.race([first.decode().then(() => true, () => false), new Promise((resolve) => setTimeout(resolve, PATIENCE, true))]);
    if (entry(cursor)?.row !== row) return;
    shown.classList.toggle("gone", !ready);
    shown.src = first.src;
    whole.decode().then(() => { if (figure.dataset.row === String(row)) shown.src = whole.src; }, () => {});
  }
  figure.dataset.row = row;
  asked(known);
  for (const next of [1, 2, 3]) if (entry(cursor + next)) prepare(entry(cursor + next).row);
  const describe = () => {
    if (entry(cursor)?.row !== row) return;
    details = coming.details;
    chips();
  };
  if (coming.details) describe();
  else told = coming.told.then(describe).catch(tell);
};
const asked = (known) => {
  const by = known.said >= 0 ? ", people say" : "";
  byId("asked").replaceChildren(make("b", { class: known.on ? "on" : "off" }, known.on ? name() : `not ${name()}`), `${by}, margin ${signed(known.margin)}. Is that right?`);
};
let firstChip = 0; // the phrase of key 1
const chips = () => {
  if (!details) return;
  const size = details.width ? `, ${details.width} × ${details.height}` : "";
  byId("name").textContent = details.path + size;
  shown.alt = details.path;
  const buttons = store.domains.slice(firstChip, firstChip + 9).map((domain, k) => {
    const n = firstChip + k, on = details.labels[n], said = details.said[n] >= 0;
    const button = make("button", { type: "button", class: `chip${on ? " on" : ""}${n === phrase ? " asked" : ""}`, "aria-pressed": on, "aria-keyshortcuts": k + 1 },
      make("kbd", {}, String(k + 1)), domain.name, make("span", { class: "margin" }, signed(details.margins[n] - domain.offset)),
      make("span", { class: "state" }, (on ? "yes" : "no") + (said ? " ●" : "")));
    button.title = `CLIP: ${details.clip[n] ? "yes" : "no"}${said ? "; people: " + (on ? "yes" : "no") : ""}`;
    button.addEventListener("click", () => act(() => toggle(n)));
    return button;
  });
  if (store.domains.length > 9) buttons.push(make("p", { class: "note" }, `phrases ${firstChip + 1} to ${firstChip + buttons.length} of ${store.domains.length}: [ and ] go on`));
  byId("chips").replaceChildren(...buttons);
};
const say = () => {
  const group = list.groups.filter(([start]) => start <= cursor).pop();
  byId("worth").textContent = [group?.[1], list.worth].filter(Boolean).join(". ");
  const left = list.left === null ? "" : `, ${whole(list.left)} left`;
  byId("left").textContent = list.count ? `${whole(cursor + 1)} of ${whole(list.count)}${left}` : "none";
};
const go = (to, extend = false) => {
  if (!list.count) return look();
  const before = cursor;
  cursor = Math.min(Math.max(to, 0), list.count - 1);
  if (extend) {
    anchor ??= before;
    selected.clear();
    for (let at = Math.min(anchor, cursor); at <= Math.max(anchor, cursor); at++) selected.add(at);
  } else {
    anchor = null;
  }
  reveal();
  draw();
  return look();
};

/* ---------------------------------------------------------------- answers */

const undone = () => `lanit-review-${store.key}`;
const history = () => JSON.parse(sessionStorage.getItem(undone()) || "[]");
const remember = (steps) => sessionStorage.setItem(undone(), JSON.stringify(steps.slice(-100)));
const keep = async (domain, label, rows) => {
  const before = [];
  for (let start = 0; start < rows.length; start += 4000) {
    const part = rows.slice(start, start + 4000);
    const found = await ask("/api/answers", { phrase: domain, label, rows: part });
    before.push(...found.before);
    note(part, domain, label);
    store.domains[domain].answered = found.answered;
  }
  tell(null);
  return before.map((was, k) => [rows[k], was]);
};
/* The list and the image as an answer leaves them. */
const note = (rows, domain, label) => {
  const changed = new Set(rows);
  if (domain === phrase) {
    for (const chunk of list.chunks.values()) {
      for (const known of chunk.rows ?? []) {
        if (!changed.has(known.row)) continue;
        if (known.said < 0 && label !== null && list.left) list.left -= 1;
        if (known.said >= 0 && label === null && list.left !== null) list.left += 1;
        known.said = label === null ? UNSAID : Number(label);
        if (label !== null) known.on = label;
      }
    }
  }
  for (const [row, coming] of ahead) {
    if (!changed.has(row)) continue;
    const each = coming.details;
    if (each) {
      each.said[domain] = label === null ? UNSAID : Number(label);
      each.labels[domain] = label === null ? each.clip[domain] : label;
    } else ahead.delete(row); // what is on its way may be from before
  }
  if (details && changed.has(details.row)) {
    chips();
    const known = entry(cursor);
    if (known) asked(known);
  }
  draw();
};
const chosen = async () => {
  const positions = selected.size ? [...selected].sort((a, b) => a - b) : [cursor];
  for (const at of positions) await need(at);
  return positions.map(entry).filter(Boolean);
};
/* labelOf: what is said of an image. */
const judge = async (domain, labelOf, onwards) => {
  const images = await chosen();
  if (!images.length) return;
  const step = [], said = images.map((image) => [image.row, labelOf(image)]); // before an answer changes them
  for (const label of [true, false]) {
    const rows = said.filter(([, value]) => value === label).map(([row]) => row);
    if (rows.length) step.push(...await keep(domain, label, rows));
  }
  remember([...history(), { domain, before: step }]);
  if ((answers += images.length) >= EVERY) figuresSoon();
  const many = selected.size > 0;
  selected.clear();
  if (onwards && !many) await go(cursor + 1);
  else {
    draw();
    say();
  }
};
const accept = () => judge(phrase, (image) => image.on, true);
const wrong = () => judge(phrase, (image) => !image.on, true);
const toggle = async (domain) => {
  if (domain >= store.domains.length) return;
  await told;
  if (!details && !selected.size) return;
  const to = details ? !details.labels[domain] : true;
  await judge(domain, () => to, false);
};
const undo = async () => {
  const steps = history(), last = steps.pop();
  if (!last) return;
  for (const label of [true, false, null]) {
    const rows = last.before.filter(([, was]) => was === label).map(([row]) => row);
    if (rows.length) await keep(last.domain, label, rows);
  }
  remember(steps);
  if (last.domain === phrase && last.before.length === 1) {
    const row = last.before[0][0];
    for (let at = cursor; at >= Math.max(0, cursor - CHUNK); at--) {
      if (entry(at)?.row === row) return go(at);
    }
  }
  await look();
};

/* ---------------------------------------------------------------- lists */

export const show = async (found, option) => {
  list = { id: found.list, count: found.count, left: found.left ?? null, groups: found.groups ?? [], worth: found.worth ?? "", chunks: new Map() };
  for (const element of drawn.values()) element.remove();
  drawn.clear();
  selected.clear();
  cursor = 0;
  anchor = null;
  byId("queue").value = option;
  measure();
  grid.scrollTop = 0;
  draw();
  await look();
};
const fetchList = async () => {
  const queue = byId("queue").value === "found" ? "first" : byId("queue").value;
  await show(await ask(`/api/list?queue=${queue}&phrase=${phrase}`), queue);
};
const refreshRows = async () => { // the same list, as another phrase sees it
  list.chunks.clear();
  draw();
  await look();
};
const choosePhrase = async (n) => {
  phrase = (n + store.domains.length) % store.domains.length;
  firstChip = Math.floor(phrase / 9) * 9;
  byId("phrase").value = phrase;
  if (byId("queue").value === "found") await refreshRows();
  else await fetchList();
  await figures(true);
};
const search = async () => {
  const text = byId("query").value.trim();
  const body = text ? { text } : entry(cursor) ? { row: entry(cursor).row } : null;
  if (!body) return;
  byId("query").blur();
  byId("worth").textContent = text ? "Reading words…" : "Looking…";
  await show(await ask("/api/search", body), "found");
  grid.focus({ preventScroll: true });
};

/* ---------------------------------------------------------------- figures and the threshold */

const bar = (title, [value, low, high]) => {
  const track = make("div", { class: "bar" }), range = make("i"), tick = make("u");
  range.style.cssText = `left:${100 * low}%;width:${100 * (high - low)}%`;
  tick.style.left = `${100 * value}%`;
  track.append(range, tick);
  const line = make("div", { class: "figure", role: "img", "aria-label": `${title} ${value.toFixed(2)}, between ${low.toFixed(2)} and ${high.toFixed(2)}` }, make("span", {}, title), make("b", {}, value.toFixed(2)), track);
  line.title = `${low.toFixed(3)} to ${high.toFixed(3)}, nine times in ten`;
  return line;
};
/* The next image comes before the figures do. */
let waiting = 0;
const figuresSoon = () => {
  clearTimeout(waiting);
  if (answers >= MOST_WAITING) figures().catch(tell);
  else waiting = setTimeout(() => figures().catch(tell), REST);
};
let known = null, histogram = null, moving = 0;
const figures = async (anew = false) => {
  const n = phrase;
  clearTimeout(waiting);
  answers = 0;
  const [found, bins] = await Promise.all([ask(`/api/estimate?phrase=${n}`), ask(`/api/histogram?phrase=${n}`)]);
  if (n !== phrase) return;
  known = found;
  histogram = bins;
  byId("figures-of").textContent = name();
  const said = `${plural(found.answered, "answer")}, ${whole(found.yes)} yes, ${whole(found.against)} against CLIP`;
  const parts = [];
  if (found.estimates) {
    for (const [title, key] of [["Precision", "precision"], ["Recall", "recall"], ["F1", "f1"]]) parts.push(bar(title, found.estimates[key]));
    parts.push(make("p", { class: "note" }, `of CLIP's labels over all images, from the ${whole(found.sample)} answers of the random sample, weighted; bars hold the truth nine times in ten. ${said}.`));
  } else {
    parts.push(make("p", { class: "note" }, `${said}. Precision, recall and F1 need ${whole(found.missing)} more answers of the random sample: other lists are no fair sample.`));
  }
  byId("figures").replaceChildren(...parts);
  advise(found);
  plot(anew);
};
const advise = (found) => {
  const advice = byId("advice"), better = found.suggested;
  if (!better || better.offset === found.offset || !(better.gained || better.lost)) {
    advice.replaceChildren(make("p", { class: "note" }, better ? "The answers agree with the threshold as it is." : store.offsets_count ? `A better threshold is suggested from ${found.least} answers of yes and as many of no on.` : "This rule has no thresholds."));
    return;
  }
  const to = better.estimates ? `, F1 about ${better.estimates.f1[0].toFixed(2)}` : "";
  const button = make("button", { type: "button" }, "Try it");
  button.addEventListener("click", () => {
    byId("offset").value = better.offset;
    moved();
  });
  advice.replaceChildren(make("p", {}, `The answers suggest ${signed(better.offset, 4)} in place of ${signed(found.offset, 4)}: ${whole(better.gained)} gained, ${whole(better.lost)} lost${to}. `, button),
    make("p", { class: "note" }, `Of the next ${whole(better.next)} nearest to the threshold about ${whole(better.wrong_of_next)} are labelled wrong.`));
};
const curve = (bins, most, low, high) => {
  const step = 100 / bins.length;
  return bins.map((count, k) => `M${(k * step).toFixed(2)} 100V${(100 - 96 * Math.sqrt(count / most)).toFixed(2)}H${((k + 1) * step).toFixed(2)}V100`).join("");
};
const drawHistogram = (svg, bins, at) => {
  svg.setAttribute("viewBox", "0 0 100 100");
  const most = Math.max(1, ...bins.all), answered = Math.max(1, ...bins.yes, ...bins.no);
  const path = (d, fill, opacity) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("d", d);
    element.style.cssText = `fill:${fill};opacity:${opacity}`;
    return element;
  };
  const x = Math.min(Math.max(100 * (at - bins.low) / (bins.high - bins.low || 1), 0), 100);
  const line = path(`M${x - 0.3} 0H${x + 0.3}V100H${x - 0.3}Z`, "var(--mark)", 1);
  svg.replaceChildren(path(curve(bins.all, most), "var(--soft)", 0.35), path(curve(bins.no, answered * 3), "var(--no)", 0.8), path(curve(bins.yes, answered * 3), "var(--yes)", 0.8), line);
};
const plot = (anew) => {
  const slider = byId("offset");
  slider.disabled = byId("revise").disabled = !store.offsets_count;
  slider.min = histogram.low;
  slider.max = histogram.high;
  if (anew) {
    slider.value = known.offset;
    byId("revised").textContent = "";
    byId("write-offsets").hidden = true;
  }
  drawHistogram(byId("histogram"), histogram, Number(slider.value));
  moved();
};
const moved = async () => {
  const value = Number(byId("offset").value), n = phrase, number = ++moving;
  if (histogram) drawHistogram(byId("histogram"), histogram, value);
  const exact = Math.abs(value - known.offset) < (histogram.high - histogram.low) / 2000 ? known.offset : value;
  const found = await ask(`/api/threshold?phrase=${n}&offset=${exact}`).catch(tell);
  if (!found || n !== phrase || number !== moving) return;
  const f1 = found.estimates ? `; F1 ${found.estimates.f1[0].toFixed(2)} (${found.estimates.f1[1].toFixed(2)} to ${found.estimates.f1[2].toFixed(2)})` : "";
  byId("moved").textContent = `${signed(found.offset, 4)}: ${plural(found.count, "image")} with the label, ${whole(found.gained)} gained, ${whole(found.lost)} lost${f1}`;
  byId("moved").dataset.offset = found.offset;
  for (const side of ["above", "below"]) {
    byId(side).replaceChildren(...found[side].slice(0, 12).map((row) => {
      const button = make("button", { type: "button", "aria-label": `Image ${row}, just ${side}` }, make("img", { src: thumb(row), alt: "", loading: "lazy" }));
      button.addEventListener("click", () => zoom(row));
      return button;
    }));
  }
};
const revise = async () => {
  const offset = Number(byId("moved").dataset.offset), button = byId("revise");
  button.disabled = true;
  byId("revised").textContent = "Labelling…";
  try {
    const offsets = store.offsets_count ? { [phrase]: offset } : {};
    const made = await ask("/api/revision", { offsets });
    const own = made.changes.find((change) => change.name === name());
    const what = made.created ? `Revision ${made.revision}` : `Revision ${made.revision} says this already`;
    await load();
    byId("revised").textContent = `${what}: ${whole(own?.gained ?? 0)} gained, ${whole(own?.lost ?? 0)} lost; ${plural(made.people, "label")} by people in it.${store.prompts ? "" : ` In the prompt file: ${name()} | offset=${Number(offset.toPrecision(5))}`}`;
    byId("write-offsets").hidden = !store.prompts || !store.offsets_count;
  } catch (error) {
    byId("revised").textContent = "";
    throw error;
  } finally {
    button.disabled = false;
  }
};
const writeOffsets = async () => {
  const made = await ask("/api/offsets", {});
  byId("write-offsets").hidden = true;
  byId("revised").textContent = made.written ? `${plural(made.written, "line")} of ${made.file} changed: lanit label --prompts ${made.file} labels like this revision.` : `${made.file} has these thresholds already.`;
};

/* ---------------------------------------------------------------- a new phrase */

let tried = null;
const tryPhrase = async () => {
  const text = byId("try-phrase").value.trim();
  if (!text) return;
  byId("tried").textContent = "CLIP reads it…";
  for (const id of ["add-phrase", "look-tried"]) byId(id).hidden = true;
  try {
    tried = await ask("/api/try", { phrase: text });
  } catch (error) {
    byId("tried").textContent = error.message;
    return;
  }
  const beside = tried.beside.map(([other, both]) => `${other} ${whole(both)}`).join(", ");
  const taken = tried.taken.map(([other, count]) => `${other} ${whole(count)}`).join(", ");
  const kappa = tried.stability?.kappa ?? null;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Margins of ${tried.phrase}`);
  svg.style.cssText = "width:100%;height:4rem;display:block";
  drawHistogram(svg, tried.histogram, 0);
  const rows = (await ask(`/api/rows?list=${tried.list}&start=0&count=12&phrase=${phrase}`)).rows;
  const strip = make("div", { class: "strip" }, ...rows.slice(0, Math.min(12, tried.caught)).map(([row]) => make("img", { src: thumb(row), alt: "" })));
  byId("tried").replaceChildren(
    make("p", {}, make("b", {}, tried.phrase), ` would catch ${plural(tried.caught, "image")} of ${whole(store.images)} (${percent(tried.caught / Math.max(store.images, 1))}), ${whole(tried.unlabelled)} of them without a label so far.`),
    svg, strip,
    make("p", { class: "note" }, [beside && `Also on them: ${beside}.`, taken ? `It takes from: ${taken}.` : "It takes no label from other phrases.", kappa !== null ? `Two crops of ${whole(tried.stability.images)} images agree by κ ${kappa.toFixed(2)}.` : ""].filter(Boolean).join(" ")));
  byId("look-tried").hidden = false;
  byId("add-phrase").hidden = !tried.can_be_added;
  if (!tried.can_be_added) byId("tried").append(make("p", { class: "note" }, "To add phrases from here, start lanit review with --prompts FILE."));
};
const addPhrase = async () => {
  const made = await ask("/api/phrases", { phrase: tried.phrase });
  byId("add-phrase").hidden = true;
  byId("tried").append(make("p", {}, `Added to ${made.file}; the next revision made here has it. `));
};

/* ---------------------------------------------------------------- what is opened */

const zoom = (row) => {
  byId("zoom").src = large(row);
  byId("zoomed").showModal();
};
const openMap = async () => {
  byId("map").showModal();
  const map = await import("/assets/map.js");
  await map.open({ ask, show, thumb, tell, phrase: () => phrase, domain: name });
};
const open = { help: () => byId("help").showModal(), trying: () => byId("trying").showModal(), map: () => openMap().catch(tell) };
for (const button of all("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
for (const dialog of all("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
byId("open-help").addEventListener("click", open.help);
byId("open-try").addEventListener("click", open.trying);
byId("open-map").addEventListener("click", open.map);
byId("try-form").addEventListener("submit", (event) => { event.preventDefault(); act(tryPhrase); });
byId("add-phrase").addEventListener("click", () => act(addPhrase));
byId("look-tried").addEventListener("click", () => act(async () => { byId("trying").close(); await show(tried, "found"); }));
/* CLIP is loaded, and embeddings are made ready, while words are typed; what goes wrong is told when they are sent. */
byId("query").addEventListener("focus", () => ask("/api/search/prepare", {}).catch(() => {}));
byId("searching").addEventListener("submit", (event) => { event.preventDefault(); act(search); });

/* ---------------------------------------------------------------- keys, mouse, touch */

const keys = {
  j: (event) => go(cursor + 1, event.shiftKey), J: () => go(cursor + 1, true), ArrowRight: (event) => go(cursor + 1, event.shiftKey), ArrowDown: (event) => go(cursor + across, event.shiftKey),
  k: (event) => go(cursor - 1, event.shiftKey), K: () => go(cursor - 1, true), ArrowLeft: (event) => go(cursor - 1, event.shiftKey), ArrowUp: (event) => go(cursor - across, event.shiftKey),
  Home: () => go(0), End: () => go(list.count - 1),
  " ": accept, x: wrong, u: undo, r: fetchList, "[": () => choosePhrase(phrase - 1), "]": () => choosePhrase(phrase + 1),
  z: () => entry(cursor) && zoom(entry(cursor).row), Escape: () => { selected.clear(); anchor = null; draw(); },
};
const atOnce = { "/": () => byId("query").select(), "?": open.help, m: open.map, t: open.trying };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const field = event.target.closest("input, select, textarea");
  if (field) {
    if (event.key === "Escape") grid.focus({ preventScroll: true });
    return;
  }
  if (event.target.closest("button") && [" ", "Enter"].includes(event.key)) return; // it is pressed
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : null;
  const action = digit !== null ? () => toggle(firstChip + digit) : keys[event.key];
  if (!action && !atOnce[event.key]) return;
  event.preventDefault();
  if (action) act(() => action(event));
  else atOnce[event.key]();
});
for (const [id, action] of [["accept", accept], ["wrong", wrong], ["undo", undo], ["earlier", () => go(cursor - 1)], ["later", () => go(cursor + 1)], ["again", fetchList], ["revise", revise], ["write-offsets", writeOffsets]]) {
  byId(id).addEventListener("click", () => act(action));
}
byId("queue").addEventListener("change", () => act(fetchList));
byId("phrase").addEventListener("change", () => act(() => choosePhrase(Number(byId("phrase").value))));
byId("offset").addEventListener("input", () => moved().catch(tell));
byId("several").addEventListener("click", () => {
  selecting = !selecting;
  byId("several").setAttribute("aria-pressed", selecting);
});
grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", () => { measure(); reveal(); draw(); });

let rubber = null;
const place = (event) => {
  const box = grid.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top + grid.scrollTop];
};
grid.addEventListener("pointerdown", (event) => {
  if (event.pointerType === "touch" || event.button !== 0) return;
  const [x, y] = place(event);
  rubber = { x, y, box: null };
});
addEventListener("pointermove", (event) => {
  if (!rubber) return;
  const [x, y] = place(event);
  if (!rubber.box && Math.hypot(x - rubber.x, y - rubber.y) < 8) return;
  if (!rubber.box) sheet.append(rubber.box = make("div", { id: "rubber" }));
  const [left, top, right, bottom] = [Math.min(x, rubber.x), Math.min(y, rubber.y), Math.max(x, rubber.x), Math.max(y, rubber.y)];
  rubber.box.style.cssText = `left:${left}px;top:${top}px;width:${right - left}px;height:${bottom - top}px`;
  const shift = grid.scrollTop - grid.scrollTop * stretch();
  selected.clear();
  for (let line = Math.floor((top - shift) / cell); line <= Math.floor((bottom - shift) / cell); line++) {
    for (let column = Math.floor(left / cell); column <= Math.min(Math.floor(right / cell), across - 1); column++) {
      const at = line * across + column;
      if (at >= 0 && at < list.count) selected.add(at);
    }
  }
  draw();
});
let dragged = false;
addEventListener("pointerup", () => {
  dragged = Boolean(rubber?.box);
  rubber?.box?.remove();
  rubber = null;
});
grid.addEventListener("click", (event) => {
  if (dragged) {
    dragged = false;
    return;
  }
  const element = event.target.closest(".cell");
  if (!element) return;
  const at = Number(element.dataset.at);
  if (selecting || event.ctrlKey || event.metaKey) {
    if (!selected.delete(at)) selected.add(at);
    act(() => { cursor = at; draw(); return look(); });
  } else {
    if (!event.shiftKey) selected.clear();
    act(() => go(at, event.shiftKey));
  }
});
figure.addEventListener("click", () => entry(cursor) && zoom(entry(cursor).row));

/* ---------------------------------------------------------------- beginning, and what others answer */

const load = async () => {
  store = await ask("/api/state");
  ahead.clear();
  since = store.since;
  phrase = Math.min(phrase, store.domains.length - 1);
  document.title = `Review: ${store.store}`;
  byId("store").textContent = `${store.store}, revision ${store.revision}`;
  byId("store").title = `${plural(store.images, "image")}, ${store.rule}`;
  byId("phrase").replaceChildren(...store.domains.map((domain, n) => make("option", { value: n }, domain.name)));
  byId("phrase").value = phrase;
  if (byId("queue").value === "found") byId("queue").value = "first";
  await fetchList();
  await figures(true);
};
const poll = async () => {
  if (document.hidden || !store) return;
  const found = await ask(`/api/changes?since=${since}`);
  if (found.revision !== store.revision) return load();
  since = found.since;
  for (const [row, domain, label] of found.changes) note([row], domain, label);
};
setInterval(() => act(poll), POLL);
act(load).then(() => grid.focus({ preventScroll: true }));

"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse(byId("data").textContent);
  const names = data.domains;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const thin = "\u202f";
  const whole = (value) => value.toLocaleString("en").replaceAll(",", thin);
  const signed = (value) => {
    const digits = Math.abs(value).toFixed(4);
    return Number(digits) === 0 ? digits : (value < 0 ? "\u2212" : "+") + digits;
  };
  const plain = (value) => value.toFixed(4).replace("-", "\u2212");
  const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
  const percent = (value) => `${(100 * value).toFixed(1)}${thin}%`;

  /* Thumbnails: decoded as they come near the window. */
  const picture = (image) => {
    const shown = make("img", { alt: "", decoding: "async" });
    shown.src = "data:image/jpeg;base64," + data.thumbnails[image.g];
    return shown;
  };
  const fill = (button) => {
    const image = data.images[button.dataset.i];
    if (image.g !== null && !button.querySelector("img")) button.prepend(picture(image));
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      fill(entry.target);
    }
  }, { rootMargin: "600px" });

  /* A group of thumbnails is one stop of the tab key; arrows move within. */
  const adopt = (group) => {
    const buttons = all("button", group);
    buttons.forEach((button, position) => {
      button.tabIndex = position === 0 ? 0 : -1;
      seen.observe(button);
    });
  };
  const step = (buttons, from, key) => {
    const across = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
    if (key === "Home") return 0;
    if (key === "End") return buttons.length - 1;
    return key in moves ? Math.min(Math.max(from + moves[key], 0), buttons.length - 1) : from;
  };
  const rove = (group, button) => {
    for (const other of all("button", group)) other.tabIndex = other === button ? 0 : -1;
    button.focus();
  };
  all(".shots").forEach(adopt);
  addEventListener("beforeprint", () => all(".shot").forEach(fill));
  document.addEventListener("keydown", (event) => {
    const button = event.target.closest?.(".shot");
    if (!button) return;
    const group = button.closest(".shots");
    const buttons = all("button", group);
    const from = buttons.indexOf(button);
    const to = step(buttons, from, event.key);
    if (to === from) return;
    event.preventDefault();
    rove(group, buttons[to]);
  });

  /* Phrases: the filter and the order hold for the table and for the cards alike. */
  const filter = byId("filter"), sort = byId("sort"), direction = byId("direction");
  let rising = false;
  const values = new Map();
  for (const cell of all("#table tbody [data-key]")) {
    const n = cell.parentElement.dataset.n, key = cell.dataset.key;
    const value = cell.dataset.value;
    values.set(`${n} ${key}`, key === "name" ? value.toLocaleLowerCase() : value === "" ? null : Number(value));
  }
  const compare = (a, b) => {
    const x = values.get(`${a} ${sort.value}`), y = values.get(`${b} ${sort.value}`);
    if (x === null || y === null) return (x === null) - (y === null) || a - b; // no value: last, either way
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return (rising ? order : -order) || a - b;
  };
  const arrange = () => {
    const order = names.map((_, n) => n);
    if (sort.value) order.sort(compare);
    const wanted = filter.value.trim().toLocaleLowerCase();
    for (const [parent, selector] of [["#table tbody", "tr"], ["#cards", ".phrase"]]) {
      const body = document.querySelector(parent);
      const elements = new Map(all(selector, body).map((element) => [Number(element.dataset.n), element]));
      body.append(...order.map((n) => elements.get(n)));
      for (const [n, element] of elements) element.hidden = !names[n].toLocaleLowerCase().includes(wanted);
    }
    let others = 0;
    for (const row of all("#others tbody tr")) {
      row.hidden = !row.firstElementChild.textContent.toLocaleLowerCase().includes(wanted);
      others += row.hidden ? 0 : 1;
    }
    if (wanted && others) byId("others").open = true;
    for (const head of all("#table thead [data-key]")) {
      if (head.dataset.key === sort.value) head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    direction.disabled = !sort.value;
    direction.textContent = rising ? "↑" : "↓";
    direction.setAttribute("aria-label", `Sort direction: ${rising ? "smallest" : "largest"} first`);
    const shown = names.filter((name) => name.toLocaleLowerCase().includes(wanted)).length + others;
    const total = names.length + all("#others tbody tr").length;
    byId("counted").textContent = wanted ? `${whole(shown)} of ${plural(total, "phrase")}` : plural(total, "phrase");
  };
  filter.addEventListener("input", arrange);
  sort.addEventListener("change", () => {
    rising = sort.value === "name";
    arrange();
  });
  direction.addEventListener("click", () => {
    rising = !rising;
    arrange();
  });
  for (const head of all("#table thead [data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.key;
      rising = sort.value === key ? !rising : key === "name";
      sort.value = key;
      arrange();
    });
  }
  for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#phrase-"]');
    if (!link) return;
    event.preventDefault();
    const card = document.querySelector(link.getAttribute("href"));
    if (card.hidden) {
      filter.value = "";
      arrange();
    }
    card.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
    card.focus({ preventScroll: true });
  });

  /* The heat map: a grid to step through, and a line that tells the pair in words. */
  const grid = byId("heat");
  const rows = all("tbody tr", grid).map((row) => all("td", row));
  const heads = all("thead th", grid);
  const lift = (i, j) => {
    const expected = data.together[i][i] * data.together[j][j] / data.count;
    return expected > 0 ? data.together[i][j] / expected : 0;
  };
  const colour = () => {
    const mode = document.querySelector('[name="heat"]:checked').value;
    grid.dataset.mode = mode;
    rows.forEach((row, i) => row.forEach((cell, j) => {
      if (i === j) return;
      const part = data.together[i][j] / Math.max(data.together[i][i], 1), times = lift(i, j);
      // times as often as chance: from an eighth to eight times
      const doublings = Math.min(Math.max(Math.log2(Math.max(times, 1e-9)) / 3, -1), 1);
      const heat = mode === "share" ? part : Math.abs(doublings);
      cell.style.setProperty("--heat", heat.toFixed(3));
      cell.classList.toggle("strong", heat > 0.55);
      cell.classList.toggle("seldom", mode === "lift" && doublings < 0);
      cell.firstChild.textContent = mode === "share" ? (100 * part).toFixed(0) : times.toFixed(times < 9.95 ? 1 : 0);
    }));
  };
  const tell = (i, j) => {
    const [both, mine, other] = [data.together[i][j], data.together[i][i], data.together[j][j]];
    byId("pair").textContent = i === j
      ? `${names[i]}: ${plural(mine, "image")}`
      : `${names[i]} and ${names[j]}: ${plural(both, "image")}; ${percent(both / Math.max(mine, 1))} of ${names[i]}, ` +
        `${percent(both / Math.max(other, 1))} of ${names[j]}; ${lift(i, j).toFixed(2)} times as often as chance`;
    for (const marked of all(".marked", grid)) marked.classList.remove("marked");
    for (const cell of [heads[j], rows[i][0].parentElement.firstElementChild, rows[i][j]]) cell.classList.add("marked");
  };
  const place = (target) => {
    const cell = target.closest?.("tbody td");
    const i = cell ? rows.findIndex((row) => row.includes(cell)) : -1;
    return i < 0 ? null : [i, rows[i].indexOf(cell)];
  };
  for (const name of ["mouseover", "focusin", "click"]) {
    grid.addEventListener(name, (event) => {
      const at = place(event.target);
      if (at) tell(...at);
    });
  }
  grid.addEventListener("keydown", (event) => {
    const at = place(event.target);
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!at || !move) return;
    event.preventDefault();
    const next = rows[at[0] + move[0]]?.[at[1] + move[1]];
    if (!next) return;
    rows[at[0]][at[1]].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  for (const choice of all('[name="heat"]')) choice.addEventListener("change", colour);

  /* Answers: kept by the page until they are downloaded as a table for lanit label --labels. */
  const marks = new Map(), steps = []; // "image phrase" to what was said of it; how to take the last ones back
  let kept = 0; // marks in the last download
  const said = (i, n) => marks.get(`${i} ${n}`) ?? data.images[i].l.includes(n);
  const shown = () => Number(around[current].dataset.i);
  const nearest = (i) => names.map((_, n) => n).sort((a, b) => nearness(data.images[i], a) - nearness(data.images[i], b))[0];
  /* The phrase that an image is asked about: that of its card or of the search, else the least sure one. */
  const about = () => {
    const card = around[current].closest(".card.phrase[data-n]"), chosen = byId("phrase").value;
    return card ? Number(card.dataset.n) : chosen !== "" && around[current].closest("#results") ? Number(chosen) : nearest(shown());
  };
  const askAbout = () => {
    const i = shown(), n = about();
    byId("mark-asked").textContent = `${said(i, n) ? "" : "not "}${names[n]}: is that right?`;
    byId("row-table").replaceChildren(...lines(data.images[i]));
  };
  const mark = (i, n, label) => {
    steps.push([i, n, marks.get(`${i} ${n}`)]);
    marks.set(`${i} ${n}`, label);
    marked(i);
  };
  const marked = (i) => {
    byId("marks").hidden = !marks.size;
    byId("marked").textContent = `${plural(marks.size, "answer")}${marks.size && kept === marks.size ? ", downloaded" : ""}`;
    const any = names.some((_, n) => marks.has(`${i} ${n}`));
    for (const button of all(`.shot[data-i="${i}"]`)) button.classList.toggle("marked", any);
    askAbout();
  };
  const onwards = () => current < around.length - 1 ? turn(1) : askAbout();
  const undo = () => {
    const [i, n, before] = steps.pop() ?? [];
    if (i === undefined) return;
    if (before === undefined) marks.delete(`${i} ${n}`);
    else marks.set(`${i} ${n}`, before);
    const at = around.findIndex((button) => Number(button.dataset.i) === i);
    if (at >= 0) show(at);
    marked(i);
  };
  const right = () => { mark(shown(), about(), said(shown(), about())); onwards(); };
  const wrong = () => { mark(shown(), about(), !said(shown(), about())); onwards(); };
  const table = () => {
    const columns = names.map((_, n) => n).filter((n) => data.images.some((_, i) => marks.has(`${i} ${n}`)));
    const quoted = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const lines = [["image_id", "path", ...columns.map((n) => names[n])]];
    data.images.forEach((image, i) => {
      const cells = columns.map((n) => marks.has(`${i} ${n}`) ? String(Number(marks.get(`${i} ${n}`))) : "");
      if (cells.some((cell) => cell)) lines.push([image.i, image.p, ...cells]);
    });
    return lines.map((line) => line.map(quoted).join(",") + "\n").join("");
  };
  byId("download").addEventListener("click", () => {
    const link = make("a", { download: "labels.csv", href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })) });
    link.click();
    kept = marks.size;
    byId("marked").textContent = `${plural(kept, "answer")}, downloaded`;
  });
  addEventListener("beforeunload", (event) => { if (marks.size !== kept) event.preventDefault(); });

  /* One image's row. */
  const dialog = byId("row");
  let around = [], current = 0;
  const truth = (image, n) => image.t === null || image.u.includes(n) ? null : image.t.includes(n);
  const isWrong = (image, n) => truth(image, n) !== null && truth(image, n) !== image.l.includes(n);
  const most = Math.max(1e-9, ...data.images.map((image) => Math.max(...image.m))); // labels are decided among these
  const lines = (image) => {
    const order = names.map((_, n) => n).sort((a, b) => image.m[b] - image.m[a] || a - b);
    return order.map((n) => {
      const margin = image.m[n], on = image.l.includes(n);
      const bar = make("i", { class: margin > 0 ? "more" : margin < -most ? "less beyond" : "less" });
      bar.style.setProperty("--long", Math.min(Math.abs(margin) / most, 1).toFixed(3));
      const said = marks.get(`${data.images.indexOf(image)} ${n}`);
      const label = said === undefined ? (on ? "✓ yes" : "no") + (image.h.includes(n) ? ", by a person" : "") : (said ? "✓ yes" : "no") + ", by you";
      const line = make("tr", isWrong(image, n) ? { class: "wrong" } : on ? { class: "on" } : {},
        make("th", n < 9 ? { scope: "row", "data-digit": n + 1 } : { scope: "row" }, names[n]),
        make("td", { class: "number" }, plain(image.b + margin)),
        make("td", { class: "number" }, signed(margin)),
        make("td", { class: "bar" }, bar),
        make("td", {}, label));
      if (data.scored) line.append(make("td", {}, { true: "✓ yes", false: "no", null: "unknown" }[truth(image, n)]));
      return line;
    });
  };
  const size = (bytes) => bytes === null ? "" :
    bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)}${thin}kB` : `${(bytes / 1e6).toFixed(1)}${thin}MB`;
  const facts = (image) => {
    const [width, height, bytes] = image.z;
    const others = image.x ? [`${whole(image.x)} of phrases without a card`] : [];
    const labels = [...image.l.map((n) => names[n]), ...others].join(", ");
    const found = [["Labels", labels || "none"], ["Source", data.sources[image.s] || "no longer in the store"]];
    if (width !== null) found.push(["Size", `${width} × ${height} px, ${size(bytes)}`]);
    found.push(["Similarity to the base", plain(image.b)]);
    return found.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  };
  const show = (position) => {
    current = position;
    const image = data.images[around[position].dataset.i];
    byId("row-name").textContent = image.p;
    byId("row-image").replaceChildren(image.g === null ? make("span", { class: "missing" }, "no picture") : picture(image));
    byId("row-facts").replaceChildren(...facts(image));
    byId("row-table").replaceChildren(...lines(image));
    askAbout();
    byId("earlier").disabled = position === 0;
    byId("later").disabled = position === around.length - 1;
  };
  const turn = (by) => {
    const next = current + by;
    if (next >= 0 && next < around.length) show(next);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".shot");
    if (!button) return;
    around = all(".shot", button.closest(".shots"));
    show(around.indexOf(button));
    dialog.showModal();
    dialog.focus();
    dialog.scrollTop = 0;
  });
  byId("earlier").addEventListener("click", () => turn(-1));
  byId("later").addEventListener("click", () => turn(1));
  for (const [id, action] of [["mark-right", right], ["mark-wrong", wrong], ["mark-undo", undo]]) byId(id).addEventListener("click", action);
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("button") && [" ", "Enter"].includes(event.key)) return; // it is pressed
    const digit = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : names.length;
    const keys = { ArrowLeft: () => turn(-1), k: () => turn(-1), ArrowRight: () => turn(1), j: () => turn(1), " ": right, x: wrong, u: undo };
    const action = digit < names.length ? () => mark(shown(), digit, !said(shown(), digit)) : keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  dialog.addEventListener("close", () => {
    if (around[current]?.isConnected) rove(around[current].closest(".shots"), around[current]);
  });

  /* The search: images of the page by path, phrase and state. */
  const page = 60;
  let found = [], listed = 0;
  const lower = data.images.map((image) => image.p.toLocaleLowerCase());
  const some = (n, test) => n === "" ? names.some((_, k) => test(k)) : test(Number(n));
  const nearness = (image, n) => Math.abs(image.m[n] - data.offsets[n]);
  const tests = {
    "": () => true,
    on: (image, n) => some(n, (k) => image.l.includes(k)),
    off: (image, n) => n === "" ? !image.l.length && !image.x : !image.l.includes(Number(n)),
    near: (image, n) => some(n, (k) => nearness(image, k) < data.epsilon),
    wrong: (image, n) => some(n, (k) => isWrong(image, k)),
  };
  const extreme = (image, n, pick, value) => n === "" ? pick(...names.map((_, k) => value(image, k))) : value(image, Number(n));
  const margin = (image, n) => image.m[n];
  const keys = {
    path: () => 0,
    high: (image, n) => -extreme(image, n, Math.max, margin),
    low: (image, n) => extreme(image, n, Math.min, margin),
    near: (image, n) => extreme(image, n, Math.min, nearness),
  };
  const list = () => {
    const next = found.slice(listed, listed + page);
    const n = byId("phrase").value;
    const buttons = next.map((i) => {
      const image = data.images[i];
      const told = n === "" ? "" : `, margin ${signed(image.m[n])}, ${image.l.includes(Number(n)) ? "labelled" : "not labelled"}`;
      const wrong = n !== "" && isWrong(image, Number(n));
      const button = make("button", { type: "button", class: wrong ? "shot wrong" : "shot", "data-i": i,
        "aria-haspopup": "dialog", "aria-label": image.p + told + (wrong ? ", against the truth" : "") });
      if (image.g === null) button.append(make("span", { class: "missing" }, image.p.split("/").pop()));
      return button;
    });
    byId("results").append(...buttons);
    listed += next.length;
    byId("more").hidden = listed >= found.length;
    adopt(byId("results"));
    return buttons[0];
  };
  const search = () => {
    const wanted = byId("text").value.trim().toLocaleLowerCase();
    const n = byId("phrase").value, test = tests[byId("state").value], key = keys[byId("order").value];
    found = data.images.map((_, i) => i).filter((i) => lower[i].includes(wanted) && test(data.images[i], n));
    const by = found.map((i) => [key(data.images[i], n), lower[i], i]);
    found = by.sort((a, b) => a[0] - b[0] || (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0)).map((entry) => entry[2]);
    listed = 0;
    byId("results").replaceChildren();
    byId("found").textContent = plural(found.length, "image");
    list();
  };
  for (const id of ["text", "phrase", "state", "order"]) byId(id).addEventListener("input", search);
  byId("more").addEventListener("click", () => {
    const first = list();
    rove(byId("results"), first);
  });
  byId("searching").hidden = false;
  search();
  arrange();
})();

"use strict";
// The controls of a report. Regions, heatmaps, shares and r are computed here as in wwwlib's `maps`
// and `atlas`; strings of the data become text nodes, never markup.

// Characters that turn the direction of what follows are replaced: names contain what they like.
const TURNS = /\\u(202[a-e]|206[6-9]|200[ef])/g;
const DATA = JSON.parse(document.getElementById("data").textContent.replace(TURNS, "\\ufffd"));
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f"];
const ROWS = 100; // of the table of decisions, at first
const LEVEL = "does no better than chance";
const shown = { pic: 0, view: 0, cls: -1, rival: -1, k: 5, percentile: 90, alpha: 0, beside: -1, other: -1, find: "" };

// Elements -----------------------------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((one) => one !== null && one !== ""));
  return made;
}
// Replace an element's children; what had the focus keeps it.
function fill(id, ...children) {
  const focused = document.activeElement.id;
  document.getElementById(id).replaceChildren(...children.flat(Infinity).filter((one) => one !== null));
  if (focused && document.activeElement.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
const picture = (data, alt, width) => el("img", { src: "data:image/webp;base64," + data, alt, width });
const percent = (p) => `${(100 * p).toFixed(Math.abs(p) < 0.1 && p !== 0 ? 1 : 0)}\u00a0%`;
const quoted = (names) => (names.length ? names.map((one) => `“${one}”`).join(", ") : "no concept");
const digits = (x, n = 2) => x.toFixed(n).replace(/^(-?)0\./, "$1.");

function choice(label, options, value, set) {
  const list = el("select", { id: `choice ${label}`, onchange: (event) => set(event.target.value) });
  for (const [key, text] of options) list.append(el("option", { value: key, selected: String(key) === String(value) }, text));
  return el("label", {}, label, list);
}
function slider(label, min, max, step, key) {
  const text = el("span", {}, `${label}: ${shown[key]}`);
  const input = el("input", { type: "range", min, max, step, value: shown[key], "aria-label": label });
  input.addEventListener("input", () => {
    shown[key] = Number(input.value);
    text.textContent = `${label}: ${input.value}`;
    results();
  });
  return el("label", {}, text, input);
}

// Values -------------------------------------------------------------------------------------

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}
const floats = (text) => new Float32Array(bytes(text));

// Keep the last things of a kind that were computed or drawn.
const LIMITS = { explained: 12, tile: 80, thumbs: 600 };
const kept = Object.fromEntries(Object.keys(LIMITS).map((kind) => [kind, new Map()]));
function keep(kind, key, make) {
  const all = kept[kind], found = all.has(key) ? all.get(key) : make();
  all.delete(key);
  all.set(key, found);
  if (all.size > LIMITS[kind]) all.delete(all.keys().next().value);
  return found;
}
const layerKey = (...more) => [shown.view, ...more].join("|");
const finite = (x) => (Number.isFinite(x) ? x : -Infinity);
const view = () => DATA.views[shown.view];
const network = () => DATA.networks[view().network];
const detail = (pic) => DATA.pictures[pic]?.states;
const state = (pic) => detail(pic)?.[shown.view];

// What a function returns in another layer, for its own classes where it has not the chosen ones.
function within(place, work) {
  const { view: here, cls, rival } = shown, name = (c) => network().classes[c], chosen = [cls, rival].map(name);
  try {
    shown.view = place;
    const offered = state(shown.pic)?.top.slice(1).map(([c]) => c) ?? [];
    [shown.cls, shown.rival] = chosen.map((one) => offered.find((c) => name(c) === one) ?? -1);
    return work();
  } finally {
    Object.assign(shown, { view: here, cls, rival });
  }
}

// Neuron names at the chosen alpha: the best and all concepts that score at least alpha times it.
function names(neuron) {
  const [words, scores] = neuron;
  return words.filter((_, j) => !j || scores[j] >= shown.alpha * scores[0]);
}

function strongest(w, k) {
  const order = [...w.keys()].filter((i) => Number.isFinite(w[i]));
  return order.sort((i, j) => w[j] - w[i] || i - j).slice(0, k);
}

function minus(u, v) {
  return u && v ? u.map((x, i) => x - v[i]) : null;
}

function mapOf(one, key, neuron) {
  const found = one.maps[key] ?? one.maps[""];
  const place = one.shown.indexOf(neuron), [h, w] = found.shape, scale = found.peak[place] / 32767;
  found.whole ??= new Int16Array(bytes(found.values));
  return { h, w, a: Float64Array.from(found.whole.subarray(place * h * w, (place + 1) * h * w), (x) => Math.max(0, x * scale)) };
}

// Bilinear, with corners not aligned, as torch.nn.functional.interpolate.
function resized({ h, w, a }, width, height) {
  const out = new Float64Array(width * height);
  const at = (size, from) => Array.from({ length: size }, (_, i) => {
    const x = Math.max(0, ((i + 0.5) * from) / size - 0.5), low = Math.min(Math.floor(x), from - 1);
    return [low, Math.min(low + 1, from - 1), x - low];
  });
  const columns = at(width, w), rows = at(height, h);
  for (let y = 0, i = 0; y < height; y++) {
    const [top, bottom, t] = rows[y];
    for (let x = 0; x < width; x++, i++) {
      const [left, right, s] = columns[x];
      const upper = a[top * w + left] * (1 - s) + a[top * w + right] * s;
      const lower = a[bottom * w + left] * (1 - s) + a[bottom * w + right] * s;
      out[i] = upper * (1 - t) + lower * t;
    }
  }
  return out;
}

// What lies strictly above a nearest-rank percentile; the maximum where that is the percentile.
function region(m, sorted = Float64Array.from(m).sort()) {
  const n = m.length, top = sorted[n - 1], low = sorted[0], inside = new Uint8Array(n);
  const level = sorted[Math.max(1, Math.ceil((shown.percentile / 100) * n - 1e-9)) - 1];
  for (let i = 0; i < n; i++) inside[i] = level < top ? m[i] > level : m[i] === top && low < top;
  return inside;
}

function heatmap(one, key, w, chosen) {
  const positive = chosen.map((i) => Math.max(0, w[i])), total = positive.reduce((s, x) => s + x, 0);
  let sum = null;
  chosen.forEach((i, j) => {
    if (!positive[j]) return;
    const map = mapOf(one, key, i), weight = view().where === "activation" ? positive[j] / total : 1;
    sum ??= { ...map, a: new Float64Array(map.a.length) };
    map.a.forEach((x, at) => { sum.a[at] += weight * x; });
  });
  return sum && resized(sum, ...one.size);
}

function cosine(u, v) {
  let product = 0, uu = 0, vv = 0;
  for (let i = 0; i < u.length; i++) { product += u[i] * v[i]; uu += u[i] * u[i]; vv += v[i] * v[i]; }
  return uu && vv ? product / Math.sqrt(uu * vv) : NaN;
}

// One explanation: both tracks, their heatmaps and r.
const explain = (one) => keep("explained", layerKey(one.index, shown.cls, shown.rival, shown.k), () => explainAnew(one));
function explainAnew(one) {
  const predicted = one.top[0][0], rival = shown.rival, cls = rival >= 0 || shown.cls < 0 ? predicted : shown.cls;
  const side = (c) => (view().class_w[c] ? floats(view().class_w[c]) : null);
  const w = { sample: floats(one.w[rival >= 0 ? rival : ""]), class: rival >= 0 ? minus(side(cls), side(rival)) : side(cls) };
  const key = { sample: rival >= 0 ? `rival ${rival}` : "", class: rival >= 0 ? `rival ${rival}` : cls === predicted ? "" : `class ${cls}` };
  const tracks = {};
  for (const kind of ["class", "sample"]) {
    const chosen = w[kind] ? strongest(w[kind], shown.k) : [];
    const total = w[kind] ? w[kind].reduce((s, x) => s + (Number.isFinite(x) ? Math.abs(x) : 0), 0) : 0;
    tracks[kind] = {
      kind, chosen, key: key[kind], heat: chosen.length ? heatmap(one, key[kind], w[kind], chosen) : null,
      shares: chosen.map((i) => (total ? w[kind][i] / total : 0)),
    };
  }
  const byWeights = !network().count[cls];
  const r = tracks.class.heat && tracks.sample.heat ? cosine(tracks.class.heat, tracks.sample.heat) : NaN;
  const known = rival < 0 && cls === predicted && !byWeights ? view().right_r[shown.k - 1] ?? [] : [];
  return { ...tracks, predicted, cls, rival, byWeights, r, words: placed(r, known) };
}

function placed(r, known) {
  if (Number.isNaN(r)) return "r is not defined, since a heatmap is zero";
  const words = `r = ${digits(r, r < 0.995 ? 2 : 4)}`;
  if (known.length < 20) return words;
  const above = Math.floor((100 * known.filter((x) => x > r).length) / known.length);
  return `${words}, lower than ${above} % of ${known.length} right predictions`;
}

// Drawing ------------------------------------------------------------------------------------

const loaded = new Map();
function loadedPicture(data) {
  if (!loaded.has(data)) {
    const made = new Image();
    made.src = "data:image/webp;base64," + data;
    loaded.set(data, made.decode().then(() => made));
  }
  return loaded.get(data);
}

// Drawings wait for a moment without other work, so that controls stay quick.
const waiting = [];
let drawing = false;
function drawSome() {
  const start = performance.now();
  while (waiting.length && performance.now() - start < 8) waiting.shift()();
  drawing = waiting.length > 0;
  if (drawing) setTimeout(drawSome);
}
function later(work) {
  waiting.push(work);
  if (!drawing) setTimeout(drawSome);
  drawing = true;
}

// Draw a picture, then change its pixels; one canvas for each key, drawn when it is first shown.
function canvas(one, key, alt, change, side = 150) {
  const [width, height] = one.size, made = keep("tile", key, () => el("canvas", { width, height, role: "img" }));
  made.setAttribute("aria-label", alt);
  made.style.width = `${Math.round((side * width) / Math.max(width, height))}px`;
  const draw = (image) => {
    if (made.drawn || !made.isConnected) return;
    const context = made.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const data = context.getImageData(0, 0, width, height);
    change(data.data, width, height);
    context.putImageData(data, 0, 0);
    made.drawn = true;
  };
  if (!made.drawn) loadedPicture(one.input).then((image) => later(() => draw(image)));
  return made;
}

// Whether a pixel of a row, or column, has one inside at most `thick` steps away.
function widened(inside, width, height, thick, step) {
  const found = new Uint8Array(inside.length), [along, across] = step === 1 ? [width, height] : [height, width];
  const other = step === 1 ? width : 1;
  for (let y = 0; y < across; y++) for (let x = 0; x < along; x++) {
    if (!inside[y * other + x * step]) continue;
    for (let u = Math.max(0, x - thick); u <= Math.min(along - 1, x + thick); u++) found[y * other + u * step] = 1;
  }
  return found;
}

function regionTile(one, track, neuron, colour, alt) {
  const line = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const key = layerKey("region", one.index, track.kind, track.key, neuron, colour, shown.percentile);
  return canvas(one, key, alt, (pixels, width, height) => {
    const m = resized(mapOf(one, track.key, neuron), width, height), inside = region(m);
    const thick = Math.max(1, Math.round(width / 75)), near = widened(widened(inside, width, height, thick, 1), width, height, thick, width);
    for (let i = 0; i < inside.length; i++) if (!inside[i]) {
      for (let c = 0; c < 3; c++) pixels[4 * i + c] = near[i] ? line[c] : 0.3 * pixels[4 * i + c] + 178.5;
    }
  });
}

const HEAT = [[20, 11, 52], [132, 32, 107], [229, 92, 48], [246, 215, 70]];
function heatTile(one, track, heat, alt) {
  const key = layerKey("heat", one.index, track.kind, track.key, shown.k);
  return canvas(one, key, alt, (pixels) => {
    let peak = 0;
    for (const x of heat) peak = Math.max(peak, x);
    for (let i = 0; i < heat.length; i++) {
      const grey = 0.3 * pixels[4 * i] + 0.59 * pixels[4 * i + 1] + 0.11 * pixels[4 * i + 2];
      const value = peak ? heat[i] / peak : 0, place = Math.min(2, Math.floor(3 * value)), part = 3 * value - place;
      for (let c = 0; c < 3; c++) {
        const hue = HEAT[place][c] * (1 - part) + HEAT[place + 1][c] * part;
        pixels[4 * i + c] = (0.35 + 0.4 * value) * hue + (0.65 - 0.4 * value) * grey;
      }
    }
  }, 130);
}

// A picture explained --------------------------------------------------------------------------

function thumbs(keys, words, ...slot) {
  return keep("thumbs", layerKey(words, ...slot), () => el("p", { class: "thumbs" }, keys.map((key, i) => picture(DATA.thumbs[key], `${words} ${i + 1}`, 44))));
}

function neuronRow(one, track, place, colour) {
  const i = track.chosen[place], neuron = view().neurons[i], [, , test, supported, minor, images, crops] = neuron;
  const own = names(neuron), verb = view().where === "activation" ? "active" : "contributing";
  const tile = regionTile(one, track, i, colour, `where neuron ${i}, ${quoted(own)}, is ${verb}`);
  return el("div", { class: "neuron" }, tile, el("div", {},
    el("h4", {}, `Neuron ${i}: ${percent(track.shares[place])} of the contribution`),
    el("p", { class: supported === false ? "unsupported" : null }, el("b", {}, quoted(own)), own.length ? ` (${test}${supported === false ? `: ${LEVEL}` : ""})` : ""),
    thumbs(images, "probe picture", track.kind, one.index, i), el("p", {}, `in crops: ${quoted(minor)}`), thumbs(crops, "crop", track.kind, one.index, i),
    el("button", { onclick: () => find(`neuron ${i}`) }, `About neuron ${i}`)));
}

function trackSection(one, track, title, colours) {
  const share = track.shares.reduce((s, x) => s + Math.abs(x), 0);
  const rows = track.chosen.map((i, place) => neuronRow(one, track, place, colours.get(i)));
  return el("section", {}, el("h3", {}, title), rows,
    el("p", {}, `Together ${track.chosen.length} of ${view().neurons.length} neurons carry ${percent(share)} of all contributions${shown.rival >= 0 ? " to the difference" : ""}.`));
}

function answer(one, found) {
  const classes = network().classes, [[first, p], second] = one.top;
  const right = one.label === null ? "The true class is not known." : one.label === classes[first] ? "That is right." : `That is wrong: it is “${one.label}”.`;
  const chosen = found.sample.chosen.map((i) => view().neurons[i]).filter((one) => one[3] !== false);
  const own = [...new Set(chosen.map((one) => names(one)[0]).filter(Boolean))], count = found.sample.chosen.length;
  const share = percent(found.sample.shares.reduce((s, x) => s + Math.abs(x), 0));
  const decides = shown.rival >= 0 ? `Rather than “${classes[shown.rival]}”, the decision rests` : "The decision rests";
  return [
    el("p", { class: "verdict" }, el("b", {}, `Answer: ${classes[first]}, with a probability of ${percent(p)}.`),
      second ? ` Runner-up: ${classes[second[0]]}, ${percent(second[1])}. ` : " ", right),
    el("p", {}, `${decides} most on ${own.length ? `neurons that respond to ${quoted(own)}` : "neurons that no word fits"}: the ${count} strongest of ${view().neurons.length} carry ${share} of it.`),
    one.warning ? el("p", { class: "warning" }, one.warning) : null,
  ];
}

function trust(one, found) {
  const neurons = found.sample.chosen.map((i) => view().neurons[i]).filter((one) => names(one).length);
  const tested = neurons.filter((one) => one[3] !== null), held = tested.filter((one) => one[3]);
  const p = one.top[0][1], near = network().calibration.find(([low, high]) => p >= low && (p < high || high === 1));
  const right = near && near[3] / near[2], error = near && 2 * Math.sqrt((right * (1 - right) + 1 / near[2]) / near[2]);
  return [
    near && near[2] ? `Of ${near[2]} labelled probe pictures with a probability between ${percent(near[0])} and ${percent(near[1])}, ${percent(right)} are classified right.${right + error < near[0] ? " So this network’s probabilities are too high." : ""}` : null,
    tested.length ? `${held.length} of ${tested.length} tested names fit their neurons better than chance on other pictures.` : "No name was tested on other pictures.",
    `The heatmap of this decision, compared with that of its class in general: ${found.words}. A low r means other regions than usual.`,
    one.warning || (view().right_r.length ? "The picture is not unusual among the probe pictures." : null),
  ].filter(Boolean);
}

function undecided(one, found) {
  const neurons = found.sample.chosen.map((i) => view().neurons[i]);
  const untested = neurons.filter((one) => names(one).length && one[3] === null).length;
  const unnamed = neurons.filter((one) => !names(one).length).length;
  const chance = neurons.filter((one) => names(one).length && one[3] === false).map((one) => names(one)[0]);
  return [
    untested ? `Whether ${untested} of the names are right: no test picture shows these concepts.` : null,
    unnamed ? `What ${unnamed} of the neurons respond to: no concept fits.` : null,
    chance.length ? `What the neurons named ${quoted(chance)} respond to: these names do no better than chance.` : null,
    view().exact ? null : "Contributions are first-order approximations in this layer.",
    found.class.chosen.length ? null : "How the class is decided in general: there are no pictures of it.",
    found.byWeights && found.class.chosen.length ? "How pictures of the class are decided: there are none, so the weights of the last layer stand in for them." : null,
    network().calibration.length ? null : "How far the probability can be trusted: there are no labelled pictures.",
    "Whether the decision would change without what the regions show: no picture was altered.",
  ].filter(Boolean);
}

function bars(one) {
  const rows = one.top.map(([c, p]) => el("tr", {}, el("td", {}, network().classes[c]), el("td", {}, percent(p)),
    el("td", {}, el("meter", { min: 0, max: 1, value: p, "aria-label": `probability of ${network().classes[c]}` }))));
  return el("table", {}, el("caption", { class: "quiet" }, "Most probable classes"), el("tbody", {}, rows));
}

function explained(pic, heading) {
  const one = state(pic), name = DATA.pictures[pic].name;
  if (!one) return el("section", {}, el("h2", {}, name), el("p", {}, `No map of ${view().layer} explains a decision: the logits depend on no position of this layer.`));
  const found = explain(one), colours = new Map();
  const both = [found.sample.chosen, found.class.chosen]; // in turns, so that more neurons change no colour
  for (const i of both[0].flatMap((i, place) => [i, ...both[1].slice(place, place + 1)])) if (!colours.has(i)) colours.set(i, COLOURS[colours.size % COLOURS.length]);
  const count = network().count[found.cls], cls = network().classes[found.cls];
  const source = found.byWeights ? "by weights of the last layer" : `from ${count} picture${count === 1 ? "" : "s"}`;
  const list = (title, items) => (items.length ? el("section", {}, el("h3", {}, title), el("ul", {}, items.map((one) => el("li", {}, one)))) : null);
  const heats = ["sample", "class"].filter((kind) => found[kind].heat).map((kind) =>
    el("figure", {}, heatTile(one, found[kind], found[kind].heat, `heatmap of the ${kind}, bright where it has most weight`), el("figcaption", {}, kind === "class" ? `${cls} in general` : "this decision")));
  const block = el("section", { class: "explained" }, el("h2", {}, heading ?? name),
    el("div", { class: "row" }, el("figure", {}, picture(one.input, `input of the network: ${name}`, 200)), el("div", {}, answer(one, found), bars(one)),
      el("div", {}, el("h3", {}, "Where the decision comes from"), el("div", { class: "strip" }, heats))),
    el("div", { class: "columns" },
      el("div", {}, list("How far to trust it", trust(one, found))),
      el("div", {}, list("What could not be decided", undecided(one, found)))),
    el("div", { class: "columns" },
      trackSection(one, found.sample, "Sample: this decision", colours),
      found.class.chosen.length ? trackSection(one, found.class, `Class: ${cls} in general, ${source}`, colours) : null));
  block.dataset.r = found.r;
  block.dataset.tracks = JSON.stringify([found.class.chosen, found.sample.chosen, found.class.shares, found.sample.shares]);
  return block;
}

function results() {
  const titled = () => `${DATA.pictures[shown.pic].name}, ${view().title}`;
  const also = shown.other >= 0 ? [explained(shown.pic, titled()), within(shown.other, () => explained(shown.pic, titled()))]
    : shown.beside >= 0 ? [shown.pic, shown.beside].map((pic) => explained(pic)) : null;
  fill("results", also ? [shown.other >= 0 ? disagreement() : difference(), el("div", { class: "columns" }, also)] : explained(shown.pic));
  history.replaceState(null, "", "#" + new URLSearchParams(Object.entries(shown).map(([k, v]) => [k, String(v)])));
}

function changes(heads, rows) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Changes" }, el("table", {},
    el("thead", {}, el("tr", {}, ["Value", ...heads].map((text) => el("th", {}, text)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((text) => el("td", {}, text)))))));
}

// What two layers, of one network or two, make of one picture. Their neurons have nothing in common.
function disagreement() {
  const own = () => {
    const one = state(shown.pic);
    if (!one) return [view().title, "", "", "no map explains it"];
    const found = explain(one), [cls, p] = one.top[0], kept = found.sample.chosen.map((i) => view().neurons[i]).filter((n) => n[3] !== false);
    return [view().title, `${network().classes[cls]}, ${percent(p)}`, quoted([...new Set(kept.map((n) => names(n)[0]).filter(Boolean))]), found.words];
  };
  const both = [own(), within(shown.other, own)];
  return changes(both.map(([title]) => title), ["decision", "names that carry it", "heatmaps of class and sample"].map((text, i) => [text, both[0][i + 1], both[1][i + 1]]));
}

// What changes from one picture to another: probabilities, shares and r.
function difference() {
  const both = [shown.pic, shown.beside].map(state);
  if (both.some((one) => !one)) return el("p");
  const found = both.map(explain), neurons = [...new Set(found.flatMap((one) => one.sample.chosen))];
  const p = both.map((one) => one.top.find(([c]) => c === found[0].predicted)?.[1]);
  const share = (one, i) => (one.sample.chosen.includes(i) ? percent(one.sample.shares[one.sample.chosen.indexOf(i)]) : "not among the first");
  return changes([shown.pic, shown.beside].map((i) => DATA.pictures[i].name), [
    [`probability of ${network().classes[found[0].predicted]}`, ...p.map((x) => (x === undefined ? "not among the first classes" : percent(x)))],
    ["heatmaps of class and sample", ...found.map((one) => one.words)],
    ...neurons.map((i) => [`neuron ${i}, ${quoted(names(view().neurons[i]))}`, ...found.map((one) => share(one, i))])]);
}

function controls() {
  const one = state(shown.pic), classes = network().classes, known = DATA.pictures.map((p, i) => [i, p.name]).filter(([i]) => detail(i));
  const others = one ? one.top.slice(1).map(([c]) => [c, classes[c]]) : [];
  const drawn = others.filter(([c]) => view().class_w[c]);
  if (!others.some(([c]) => c === shown.cls) || shown.rival >= 0) shown.cls = -1;
  if (!others.some(([c]) => c === shown.rival)) shown.rival = -1;
  if (!DATA.views[shown.other] || shown.other === shown.view) shown.other = -1;
  const set = (key) => (value) => { shown[key] = Number(value); redraw(); };
  const layers = DATA.views.map((one, i) => [`in ${i}`, `the same, ${one.title}`]).filter((_, i) => i !== shown.view);
  const beside = (value) => {
    [shown.beside, shown.other] = value.startsWith("in ") ? [-1, Number(value.slice(3))] : [Number(value), -1];
    redraw();
  };
  fill("choices",
    choice("Network and layer", DATA.views.map((one, i) => [i, one.title]), shown.view, (v) => { shown.view = Number(v); shown.alpha = view().alpha; redraw(); atlas(); }),
    choice("Class side", [[-1, "predicted class"], ...drawn], shown.cls, set("cls")),
    choice("Rather than", [[-1, "–"], ...others], shown.rival, set("rival")),
    choice("Beside it", [[-1, "–"], ...layers, ...known.filter(([i]) => i !== shown.pic)], shown.other >= 0 ? `in ${shown.other}` : shown.beside, beside),
    slider("Neurons", 1, 8, 1, "k"), slider("Percentile of regions", 50, 99, 1, "percentile"), slider("Alpha of names", 0.5, 1, 0.01, "alpha"));
}

function strip() {
  const known = DATA.pictures.map((p, i) => [p, i]).filter(([p]) => p.states);
  fill("pictures", known.length > 1 ? el("div", { class: "strip controls", role: "group", "aria-label": "Pictures" }, known.map(([p, i]) =>
    el("button", { id: `picture ${i}`, "aria-pressed": String(i === shown.pic), onclick: () => choose(i) }, picture(p.thumb, ""), p.name.split("/").pop()))) : []);
}
function choose(pic) {
  if (shown.beside === pic) shown.beside = -1;
  shown.pic = pic;
  strip();
  redraw();
}
function redraw() {
  controls();
  results();
}

// Groups, comparison, atlas ----------------------------------------------------------------------

function groupSection() {
  const rows = view().groups.filter((one) => one.pictures.length > 1);
  if (!document.getElementById("groups")) return;
  fill("groups", rows.length ? [
    el("h2", {}, "Pictures grouped by decision, and what carries them"),
    el("p", {}, "For each class, the names that carry more of its decisions than of all. If the first of them is no part of the object, but for example its surroundings, the network may take a shortcut: look at these pictures, and at others of the class without it."),
    rows.map((one) => el("section", {}, el("h3", {}, `${one.pictures.length} pictures as ${network().classes[one.class]}`),
      el("p", {}, one.names.filter(([, here, all]) => here > all).map(([name, here, all]) => `“${name}” ${percent(here)} (all pictures: ${percent(all)})`).join("; ") || "No name carries more here than in all pictures."),
      el("div", { class: "strip" }, one.pictures.slice(0, 24).map((i) => picture(DATA.pictures[i].thumb, DATA.pictures[i].name, 48))))),
  ] : []);
}

// Pictures that two layers decide differently: another class, or no name in common.
function differing(titles) {
  const both = titles.map((title) => DATA.views.find((one) => one.title === title)), found = [];
  const decisions = both.map((one) => one.rows.map(({ top, names }) => [DATA.networks[one.network].classes[top[0][0]], [...new Set(names.map(([name]) => name).filter(Boolean))]]));
  decisions[0].slice(0, decisions[1].length).forEach(([cls, own], i) => {
    const [other, its] = decisions[1][i];
    if (cls !== other || !own.some((name) => its.includes(name))) found.push([DATA.pictures[i].name, `${cls}: ${own.join(", ")}`, `${other}: ${its.join(", ")}`]);
  });
  return found;
}

function comparedSection() {
  if (!DATA.compared) return;
  const { concepts, matches, layers } = DATA.compared, pictures = differing(layers);
  const table = (head, rows) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": head[0] }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((one) => el("th", {}, one)))), el("tbody", {}, rows.map((row) => el("tr", {}, row.map((one) => el("td", {}, one)))))));
  const words = (list) => (list.length ? list.map((one) => `“${one}”`).join(", ") : "none");
  fill("compared", el("h2", {}, `${layers[0]} and ${layers[1]} compared`),
    el("p", {}, `Supported first names of both: ${words(concepts.shared)}.`),
    el("p", {}, `Only of ${layers[0]}: ${words(concepts.first)}.`), el("p", {}, `Only of ${layers[1]}: ${words(concepts.second)}.`),
    pictures.length ? [el("h3", {}, "Pictures that differ"), table(["Picture", layers[0], layers[1]], pictures)] : [],
    el("h3", {}, "Neurons that match, by correlation of their activations on the probe pictures"),
    table(["Correlation", layers[0], "Name", layers[1], "Name"], matches.map(([i, j, r, a, b]) => [digits(r), `neuron ${i}`, a, `neuron ${j}`, b])));
}

function card(i) {
  const [, , test, supported, minor, images, crops, classes, verified] = view().neurons[i], own = names(view().neurons[i]);
  return el("section", { class: "card" }, el("h3", {}, `Neuron ${i}`),
    el("p", { class: supported === false ? "unsupported" : null }, el("b", {}, quoted(own)), own.length ? `; ${test}${supported === false ? `, ${LEVEL}` : ""}` : ""),
    verified.length > 1 ? el("p", { class: "quiet" }, `Chosen by test pictures: ${quoted(verified.slice(0, -1))} (${verified.at(-1)})`) : null,
    thumbs(images, "probe picture", "card", i), el("p", {}, `in crops: ${quoted(minor)}`), thumbs(crops, "crop", "card", i),
    el("p", {}, "Contributes most to ", classes.length ? classes.map(([c, s], at) => [at ? ", " : "", el("button", { onclick: () => find(network().classes[c]) }, `${network().classes[c]} (${percent(s)})`)]) : "no class"));
}

// Neurons that a search finds: by number, or by a name, a minor name or a class they contribute to.
function matching(query) {
  const every = [...view().neurons.keys()], text = query.trim().toLowerCase();
  const number = /^neuron (\d+)$/.exec(text);
  if (number) return every.filter((i) => i === Number(number[1]));
  if (!text) return every;
  const c = network().classes.findIndex((one) => one.toLowerCase() === text);
  const first = c >= 0 ? view().classes[c].filter(([, share]) => share > 0).map(([i]) => i) : [];
  const named = every.filter((i) => [...names(view().neurons[i]), ...view().neurons[i][4]].some((one) => one.toLowerCase().includes(text)));
  return [...new Set([...first, ...named])];
}

let listed = 24;
function atlas() {
  const input = el("input", { type: "search", id: "find", value: shown.find, size: 28, oninput: (event) => { shown.find = event.target.value; listed = 24; list(); } });
  const classes = network().classes.map((one) => [one, one]);
  fill("atlas", el("h2", {}, `The neurons of ${view().title}`),
    el("p", { class: "controls" }, el("label", {}, "Find a concept, a class or “neuron 12”", input),
      choice("Class", [["", "any"], ...classes], shown.find, (value) => { shown.find = value; listed = 24; atlas(); })),
    el("p", { id: "count", role: "status" }), el("div", { class: "cards", id: "cards" }),
    el("p", { class: "controls" }, el("button", { id: "more", onclick: () => { listed += 48; list(); } }, "More")));
  list();
  groupSection();
  const facts = Object.entries(network().facts).map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, value)));
  fill("facts", el("table", {}, el("tbody", {}, facts)));
}
function list() {
  const found = matching(shown.find), cls = network().classes.find((one) => one.toLowerCase() === shown.find.trim().toLowerCase());
  const some = found.length > listed ? `; the first ${listed} are listed` : "";
  fill("count", `${found.length} of ${view().neurons.length} neurons${cls ? `; first those that contribute most to “${cls}”` : ""}${some}.`);
  fill("cards", found.slice(0, listed).map(card));
  document.getElementById("more").hidden = found.length <= listed;
}
function find(query) {
  shown.find = query;
  listed = 24;
  atlas();
  document.getElementById("atlas").scrollIntoView();
  document.getElementById("find").focus({ preventScroll: true });
}

// Start ----------------------------------------------------------------------------------------

// Save the tracks of the shown picture as one image.
function saveFigure() {
  const tiles = [...document.querySelectorAll("#results .explained canvas")], side = 220;
  const sheet = el("canvas", { width: side * Math.min(4, tiles.length), height: (side + 30) * Math.ceil(tiles.length / 4) }), context = sheet.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.fillStyle = "#1a1a1a";
  context.font = "12px sans-serif";
  tiles.forEach((tile, i) => {
    const x = side * (i % 4), y = (side + 30) * Math.floor(i / 4), scale = (side - 10) / Math.max(tile.width, tile.height);
    context.drawImage(tile, x, y, tile.width * scale, tile.height * scale);
    context.fillText(tile.getAttribute("aria-label"), x, y + side + 6, side - 10);
  });
  el("a", { href: sheet.toDataURL("image/png"), download: "explanation.png" }).click();
}

function start() {
  DATA.pictures.forEach((one, index) => one.states?.forEach((own) => { if (own) own.index = index; }));
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    if (key === "find") shown.find = value;
    else if (key in shown && Number.isFinite(Number(value))) shown[key] = Number(value);
  }
  if (!DATA.views[shown.view]) shown.view = 0;
  if (!detail(shown.pic)) shown.pic = 0;
  if (!detail(shown.beside)) shown.beside = -1;
  shown.k = Math.min(8, Math.max(1, Math.round(shown.k)));
  shown.percentile = Math.min(99, Math.max(0, shown.percentile));
  if (!(shown.alpha >= 0.5 && shown.alpha <= 1)) shown.alpha = view().alpha;
  fill("page-controls",
    el("button", { onclick: () => document.documentElement.classList.toggle("large") }, "Larger type"),
    detail(0) ? el("button", { onclick: (event) => navigator.clipboard.writeText(location.href).then(() => { event.target.textContent = "Copied"; }) }, "Copy link") : "",
    detail(0) ? el("button", { onclick: saveFigure }, "Save figure") : "",
    el("button", { onclick: () => print() }, "Print"));
  if (detail(0)) {
    const chosen = shown.cls >= 0 || shown.rival >= 0 || shown.beside >= 0 || shown.other >= 0;
    fill("picture", el("details", { open: chosen }, el("summary", {}, "Change what is shown"),
      el("div", { class: "controls", id: "choices" })), el("div", { id: "results" }));
    strip();
    redraw();
  }
  comparedSection();
  atlas();
  shortened();
  const terms = document.getElementById("terms");
  terms.open = innerWidth > 700;
  addEventListener("beforeprint", () => { terms.open = true; });
}

// Long tables begin with their first rows.
function shortened() {
  for (const body of document.querySelectorAll("#decisions tbody")) {
    const rest = [...body.rows].slice(ROWS);
    if (!rest.length) continue;
    rest.forEach((row) => { row.hidden = true; });
    body.closest(".scroll").after(el("button", { onclick: (event) => { rest.forEach((row) => { row.hidden = false; }); event.target.remove(); } }, `Show all ${body.rows.length} decisions`));
  }
}
start();

// SPDX-License-Identifier: Apache-2.0
// Fills a page with what the server says of it. What stands where is the server's to say: there is no logic of any view
// here. Text goes in as text, never as markup. When the link is lost it is tried again, and the page keeps what it has.
"use strict";
if (window.Bokeh) Bokeh.set_log_level("error"); // it warns of plots that wait for their data

const body = document.body;
const link = document.getElementById("link");
const notice = document.getElementById("notice");
let retry_ms = 500;
let newest = 0; // updates so far, for those who test the page
let socket = null;

function socket_of_this_page() { return socket; }

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function all(attribute, known, fill) {
  for (const [id, value] of Object.entries(known || {})) {
    for (const place of document.querySelectorAll(`[${attribute}]`)) {
      if (place.getAttribute(attribute) === id) fill(place, value);
    }
  }
}

function fill_table(table, {head, rows, states}) {
  const header = element("tr");
  for (const name of head) { const cell = element("th", name); cell.scope = "col"; header.append(cell); }
  const lines = rows.map((row, k) => {
    const line = element("tr", undefined, states[k]);
    for (const value of row) line.append(element("td", String(value)));
    return line;
  });
  table.replaceChildren(header, ...lines);
  const empty = table.closest(".part").querySelector(".empty");
  table.hidden = !rows.length;
  empty.hidden = !!rows.length;
}

function fill_cards(list, cards) {
  list.replaceChildren(...cards.map(([name, value]) => {
    const card = element("div");
    card.append(element("dt", name), element("dd", value));
    return card;
  }));
}

function fill_drawing(place, svg) {
  // Made by the server, with all names escaped; parsed as XML, so what is no drawing stays out.
  const drawn = svg ? new DOMParser().parseFromString(svg, "image/svg+xml").documentElement : null;
  place.replaceChildren(...(drawn && drawn.nodeName === "svg" ? [document.importNode(drawn, true)] : []));
  place.closest(".part").querySelector(".empty").hidden = !!svg;
}

function fill_links(list, links) {
  const known = JSON.stringify(links);
  if (list.dataset.known === known) return; // so that nobody's focus is lost
  list.dataset.known = known;
  list.replaceChildren(...links.map(([text, address]) => {
    const line = element("li");
    const away = element("a", text);
    away.href = address;
    away.target = "_blank";
    away.rel = "noreferrer";
    line.append(away);
    return line;
  }));
}

function documents() { return (window.Bokeh && Bokeh.documents) || []; }

function model(name) {
  for (const doc of documents()) {
    const found = doc.get_model_by_name(name);
    if (found) return found;
  }
  return null;
}

function fill_source(name, columns) {
  const source = model(name);
  if (!source) return;
  const data = {};
  let length = 0;
  for (const [key, values] of Object.entries(columns)) {
    data[key] = values.map((value) => (value === null ? NaN : value));
    length = Math.max(length, values.length);
  }
  source.data = data;
  show_empty(name, length);
}

function show_empty(name, length) {
  for (const place of document.querySelectorAll("[data-plot]")) {
    const id = place.dataset.plot;
    if (name !== id && !(name.startsWith(`${id}-`) && /^\d+$/.test(name.slice(id.length + 1)))) continue;
    place.rows = {...place.rows, [name]: length};
    const any = Object.values(place.rows).some((rows) => rows > 0);
    place.closest(".part").querySelector(".empty").hidden = any;
    place.hidden = !any;
  }
}

// Choices are made anew only when others are offered: a widget that somebody holds must not go away.

const palettes = JSON.parse(document.getElementById("palettes").textContent);
let chosen = {};

function widget({name, label, kind, value, options, maximum}) {
  const id = `choice-${name}`;
  const box = element("div");
  const title = element("label", label);
  title.htmlFor = id;
  const input = element(kind === "select" ? "select" : "input");
  input.id = id;
  if (kind === "select") for (const option of options) input.append(new Option(option, option));
  if (kind === "slider") { input.type = "range"; input.min = 0; input.max = maximum; }
  if (kind === "number") { input.type = "number"; input.step = "any"; }
  input.value = value;
  const shown = kind === "slider" ? element("output", String(value)) : null;
  input.addEventListener(kind === "number" ? "change" : "input", () => {
    if (shown) shown.textContent = input.value;
    chosen = {...chosen, [name]: input.value};
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(chosen));
  });
  box.append(title, input, ...(shown ? [" ", shown] : []));
  return box;
}

function fill_choices(form, choices) {
  const offered = JSON.stringify(choices.map(({value, ...rest}) => rest));
  if (form.dataset.offered === offered) return;
  const held = document.activeElement?.id;
  form.dataset.offered = offered;
  form.replaceChildren(...choices.map(widget));
  if (held) document.getElementById(held)?.focus();
}

// Widgets that ask a run for something. What came of it is told by its receipt, in a table.

function ask_for(run, kind, values) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({do: {run, kind, values}}));
}

function input_of({name, kind, value, options, minimum, maximum, step}, id) {
  const input = element(kind === "select" ? "select" : "input");
  input.id = id;
  input.name = name;
  if (kind === "select") for (const option of options) input.append(new Option(option, option));
  if (kind === "slider" || kind === "number") {
    input.type = kind === "slider" ? "range" : "number";
    input.step = kind === "slider" && step === "any" ? (maximum - minimum) / 1000 : step;
    if (minimum !== null) input.min = minimum;
    if (maximum !== null) input.max = maximum;
  }
  if (kind === "checkbox") input.type = "checkbox";
  put_value(input, value);
  return input;
}

function put_value(input, value) {
  if (input.type === "checkbox") input.checked = String(value) === "true";
  else input.value = Array.isArray(value) ? JSON.stringify(value) : value ?? "";
}

function value_of(input) { return input.type === "checkbox" ? String(input.checked) : input.value; }

function control(one) {
  const form = element("form");
  form.dataset.kind = one.kind;
  form.dataset.name = one.name;
  const inputs = (one.kind === "button" ? one.inputs : [one]).map((each) => {
    const id = `control-${one.run}-${one.name}-${each.name}`;
    const label = element("label", each.label);
    label.htmlFor = id;
    const box = element("div");
    const input = input_of(each, id);
    box.append(label, input);
    if (each.kind === "slider") { // beside it the number itself, to be read and to be typed
      const exact = input_of({...each, kind: "number"}, `${id}-exact`);
      exact.ariaLabel = each.label;
      exact.name = "";
      input.addEventListener("input", () => { exact.value = input.value; });
      exact.addEventListener("input", () => { input.value = exact.value; });
      input.addEventListener("change", () => { if (one.kind !== "button") form.requestSubmit(); });
      box.append(" ", exact);
      input.exact = exact;
    }
    if (each.kind === "checkbox" && one.kind !== "button") input.addEventListener("change", () => form.requestSubmit());
    form.append(box);
    return input;
  });
  const button = element("button", one.kind === "button" ? one.label : "Set");
  form.append(button);
  if (one.about) form.append(element("p", one.about, "about"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (one.ask && !window.confirm(one.ask)) return;
    const values = Object.fromEntries(inputs.map((input) => [input.name, input.exact ? input.exact.value : value_of(input)]));
    ask_for(one.run, one.kind === "button" ? one.name : "set", values);
  });
  if (body.dataset.role !== "operator") for (const each of form.elements) each.disabled = true;
  return form;
}

function fill_controls(place, controls) {
  const offered = JSON.stringify(controls.map(({value, ...rest}) => rest));
  if (place.dataset.offered !== offered) {
    place.dataset.offered = offered;
    place.replaceChildren(...controls.map(control));
  }
  for (const one of controls) { // new values, but not under somebody's hands
    const form = Array.from(place.children).find((each) => each.dataset.name === one.name);
    if (one.kind === "button" || form.contains(document.activeElement)) continue;
    for (const input of form.elements) if (input.tagName !== "BUTTON") put_value(input, one.value);
  }
}

async function unpacked(data) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function fill_image(name, {shape, data, place, labels, low, high, palette}) {
  const source = model(name);
  if (!source) return;
  const steps = await unpacked(data);
  const values = new Float32Array(steps.length);
  const scale = (high - low) / 254;
  for (let k = 0; k < steps.length; k += 1) values[k] = steps[k] === 255 ? NaN : low + scale * steps[k];
  const nd = Bokeh.require("core/util/ndarray").ndarray(values.buffer, {dtype: "float32", shape});
  const colours = model(`${name}-colours`);
  if (colours.low !== low || colours.high !== high) colours.setv({low, high});
  if (palettes[palette] && colours.palette[128] !== palettes[palette][128]) colours.palette = palettes[palette];
  const plot = model(`${name}-plot`);
  plot.below[0].axis_label = labels[0];
  plot.left[0].axis_label = labels[1];
  const [x, y, dw, dh] = place;
  plot.match_aspect = Math.max(dw / dh, dh / dw) <= 4; // a stripe is drawn as high as there is room
  source.data = {image: [nd], x: [x], y: [y], dw: [dw], dh: [dh]};
  show_empty(name, 1);
}

function show_runs(runs) {
  const ended = runs.filter((run) => run.phase === "ended");
  const going = runs.filter((run) => run.live);
  link.className = "on";
  link.textContent = going.length ? "Live" : runs.length > 1 ? "The runs have ended" : "The run has ended";
  const words = runs.map((run) => run.warning).filter(Boolean);
  for (const run of ended) {
    if (body.dataset.wasLive) words.push(`Run ${run.name} has ended: ${run.status}. To see it again: insitu dashboard RUN`);
  }
  if (going.length) body.dataset.wasLive = "yes";
  else if (body.dataset.wasLive) body.dataset.over = "yes";
  say(words.join(" "));
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

// A figure that comes to light with its data keeps the frame of its first layout on the canvas until it is painted again,
// which the next update does; behind the last one nobody does.
let quiet = null;

function paint_when_quiet() {
  clearTimeout(quiet);
  quiet = setTimeout(() => { for (const view of Bokeh.index.roots) view.request_repaint?.(); }, 1200);
}

async function receive(said) {
  if (said.signature !== body.dataset.signature) { location.reload(); return; }
  show_runs(said.runs);
  all("data-text", said.texts, (place, text) => { place.textContent = text; });
  all("data-cards", said.cards, fill_cards);
  all("data-drawing", said.drawings, fill_drawing);
  all("data-links", said.links, fill_links);
  all("data-table", said.tables, fill_table);
  for (const [name, columns] of Object.entries(said.sources)) fill_source(name, columns);
  all("data-choices", said.choices, fill_choices);
  all("data-controls", said.controls, fill_controls);
  for (const part of document.querySelectorAll(".part")) part.hidden = said.hidden.includes(part.id.slice(5));
  for (const [name, image] of Object.entries(said.images)) await fill_image(name, image);
  if (window.Bokeh) paint_when_quiet();
  newest += 1;
  body.dataset.updates = newest;
}

function connect() {
  const address = new URL("feed", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = new URLSearchParams({view: body.dataset.view}).toString();
  socket = new WebSocket(address);
  socket.onopen = () => {
    retry_ms = 500;
    if (Object.keys(chosen).length) socket.send(JSON.stringify(chosen));
  };
  const own = socket;
  socket.onmessage = async (event) => {
    await receive(JSON.parse(event.data));
    if (own.readyState === WebSocket.OPEN) own.send("more"); // the next update comes only then: a slow browser gets fewer, never older ones
  };
  socket.onclose = (event) => {
    if (event.code === 4401) { location.reload(); return; } // the token is not good any more: the gate says so
    link.className = "off";
    if (body.dataset.over) { link.textContent = "The run has ended"; return; }
    link.textContent = "Not connected, trying again";
    setTimeout(connect, retry_ms);
    retry_ms = Math.min(10000, retry_ms * 2);
  };
}

function dress() {
  // Bokeh draws on a canvas, which takes no colours from the page's style; so they are handed on.
  const style = getComputedStyle(body);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const looks = {
    axis_label_text_color: soft, major_label_text_color: soft, axis_line_color: line, major_tick_line_color: line,
    minor_tick_line_color: line, grid_line_color: line, label_text_color: ink, text_color: ink, outline_line_color: line,
    background_fill_color: "rgba(0,0,0,0)",
  };
  const kinds = /Axis$|Grid$|^Legend$|^Title$|^ColorBar$|^Figure$/;
  for (const doc of documents()) {
    for (const one of doc._all_models.values()) {
      if (!kinds.test(one.type.split(".").pop())) continue;
      for (const [name, value] of Object.entries(looks)) if (name in one.properties) one[name] = value;
    }
  }
}

window.addEventListener("load", () => {
  const started = () => documents().length >= (document.querySelector("[data-plot]") ? 1 : 0);
  const begin = () => {
    if (!started()) { setTimeout(begin, 20); return; }
    dress();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
    connect();
  };
  begin();
});

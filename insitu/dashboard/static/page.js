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

function fill_flow(list, boxes) {
  const made = [];
  for (const [title, text, edge] of boxes) {
    const box = element("li");
    box.append(element("b", title), element("span", text));
    made.push(box);
    if (edge) made.push(element("li", `\u2192 ${edge} \u2192`, "edge"));
  }
  list.replaceChildren(...made);
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
  say(words.join(" "));
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function receive(said) {
  if (said.signature !== body.dataset.signature) { location.reload(); return; }
  show_runs(said.runs);
  all("data-text", said.texts, (place, text) => { place.textContent = text; });
  all("data-cards", said.cards, fill_cards);
  all("data-flow", said.flows, fill_flow);
  all("data-table", said.tables, fill_table);
  for (const [name, columns] of Object.entries(said.sources)) fill_source(name, columns);
  newest += 1;
  body.dataset.updates = newest;
}

function connect() {
  const address = new URL("feed", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = new URLSearchParams({view: body.dataset.view}).toString();
  socket = new WebSocket(address);
  socket.onopen = () => { retry_ms = 500; };
  socket.onmessage = (event) => {
    receive(JSON.parse(event.data));
    socket.send("more"); // the next update comes only then: a slow browser gets fewer, never older ones
  };
  socket.onclose = (event) => {
    if (event.code === 4401) { location.reload(); return; } // the token is not good any more: the gate says so
    link.className = "off";
    link.textContent = body.dataset.over ? "The run has ended" : "Not connected, trying again";
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

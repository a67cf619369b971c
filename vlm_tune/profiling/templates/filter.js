"use strict";

/* The photos, and which of them are shown in which order. */

const data = JSON.parse(document.getElementById("data").textContent);
const { photos, labels, splits, tags, copies } = data;
const total = photos.id.length;
const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const GRAVE = 3; // The first tags, unreadable, conflict and leak, are errors; the others are hints.

// For each photo: its tags, its copies, and the text that a search looks through.
const marks = Array.from({ length: total }, () => []);
tags.forEach(([, , members], tag) => members.forEach((photo) => marks[photo].push(tag)));
const group = new Array(total).fill(null);
copies.forEach((members, which) => members.forEach((photo) => (group[photo] = which)));
const said = Array.from({ length: total }, (_, photo) => className(photo));
const searched = said.map((words, photo) => {
  const more = photos.more[photo].flat().join(" ");
  return `${photos.id[photo]} ${words} ${splitName(photo)} ${photos.group[photo] ?? ""} ${data.reasons[photo] ?? ""} ${more}`.toLowerCase();
});

const state = { label: -1, split: -1, tag: -1, text: "", sort: "", down: false };
let shown = [];

function className(photo) { return photos.label[photo].map((label) => labels[label]).join(", "); }
function splitName(photo) { return splits[photos.split[photo]] ?? ""; }
function thumbnail(photo) {
  const name = photos.thumbnail[photo];
  return name && `${data.folder}/${name.slice(0, 2)}/${name}.jpg`;
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function refresh() {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const counts = { label: new Int32Array(labels.length), split: new Int32Array(splits.length), tag: new Int32Array(tags.length) };
  shown = [];
  for (let photo = 0; photo < total; photo += 1) {
    if (!words.every((word) => searched[photo].includes(word))) continue;
    const label = state.label < 0 || photos.label[photo].includes(state.label);
    const split = state.split < 0 || photos.split[photo] === state.split;
    const tag = state.tag < 0 || marks[photo].includes(state.tag);
    // A choice shows how many photos it would leave, all other filters kept.
    if (split && tag) for (const one of photos.label[photo]) counts.label[one] += 1;
    if (label && tag && photos.split[photo] >= 0) counts.split[photos.split[photo]] += 1;
    if (label && split) for (const one of marks[photo]) counts.tag[one] += 1;
    if (label && split && tag) shown.push(photo);
  }
  order();
  tell(counts);
  layout();
}

function order() {
  const values = state.sort === "class" ? said : state.sort === "copies" ? group : photos[state.sort];
  if (values) {
    const sign = state.down ? -1 : 1;
    const text = typeof values.find((value) => value !== null) === "string";
    const compare = text ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
    // What has no value comes last in either direction.
    shown.sort((a, b) => {
      const [x, y] = [values[a] ?? null, values[b] ?? null];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * compare(x, y) || a - b;
    });
  } else if (state.down) shown.reverse();
}

function tell(counts) {
  at("status").textContent = shown.length === total ? `${number(total)} photos` : `${number(shown.length)} of ${number(total)} photos`;
  at("empty").hidden = shown.length > 0;
  at("reset").hidden = state.label < 0 && state.split < 0 && state.tag < 0 && !state.text;
  for (const option of at("label").options) {
    if (option.value !== "-1") option.textContent = `${labels[option.value]} (${number(counts.label[option.value])})`;
  }
  for (const kind of ["split", "tag"]) {
    for (const button of at(`${kind}s`).children) {
      const left = counts[kind][button.value];
      button.lastChild.textContent = number(left);
      button.classList.toggle("none", left === 0);
      button.setAttribute("aria-pressed", String(state[kind] === Number(button.value)));
    }
  }
  at("label").value = String(state.label);
  at("sort").value = state.sort;
  at("down").setAttribute("aria-pressed", String(state.down));
  at("down").textContent = state.down ? "↓" : "↑";
  if (at("text").value !== state.text) at("text").value = state.text;
  remember();
}

// The filters are in the address, so that a view can be kept as a bookmark.
function remember() {
  const kept = new URLSearchParams();
  if (state.label >= 0) kept.set("class", labels[state.label]);
  if (state.split >= 0) kept.set("split", splits[state.split]);
  if (state.tag >= 0) kept.set("tag", tags[state.tag][0]);
  if (state.text) kept.set("text", state.text);
  if (state.sort) kept.set("sort", state.sort);
  if (state.down) kept.set("down", "1");
  history.replaceState(null, "", `#${kept}`);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  state.label = labels.indexOf(kept.get("class"));
  state.split = splits.indexOf(kept.get("split"));
  state.tag = tags.findIndex(([name]) => name === kept.get("tag"));
  state.text = kept.get("text") ?? "";
  state.sort = Array.from(at("sort").options, (option) => option.value).includes(kept.get("sort")) ? kept.get("sort") : "";
  state.down = kept.get("down") === "1";
}

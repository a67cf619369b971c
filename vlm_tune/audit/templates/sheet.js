"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("photos");
const cards = [];
let saved = true;
let current = -1;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// One class is chosen from a list; where several may apply, each has a box, and no box means none of them.
function chooser(photo, number) {
  const field = make("fieldset", undefined, { class: "new" });
  field.append(make("legend", "It shows"));
  if (!data.several) {
    const select = make("select", undefined, { "aria-label": `What photo ${number} shows` });
    select.append(make("option", "choose a class", { value: "" }));
    data.classes.forEach((name, place) => {
      if (name !== photo.label) select.append(make("option", name, { value: place }));
    });
    field.append(select);
    return [field, () => (select.value === "" ? "" : data.classes[Number(select.value)])];
  }
  const boxes = data.classes.map((name) => {
    const label = make("label");
    const box = make("input", undefined, { type: "checkbox" });
    box.checked = photo.label.split(", ").includes(name);
    label.append(box, make("span", name));
    field.append(label);
    return box;
  });
  const chosen = () => data.classes.filter((_, place) => boxes[place].checked).join(", ") || "none";
  return [field, () => (chosen() === photo.label ? "" : chosen())];
}

function witnesses(photo) {
  const details = make("details");
  details.append(make("summary", "What the systems said, and the name of the file"));
  const said = make("ul");
  for (const [who, answer, probability] of photo.said) {
    const line = make("li", `${answer} `);
    const sure = typeof probability === "number" ? `, ${Math.round(100 * probability)} %` : "";
    line.append(make("span", `${who}${sure}`));
    said.append(line);
  }
  if (photo.near.length) {
    const line = make("li", photo.near.map(([label, count]) => `${count} ${label}`).join(", ") + " ");
    line.append(make("span", "labels of the most similar photos"));
    said.append(line);
  }
  for (const label of photo.copies) {
    const line = make("li", `${label} `);
    line.append(make("span", "label of a copy of this photo"));
    said.append(line);
  }
  if (!said.children.length) said.append(make("li", "nobody was asked"));
  // A file's name may tell its class, so that it waits as well.
  details.append(said, make("p", photo.id, { class: "id" }));
  return details;
}

function card(photo, place) {
  const number = place + 1;
  const item = make("li", undefined, { class: "card", "data-place": place, tabindex: -1, "aria-label": `Photo ${number}` });
  if (photo.photo) item.append(make("img", undefined, { src: photo.photo, alt: `Photo ${number}` }));
  else item.append(make("p", "The photo is not at hand.", { class: "missing" }));
  const side = make("div", undefined, { class: "rule" });
  const label = make("p", photo.label, { class: "label" });
  const described = data.several ? undefined : data.descriptions[photo.label];
  label.prepend(make("small", `Photo ${number} of ${data.photos.length} is labelled`));
  if (described) label.append(make("small", described));
  const choices = make("div", undefined, { class: "choices", role: "group", "aria-label": `Ruling on photo ${number}` });
  const buttons = ["keep", "relabel", "unsure"].map((ruling) =>
    make("button", ruling, { type: "button", "data-ruling": ruling, "aria-pressed": "false" }));
  choices.append(...buttons);
  const [field, chosen] = chooser(photo, number);
  const wanting = make("p", "Say what it shows, or the ruling does not count.", { class: "wanting" });
  const note = make("input", undefined, { class: "note", placeholder: "Note", "aria-label": `Note on photo ${number}` });
  side.append(label, choices, field, wanting, note, witnesses(photo));
  item.append(side);
  const known = { photo, item, buttons, field, wanting, note, ruling: "", chosen };
  choices.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) rule(known, known.ruling === button.dataset.ruling ? "" : button.dataset.ruling);
  });
  item.addEventListener("change", changed);
  item.addEventListener("focusin", () => turn(place, false));
  return known;
}

function rule(known, ruling) {
  known.ruling = ruling;
  changed();
  if (ruling === "relabel") known.field.querySelector("select, input").focus();
}

function counts(known) {
  return known.ruling === "relabel" ? known.chosen() !== "" : known.ruling !== "";
}

function changed() {
  saved = false;
  draw();
}

function draw() {
  for (const known of cards) {
    for (const button of known.buttons) button.setAttribute("aria-pressed", String(button.dataset.ruling === known.ruling));
    known.field.hidden = known.ruling !== "relabel";
    known.wanting.hidden = known.ruling !== "relabel" || counts(known);
  }
  const done = cards.filter(counts).length;
  document.getElementById("status").textContent = `${done} of ${cards.length} ruled`;
  document.getElementById("done").style.transform = `scaleX(${cards.length ? done / cards.length : 0})`;
}

function turn(place, move = true) {
  if (!cards[place]) return;
  if (cards[current]) cards[current].item.classList.remove("current");
  current = place;
  cards[place].item.classList.add("current");
  if (move) {
    cards[place].item.focus({ preventScroll: true });
    cards[place].item.scrollIntoView({ block: "start" });
  }
}

function rows() {
  return cards.map((known) => {
    const counted = counts(known);
    return {
      example_id: known.photo.id,
      label: known.photo.label,
      ruling: counted ? known.ruling : "",
      new_label: counted && known.ruling === "relabel" ? known.chosen() : "",
      note: known.note.value,
      sheet: data.sheet,
    };
  });
}

// A spreadsheet takes some first characters for a formula; a quote before them keeps it from that.
function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function asCsv() {
  const lines = rows().map((row) => data.columns.map((name) => cell(row[name])).join(","));
  return [data.columns.join(","), ...lines, ""].join("\n");
}

function asJson() {
  return JSON.stringify({ kind: "label rulings", version: 1, rulings: rows() }, null, 2) + "\n";
}

function save(name, text, type) {
  const link = make("a", undefined, { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  saved = true;
}

cards.push(...data.photos.map(card));
list.append(...cards.map((known) => known.item));
draw();
document.getElementById("csv").addEventListener("click", () => save("rulings.csv", asCsv(), "text/csv"));
document.getElementById("json").addEventListener("click", () => save("rulings.json", asJson(), "application/json"));
document.getElementById("next").addEventListener("click", () => turn(cards.findIndex((known) => !counts(known))));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
  const ruling = { k: "keep", r: "relabel", u: "unsure" }[event.key.toLowerCase()];
  if (ruling && cards[current]) {
    event.preventDefault();
    rule(cards[current], ruling);
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    turn(Math.max(0, Math.min(cards.length - 1, current + (event.key === "ArrowDown" ? 1 : -1))));
  }
});

addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});

/* One photo, large */

const viewer = at("viewer");

function open(place) {
  active = place;
  const photo = shown[place];
  at("place").textContent = `${number(place + 1)} of ${number(shown.length)}`;
  at("back").disabled = place === 0;
  at("next").disabled = place === shown.length - 1;
  at("title").textContent = said[photo];
  at("name").textContent = photos.id[photo];
  at("why").replaceChildren(...marks[photo].map((tag) => {
    const line = element("li", tag < GRAVE ? "grave" : "");
    line.append(element("b", "", tags[tag][0]), ` – ${tags[tag][1]}`);
    return line;
  }));
  at("facts").replaceChildren(...facts(photo).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  enlarge(photo);
  showCopies(photo);
  if (!viewer.open) {
    viewer.showModal();
    viewer.focus();
  }
}

function enlarge(photo) {
  const large = at("large");
  const small = thumbnail(photo);
  large.hidden = !small;
  at("broken").hidden = Boolean(small);
  at("broken").textContent = small ? "" : `Does not decode: ${data.reasons[photo] ?? "the file is missing"}`;
  large.onerror = null;
  large.removeAttribute("src");
  if (!small) return;
  large.alt = `${said[photo]}, ${photos.id[photo]}`;
  large.className = Math.max(photos.width[photo], photos.height[photo]) <= 64 ? "tiny" : "";
  // The original may have moved since; its thumbnail has not.
  large.onerror = () => { large.onerror = null; large.src = small; };
  large.src = photos.original[photo] ?? small;
}

function facts(photo) {
  const rows = [];
  if (splitName(photo)) rows.push(["split", splitName(photo)]);
  if (photos.group[photo]) rows.push(["group", photos.group[photo]]);
  for (const [name, words] of data.quantities) {
    const value = photos[name][photo];
    if (value === null) continue;
    rows.push([words, quantity(name, value)]);
  }
  return rows.concat(photos.more[photo]);
}

function quantity(name, value) {
  if (name === "num_bytes") return value < 1e6 ? `${(value / 1e3).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`;
  return typeof value === "number" ? number(value) : value;
}

function showCopies(photo) {
  const others = group[photo] === null ? [] : copies[group[photo]].filter((other) => other !== photo);
  at("copies").hidden = others.length === 0;
  at("copies").firstElementChild.textContent = others.length === 1 ? "One copy" : `${number(others.length)} copies`;
  at("copies").lastElementChild.replaceChildren(...others.slice(0, 12).map((other) => {
    const differs = said[other] !== said[photo];
    const button = element("button", differs ? "grave" : "");
    button.type = "button";
    button.title = photos.id[other];
    const image = picture(other);
    if (image) button.append(image);
    button.append(element("span", "", differs ? said[other] : splitName(other) || said[other]));
    button.addEventListener("click", () => visit(other));
    return button;
  }));
}

// A copy that the filters hide is shown all the same: without them.
function visit(photo) {
  if (!shown.includes(photo)) {
    Object.assign(state, { label: -1, split: -1, tag: -1, text: "" });
    refresh();
  }
  open(shown.indexOf(photo));
}

function step(by) {
  const place = active + by;
  if (place >= 0 && place < shown.length) open(place);
}

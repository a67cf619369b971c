/* The grid: only the cards in sight, and a row beyond on either side, are in the document. */

const grid = at("grid");
const GAP = 12;
let columns = 1, width = 1, height = 1, active = 0;
// Cards are as high as the photo in the middle needs, within reason, so that most photos fill theirs.
const shapes = photos.height.map((value, photo) => value / photos.width[photo]).filter(Number.isFinite).sort((a, b) => a - b);
const shape = Math.min(1.2, Math.max(0.66, shapes[shapes.length >> 1] ?? 0.75));
let cells = new Map();

function layout() {
  const size = Number(at("size").value);
  const room = grid.clientWidth;
  // Even a phone shows two side by side, to compare.
  columns = Math.max(room > 240 ? 2 : 1, Math.floor((room + GAP) / (size + GAP)));
  width = (room - GAP * (columns - 1)) / columns;
  const narrow = width < 136;
  grid.classList.toggle("narrow", narrow);
  height = Math.round(width * shape) + (narrow ? 30 : 48);
  grid.style.height = `${Math.max(0, Math.ceil(shown.length / columns) * (height + GAP) - GAP)}px`;
  active = Math.min(active, Math.max(0, shown.length - 1));
  for (const cell of cells.values()) cell.remove();
  cells = new Map();
  draw();
}

function draw() {
  const top = -grid.getBoundingClientRect().top;
  const step = height + GAP;
  const first = Math.max(0, Math.floor(top / step) - 1) * columns;
  const last = Math.min(shown.length, (Math.ceil((top + innerHeight) / step) + 1) * columns);
  for (const [place, cell] of cells) {
    if (place < first || place >= last) {
      cell.remove();
      cells.delete(place);
    }
  }
  for (let place = first; place < last; place += 1) {
    if (cells.has(place)) continue;
    const cell = makeCell(place);
    cells.set(place, cell);
    grid.append(cell);
  }
}

function makeCell(place) {
  const photo = shown[place];
  const cell = element("div", "cell");
  cell.setAttribute("role", "listitem");
  cell.setAttribute("aria-setsize", shown.length);
  cell.setAttribute("aria-posinset", place + 1);
  cell.style.width = `${width}px`;
  cell.style.height = `${height}px`;
  cell.style.transform = `translate(${(place % columns) * (width + GAP)}px, ${Math.floor(place / columns) * (height + GAP)}px)`;
  const card = element("button", "card");
  card.type = "button";
  card.tabIndex = place === active ? 0 : -1;
  card.dataset.place = place;
  const frame = element("span", "photo");
  frame.append(picture(photo) ?? element("span", "lost", "does not decode"));
  const hints = element("span", "marks");
  for (const tag of marks[photo]) hints.append(element("span", tag < GRAVE ? "mark grave" : "mark", tags[tag][0]));
  frame.append(hints);
  const words = element("span", "words");
  const head = element("span", "head");
  head.append(element("span", "class", said[photo]));
  // What the photos are sorted by is worth seeing.
  const sorted = data.quantities.some(([name]) => name === state.sort) ? photos[state.sort][photo] : null;
  if (sorted !== null) head.append(element("span", "value", quantity(state.sort, sorted)));
  // The end of a long name says more than its folders: it is cut at the front.
  const name = element("span", "id");
  name.append(element("bdi", "", photos.id[photo]));
  words.append(head, name);
  card.append(frame, words);
  card.title = photos.id[photo];
  cell.append(card);
  return cell;
}

function picture(photo) {
  const source = thumbnail(photo);
  if (!source) return null;
  const image = element("img", Math.max(photos.width[photo], photos.height[photo]) <= 64 ? "tiny" : "");
  image.alt = "";
  image.decoding = "async";
  image.src = source;
  return image;
}

function focusOn(place) {
  active = Math.max(0, Math.min(shown.length - 1, place));
  const top = grid.getBoundingClientRect().top + Math.floor(active / columns) * (height + GAP);
  const bar = getComputedStyle(document.querySelector("header")).position === "sticky" ? document.querySelector("header").offsetHeight : 0;
  if (top < bar + GAP) scrollBy(0, top - bar - GAP);
  else if (top + height + GAP > innerHeight) scrollBy(0, top + height + GAP - innerHeight);
  draw();
  for (const [place, cell] of cells) cell.firstChild.tabIndex = place === active ? 0 : -1;
  cells.get(active)?.firstChild.focus({ preventScroll: true });
}

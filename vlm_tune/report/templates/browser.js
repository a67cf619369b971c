/* Every example: filtered, sorted, and only the cards in sight are in the document. */

const root = document.querySelector(".browser");
if (root) browse(root, JSON.parse(document.getElementById("examples-data").textContent));

function element(kind, className, text) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function browse(root, data) {
  const GAP = 12;
  const total = data.id.length;
  const ui = (name) => root.querySelector(`[data-ui="${name}"]`);
  const [view, grid, viewer] = [ui("window"), ui("grid"), ui("viewer")];
  const marks = Array.from({ length: total }, () => []);
  data.tags.forEach(([, , members], tag) => members.forEach((one) => marks[one].push(tag)));
  const searched = data.id.map((id, one) => {
    const said = data.said.map((of) => (of[one] === null ? "" : data.words[of[one]]));
    return [id, data.words[data.truth[one]], ...said].join(" ").toLowerCase();
  });
  const fresh = { text: "", truth: -1, tag: -1, who: "", cell: null };
  const state = { ...fresh, sort: "", down: false };
  let shown = [];
  let [columns, width, height, active] = [1, 1, 1, 0];
  let cells = new Map();

  function choose(change) {
    Object.assign(state, change);
    active = 0;
    view.scrollTop = 0;
    refresh();
  }

  function refresh() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const [system, right] = state.who ? state.who.split(":").map(Number) : [-1, 0];
    const counts = new Int32Array(data.tags.length);
    shown = [];
    for (let one = 0; one < total; one += 1) {
      if (state.truth >= 0 && data.truth[one] !== state.truth) continue;
      if (system >= 0 && data.right[system][one] !== right) continue;
      if (state.cell && !inCell(one, state.cell)) continue;
      if (!words.every((word) => searched[one].includes(word))) continue;
      for (const tag of marks[one]) counts[tag] += 1;
      if (state.tag < 0 || marks[one].includes(state.tag)) shown.push(one);
    }
    order();
    tell(counts);
    layout();
  }

  function inCell(one, { system, truth, answer }) {
    if (data.truth[one] !== truth || data.right[system][one] === null || data.right[system][one] < 0) return false;
    const said = data.said[system][one];
    return answer < 0 ? said >= data.numClasses : said === answer;
  }

  function order() {
    const collator = new Intl.Collator("en", { numeric: true });
    const values = state.sort === "id" ? data.id : state.sort === "truth" ? data.truth : data.sure[state.sort];
    if (!values && state.down) shown.reverse();
    if (!values) return;
    const sign = state.down ? -1 : 1;
    const compare = state.sort === "id" ? collator.compare : (a, b) => a - b;
    // What has no value comes last in either direction.
    shown.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * compare(x, y) || a - b;
    });
  }

  function tell(counts) {
    ui("status").textContent = shown.length === total ? `${total.toLocaleString("en")} photos` : `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} photos`;
    ui("empty").hidden = shown.length > 0;
    ui("reset").hidden = Object.keys(fresh).every((name) => state[name] === fresh[name]);
    ui("cell").hidden = !state.cell;
    ui("cell").textContent = state.cell ? `${state.cell.words} ✕` : "";
    for (const name of ["text", "truth", "who", "sort"]) {
      if (ui(name).value !== String(state[name])) ui(name).value = state[name];
    }
    ui("down").setAttribute("aria-pressed", String(state.down));
    ui("down").textContent = state.down ? "↓" : "↑";
    for (const button of ui("tags").children) {
      button.lastChild.textContent = counts[button.value].toLocaleString("en");
      button.setAttribute("aria-pressed", String(state.tag === Number(button.value)));
    }
  }

  function layout() {
    const room = grid.clientWidth;
    const least = room < 520 ? 260 : 232;
    columns = Math.max(1, Math.floor((room + GAP) / (least + GAP)));
    width = (room - GAP * (columns - 1)) / columns;
    height = Math.round(Math.min(220, width * 0.68)) + 58 + 22 * data.systems.length;
    grid.style.height = `${Math.max(0, Math.ceil(shown.length / columns) * (height + GAP) - GAP)}px`;
    active = Math.min(active, Math.max(0, shown.length - 1));
    for (const cell of cells.values()) cell.remove();
    cells = new Map();
    draw();
  }

  function draw() {
    const step = height + GAP;
    const first = Math.max(0, Math.floor(view.scrollTop / step) - 1) * columns;
    const last = Math.min(shown.length, (Math.ceil((view.scrollTop + view.clientHeight) / step) + 1) * columns);
    for (const [place, cell] of cells) {
      if (place >= first && place < last) continue;
      cell.remove();
      cells.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      if (cells.has(place)) continue;
      cells.set(place, makeCell(place));
      grid.append(cells.get(place));
    }
  }

  function makeCell(place) {
    const one = shown[place];
    const cell = element("div", "cell");
    cell.setAttribute("role", "listitem");
    cell.setAttribute("aria-setsize", shown.length);
    cell.setAttribute("aria-posinset", place + 1);
    cell.style.width = `${width}px`;
    cell.style.height = `${height}px`;
    cell.style.transform = `translate(${(place % columns) * (width + GAP)}px, ${Math.floor(place / columns) * (height + GAP)}px)`;
    const card = element("button", "example");
    card.type = "button";
    card.title = data.id[one];
    card.tabIndex = place === active ? 0 : -1;
    card.dataset.place = place;
    const frame = element("span", "frame");
    frame.append(picture(one, ""));
    const name = element("span", "id");
    name.append(element("bdi", "", data.id[one]));
    card.append(frame, element("span", "truth", data.words[data.truth[one]]), ...answers(one), name);
    cell.append(card);
    return cell;
  }

  function picture(one, words) {
    const photo = data.photo[one];
    if (photo === null) return element("span", "lost", "photo not kept");
    if (typeof photo === "string") {
      const image = element("img");
      image.alt = words;
      image.decoding = "async";
      image.src = `${data.folder}/${photo}`;
      return image;
    }
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    drawing.setAttribute("viewBox", `0 0 ${photo[1]} ${photo[2]}`);
    if (words) drawing.setAttribute("aria-label", words);
    drawing.setAttribute(words ? "role" : "aria-hidden", words ? "img" : "true");
    use.setAttribute("href", `#${photo[0]}`);
    drawing.append(use);
    return drawing;
  }

  function answers(one) {
    return data.systems.map(([name, number], system) => {
      const right = data.right[system][one];
      const line = element("span", `said ${["missing-answer", "wrong", "right"][(right ?? -1) + 1]}`);
      const who = element("span", `who c${number}`);
      who.append(element("bdi", "", name));
      who.title = name;
      const mark = element("span", "mark", ["–", "✗", "✓"][(right ?? -1) + 1]);
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", ["no answer", "wrong", "right"][(right ?? -1) + 1]);
      const words = element("span", "words");
      words.append(mark, ` ${right === null ? "not asked" : data.words[data.said[system][one]]}`);
      const sure = data.sure[system][one];
      if (sure !== null) words.append(" ", element("span", "p", `${Math.round(100 * sure)} %`));
      line.append(who, words);
      return line;
    });
  }

  function focusOn(place) {
    active = Math.max(0, Math.min(shown.length - 1, place));
    const top = Math.floor(active / columns) * (height + GAP);
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + height > view.scrollTop + view.clientHeight) view.scrollTop = top + height - view.clientHeight;
    draw();
    for (const [at, cell] of cells) cell.firstChild.tabIndex = at === active ? 0 : -1;
    cells.get(active)?.firstChild.focus({ preventScroll: true });
  }

  function open(place) {
    if (place < 0 || place >= shown.length) return;
    active = place;
    const one = shown[place];
    const truth = data.words[data.truth[one]];
    ui("place").textContent = `${(place + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
    ui("back").disabled = place === 0;
    ui("next").disabled = place === shown.length - 1;
    ui("large").replaceChildren(picture(one, `Photo ${data.id[one]}, a ${truth}`));
    ui("title").textContent = truth;
    ui("name").textContent = data.id[one];
    ui("answers").replaceChildren(...answers(one));
    ui("why").replaceChildren(...marks[one].map((tag) => element("li", "", data.tags[tag][1])));
    if (!viewer.open) viewer.showModal();
  }

  function fill() {
    const truths = [...new Set(data.truth)].sort((a, b) => a - b);
    ui("truth").append(new Option("All classes", "-1"), ...truths.map((truth) => new Option(data.words[truth], truth)));
    ui("who").append(new Option("Right or wrong", ""));
    data.systems.forEach(([name], system) => ui("who").append(new Option(`${name} right`, `${system}:1`), new Option(`${name} wrong`, `${system}:0`)));
    const sure = data.systems.flatMap(([name], system) => (data.sure[system].some((value) => value !== null) ? [new Option(`how sure ${name} is`, system)] : []));
    ui("sort").append(new Option("as asked", ""), new Option("name", "id"), new Option("class", "truth"), ...sure);
    data.tags.forEach(([name, why], tag) => {
      const button = element("button", "", `${name} `);
      button.type = "button";
      button.value = tag;
      button.title = why;
      button.append(element("b"));
      button.addEventListener("click", () => choose({ tag: state.tag === tag ? -1 : tag }));
      ui("tags").append(button);
    });
  }

  ui("text").addEventListener("input", (event) => choose({ text: event.target.value }));
  ui("truth").addEventListener("change", (event) => choose({ truth: Number(event.target.value) }));
  ui("who").addEventListener("change", (event) => choose({ who: event.target.value }));
  ui("sort").addEventListener("change", (event) => choose({ sort: event.target.value }));
  ui("down").addEventListener("click", () => choose({ down: !state.down }));
  ui("reset").addEventListener("click", () => choose(fresh));
  ui("cell").addEventListener("click", () => choose({ cell: null }));
  ui("back").addEventListener("click", () => open(active - 1));
  ui("next").addEventListener("click", () => open(active + 1));
  ui("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => focusOn(active));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") open(active + 1);
    else if (event.key === "ArrowLeft") open(active - 1);
  });
  grid.addEventListener("click", (event) => {
    const card = event.target.closest(".example");
    if (card) open(Number(card.dataset.place));
  });
  grid.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(view.clientHeight / (height + GAP))) * columns;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -total, End: total };
    if (!(event.key in moves)) return;
    event.preventDefault();
    focusOn(active + moves[event.key]);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || viewer.open || event.target.matches("input, select")) return;
    event.preventDefault();
    ui("text").focus();
  });
  for (const link of document.querySelectorAll("a[data-system]")) {
    link.addEventListener("click", () => {
      const [system, truth, answer] = ["system", "truth", "answer"].map((name) => Number(link.dataset[name]));
      choose({ ...fresh, cell: { system, truth, answer, words: link.dataset.words } });
    });
  }
  view.addEventListener("scroll", draw, { passive: true });
  let resized = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(layout); });

  fill();
  refresh();
}

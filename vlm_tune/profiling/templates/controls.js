/* Controls */

function choose(change) {
  Object.assign(state, change);
  active = 0;
  scrollTo(0, 0);
  refresh();
}

function fill() {
  at("label").append(new Option("All classes", "-1"), ...labels.map((label, place) => new Option(label, place)));
  const names = [["", "as read"], ["id", "name"], ["class", "class"], ...data.quantities];
  if (copies.length) names.splice(3, 0, ["copies", "copies together"]);
  at("sort").append(...names.map(([name, words]) => new Option(words, name)));
  const pill = (kind, place, words, why) => {
    const button = element("button", kind === "tag" && place < GRAVE ? "grave" : "", words);
    button.type = "button";
    button.value = place;
    if (why) button.title = why;
    button.append(element("b"));
    button.addEventListener("click", () => choose({ [kind]: state[kind] === place ? -1 : place }));
    at(`${kind}s`).append(button);
  };
  splits.forEach((name, place) => pill("split", place, name));
  tags.forEach(([name, why, members], place) => members.length && pill("tag", place, name, why));
}

at("text").addEventListener("input", (event) => choose({ text: event.target.value }));
at("label").addEventListener("change", (event) => choose({ label: Number(event.target.value) }));
at("sort").addEventListener("change", (event) => choose({ sort: event.target.value }));
at("down").addEventListener("click", () => choose({ down: !state.down }));
at("reset").addEventListener("click", () => choose({ label: -1, split: -1, tag: -1, text: "" }));
at("size").addEventListener("input", layout);
at("back").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("close", () => focusOn(active));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
});
grid.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card) open(Number(card.dataset.place));
});
grid.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(innerHeight / (height + GAP)) - 1) * columns;
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -total, End: total };
  if (!(event.key in moves)) return;
  event.preventDefault();
  focusOn(active + moves[event.key]);
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || viewer.open || event.target.matches("input, select")) return;
  event.preventDefault();
  at("text").focus();
});
addEventListener("scroll", draw, { passive: true });
let resized = 0;
addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(layout); });
addEventListener("hashchange", () => { recall(); refresh(); });

fill();
recall();
refresh();

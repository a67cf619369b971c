"use strict";
document.documentElement.classList.add("js");

function press(group, pressed) {
  for (const button of group.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button === pressed));
  }
}

for (const group of document.querySelectorAll("[data-cards]")) {
  const list = document.getElementById(group.dataset.cards);
  const empty = list.parentElement.querySelector(".empty");
  group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const wanted = button.dataset.show.split(" ");
    let shown = 0;
    for (const card of list.children) {
      card.hidden = !card.dataset.tag.split(" ").some((tag) => wanted.includes(tag));
      shown += card.hidden ? 0 : 1;
    }
    empty.hidden = shown > 0;
    press(group, button);
  });
}

for (const list of document.querySelectorAll(".pairs")) {
  list.addEventListener("click", (event) => {
    const button = event.target.closest(".lay");
    if (!button) return;
    const laid = button.closest("li").classList.toggle("blinking");
    button.setAttribute("aria-pressed", String(laid));
  });
}

const answers = document.querySelector("[data-answers].filters");
if (answers) {
  const rows = Array.from(document.querySelectorAll("table.answers tbody tr"), (element) => ({
    element,
    truth: element.dataset.truth,
    said: new Map(element.dataset.answers.trim().split(" ").map((answer) => answer.split(":"))),
  }));
  const status = answers.querySelector(".status");
  const keep = (test, words) => {
    let shown = 0;
    for (const row of rows) {
      row.element.hidden = !test(row);
      shown += row.element.hidden ? 0 : 1;
    }
    status.textContent = words ? `${words}: ${shown} of ${rows.length} shown` : "";
  };
  const tests = {
    all: () => true,
    differ: (row) => new Set(row.said.values()).size > 1,
    wrong: (row) => Array.from(row.said.values()).some((answer) => answer !== row.truth),
  };
  answers.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    press(answers, button);
    keep(tests[button.dataset.rows], button.dataset.rows === "all" ? "" : button.textContent.trim());
  });
  for (const cell of document.querySelectorAll("a[data-system]")) {
    cell.addEventListener("click", () => {
      answers.closest("details").open = true;
      const { system, truth, answer } = cell.dataset;
      press(answers, null);
      keep((row) => row.truth === truth && row.said.get(system) === answer, cell.getAttribute("aria-label").split(":")[0]);
    });
  }
}

// Paper cannot be unfolded: the disagreements go on it, every single answer does not.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll(".duel details")) folded.open = true;
});

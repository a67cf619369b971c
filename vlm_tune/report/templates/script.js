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

// Paper cannot be unfolded: the disagreements go on it, every single example does not.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll(".duel details")) folded.open = true;
});

// The views: a small screen shows one at a time, a large one all of them.

const buttons = document.querySelectorAll("[data-show]");

export function start() {
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.show));
}

export function show(name) {
  document.body.dataset.view = name;
  for (const button of buttons) button.ariaCurrent = button.dataset.show === name ? "true" : null;
}

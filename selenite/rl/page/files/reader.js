// Attempts side by side: three columns, each at a step that its slider chooses.
"use strict";

const filters = $("filters");
const columns = ["A", "B", "C"].map((name, i) => makeColumn(name, i / 2));
const ORDERS = {
  highest: (a, b) => b.reward - a.reward,
  lowest: (a, b) => a.reward - b.reward,
  longest: (a, b) => b.num_tokens - a.num_tokens,
};
let chosen = new Map(); // step to attempts, in the order of training

// `share` of the steps lies before the column's own at first.
function makeColumn(name, share) {
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": `Step of column ${name}` });
  const step = element("output");
  const back = element("button", { type: "button", "aria-label": `Previous attempt of column ${name}` }, "‹");
  const on = element("button", { type: "button", "aria-label": `Next attempt of column ${name}` }, "›");
  const place = element("output");
  const body = element("div", { class: "attempt" });
  const node = element("section", { class: "column", "aria-label": `Column ${name}` },
    element("div", { class: "bar" }, element("b", {}, name), step, slider),
    element("div", { class: "bar" }, back, place, on), body);
  const column = { node, slider, step, back, on, place, body, share, at: null, number: 0 };
  slider.addEventListener("input", () => {
    Object.assign(column, { at: [...chosen.keys()][slider.value], number: 0 });
    show(column);
  });
  back.addEventListener("click", () => turn(column, -1));
  on.addEventListener("click", () => turn(column, 1));
  return column;
}

function turn(column, by) {
  column.number += by;
  show(column);
  const button = by < 0 ? column.back : column.on;
  if (button.disabled) (by < 0 ? column.on : column.back).focus(); // a disabled one loses the focus
}

function startReader() {
  const found = unique(DATA.attempts.map((attempt) => attempt.environment)).sort();
  filters.environment.append(...found.map((name) => element("option", { value: name }, name)));
  fillTasks();
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("change", (event) => {
    if (event.target.name === "environment") fillTasks();
    choose();
  });
  if (DATA.no_tokens) {
    for (const option of filters.view.options) option.disabled = option.value !== "messages";
    $("no-tokens").textContent = DATA.no_tokens;
    $("no-tokens").hidden = false;
  }
  $("columns").append(...columns.map(({ node }) => node));
  choose();
}

// Tasks that came at more than one step first: they show best what has changed.
function fillTasks() {
  const seen = new Map();
  for (const { environment, task, step } of DATA.attempts) {
    if (environment === filters.environment.value) seen.set(task, (seen.get(task) ?? new Set()).add(step));
  }
  const tasks = [...seen].sort(([a, of], [b, than]) => than.size - of.size || a - b);
  filters.task.replaceChildren(element("option", { value: "" }, "every one"),
    ...tasks.map(([task, at]) => element("option", { value: task }, at.size > 1
      ? `${task}, at ${at.size} steps` : String(task))));
}

function isWanted(attempt) {
  const { environment, task, ending } = filters;
  if (attempt.environment !== environment.value) return false;
  if (task.value && attempt.task !== Number(task.value)) return false;
  if (ending.value === "failed") return attempt.is_failed;
  return !ending.value || attempt.status === ending.value;
}

function choose() {
  const wanted = DATA.attempts.filter(isWanted);
  chosen = new Map(unique(wanted.map(({ step }) => step)).map((step) => [step, []]));
  for (const attempt of wanted) chosen.get(attempt.step).push(attempt);
  for (const attempts of chosen.values()) attempts.sort(ORDERS[filters.order.value]);
  $("none").hidden = wanted.length > 0;
  $("none").textContent = DATA.attempts.length
    ? "No attempt is like this." : "No attempts are on this page: the run left none.";
  $("columns").hidden = !wanted.length;
  if (!wanted.length) return;
  const at = [...chosen.keys()];
  for (const column of columns) {
    // The step that was shown, or the nearest one that is left.
    const aim = column.at ?? at[Math.round(column.share * (at.length - 1))];
    const nearest = at.reduce((best, step) => (Math.abs(step - aim) < Math.abs(best - aim) ? step : best));
    Object.assign(column, { at: nearest, number: 0 });
    column.slider.max = at.length - 1;
    column.slider.value = at.indexOf(nearest);
    column.slider.disabled = at.length < 2;
    show(column);
  }
}

function show(column) {
  const attempts = chosen.get(column.at);
  const attempt = attempts[column.number];
  column.step.textContent = `step ${column.at}`;
  column.slider.setAttribute("aria-valuetext", `step ${column.at}`);
  column.place.textContent = `${column.number + 1} of ${attempts.length}: task ${attempt.task}, attempt ${attempt.number + 1}`;
  column.back.disabled = column.number === 0;
  column.on.disabled = column.number === attempts.length - 1;
  column.body.replaceChildren(...attemptView(attempt, filters.view.value));
}

// Charts over training: lines, and the time as stacked bars. All follow one cursor, a row of the series.
"use strict";

const SIZE = { width: 360, height: 170, left: 44, right: 8, top: 8, bottom: 20 };
const MANY = 60; // points, from which a line is drawn thin, and its running mean thick
const steps = DATA.series.step;
const drawn = []; // { follow } of each chart

// Environments have one colour in all charts.
const environments = unique([
  ...DATA.attempts.map((attempt) => attempt.environment),
  ...Object.keys(DATA.series).filter((name) => /^(val_)?reward\./.test(name))
    .map((name) => name.slice(name.indexOf(".") + 1)),
]);
const colour = (i) => `c${i % 6}`;

function unique(values) {
  return [...new Set(values)];
}

// The lines of a metric, by environment and in all; dashed those of another metric beside it.
function linesOf(name, other = null, otherLabel = "") {
  const lines = [];
  const add = (metric, label, look) => {
    const values = DATA.series[metric];
    if (values && values.some((value) => value !== null)) lines.push({ label, look, values });
  };
  environments.forEach((environment, i) => {
    add(`${name}.${environment}`, environment, colour(i));
    if (other) add(`${other}.${environment}`, `${environment}, ${otherLabel}`, `${colour(i)} dashed`);
  });
  if (environments.length > 1 || !lines.length) add(name, "all", "all");
  return lines;
}

function named(...pairs) {
  return pairs.filter(([metric]) => DATA.series[metric])
    .map(([metric, label, look]) => ({ label, look, values: DATA.series[metric] }));
}

const CHARTS = [
  { title: "Reward", lines: linesOf("reward", "val_reward", "held out") },
  { title: "Length", unit: "tokens of an attempt", lines: linesOf("length", "limit", "at most") },
  { title: "Entropy", unit: "nats a token", lines: linesOf("entropy") },
  { title: "Not learnt, or cut", unit: "share of attempts", lines: named(
    ["truncated", "truncated", "c0"],
    ["degenerate", "degenerate", "c1"],
    ["failed", "failed", "c2"]) },
  { title: "Staleness", unit: "updates that the oldest token outlived",
    lines: named(["stale", "stale", "all"]) },
  { title: "Mismatch", unit: "trainer and engine, nats", isLog: true, lines: named(
    ["mismatch_max", "largest", "c1"],
    ["mismatch_mean", "mean", "c0"]) },
];

function drawCharts() {
  const figures = CHARTS.filter(({ lines }) => lines.length).map(lineChart);
  $("charts").replaceChildren(...figures, timeChart());
}

// --- axes

function scale(from, to, low, high) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

const x = scale(SIZE.left, SIZE.width - SIZE.right, steps[0], steps[steps.length - 1]);
const vertical = (low, high) => scale(SIZE.height - SIZE.bottom, SIZE.top, low, high);

// Round values, about `count` of them, that span low to high.
function ticks(low, high, count = 4) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const every = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const first = Math.floor(low / every + 1e-9);
  const last = Math.ceil(high / every - 1e-9);
  return Array.from({ length: Math.max(1, last - first) + 1 }, (_, i) => (first + i) * every);
}

function axes(marks, y, label = worded) {
  const lines = marks.map((mark) => svg("g", { class: "tick" },
    svg("line", { x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y(mark), y2: y(mark) }),
    svg("text", { x: SIZE.left - 5, y: y(mark) + 3.5, "text-anchor": "end" }, label(mark))));
  const ends = unique([steps[0], steps[steps.length - 1]]).map((step, i) => svg("text", {
    class: "end", x: x(step), y: SIZE.height - 5, "text-anchor": i ? "end" : "start",
  }, `step ${step}`));
  return [...lines, ...ends];
}

// --- lines

function lineChart({ title, unit = "", isLog = false, lines }) {
  const place = isLog ? (value) => (value > 0 ? Math.log10(value) : null) : (value) => value;
  const points = lines.map(({ values }) => values
    .map((value, i) => [steps[i], value === null ? null : place(value)])
    .filter(([, value]) => value !== null));
  const heights = points.flat().map(([, value]) => value);
  const low = Math.min(...heights, isLog ? Infinity : 0);
  const high = Math.max(...heights, isLog ? -Infinity : 0);
  const marks = heights.length ? ticks(low, high) : [0, 1];
  const shownMarks = isLog ? unique(marks.map(Math.round)) : marks;
  const y = vertical(shownMarks[0], shownMarks[shownMarks.length - 1]);
  const paths = lines.flatMap(({ look, label }, i) => drawLine(points[i], y, look, label));
  const label = isLog ? (mark) => `1e${mark}` : worded;
  return chart(title, unit, [...axes(shownMarks, y, label), ...paths],
    lines.map(({ label: name, look, values }) => ({ name, look, at: (row) => worded(at(values, row)) })));
}

// A row's value, or the last one before it: not every step has an evaluation.
function at(values, row) {
  for (let i = row; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}

function drawLine(points, y, look, label) {
  const path = (some, kind) => svg("path", {
    class: `line ${look} ${kind}`, "data-line": label,
    d: some.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(2)} ${y(value).toFixed(2)}`).join(""),
  });
  if (points.length > MANY) return [path(points, "thin"), path(smoothed(points), "")];
  const dots = look.includes("dashed") || points.length === 1 ? points : [];
  return [path(points, ""), ...dots.map(([step, value]) => svg("circle", {
    class: `dot ${look}`, cx: x(step), cy: y(value), r: 2.5,
  }))];
}

// The mean of the points around each one.
function smoothed(points) {
  const reach = Math.ceil(points.length / 40);
  return points.map(([step], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [step, near.reduce((sum, [, value]) => sum + value, 0) / near.length];
  });
}

// --- time

function timeChart() {
  const parts = DATA.times.map((name) => DATA.series[`time.${name}`].map((value) => value ?? 0));
  const totals = steps.map((_, row) => parts.reduce((sum, part) => sum + part[row], 0));
  const marks = ticks(0, Math.max(...totals));
  const y = vertical(0, marks[marks.length - 1]);
  const width = (SIZE.width - SIZE.left - SIZE.right) / steps.length;
  const below = steps.map(() => 0);
  const bars = parts.map((part, i) => {
    const d = part.map((value, row) => {
      const from = y(below[row]);
      below[row] += value;
      const left = SIZE.left + row * width;
      return value ? `M${left.toFixed(2)} ${from.toFixed(2)}V${y(below[row]).toFixed(2)}h${(width * 0.9).toFixed(2)}V${from.toFixed(2)}Z` : "";
    }).join("");
    return svg("path", { class: `area ${colour(i)}`, "data-line": DATA.times[i], d });
  });
  const sum = totals.reduce((all, one) => all + one, 0) || 1;
  const whole = parts.map((part) => part.reduce((all, one) => all + one, 0));
  return chart("Time", "seconds of a step", [...axes(marks, y), ...bars], DATA.times.map((name, i) => ({
    name, look: colour(i),
    at: (row, isWhole) => (isWhole ? `${Math.round((100 * whole[i]) / sum)} %` : `${worded(parts[i][row])} s`),
  })), (row) => SIZE.left + (row + 0.5) * width);
}

// --- what all have

function chart(title, unit, content, entries, place = (row) => x(steps[row])) {
  const line = svg("line", { class: "cursor", y1: SIZE.top, y2: SIZE.height - SIZE.bottom });
  const picture = svg("svg", {
    viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img",
    "aria-label": `${title} by step; the values of the chosen step stand below`,
  }, ...content, line);
  const values = entries.map(() => element("b"));
  const legend = element("ul", { class: "legend" }, ...entries.map(({ name, look }, i) => (
    element("li", {}, element("i", { class: look, "aria-hidden": "true" }), `${name} `, values[i]))));
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const across = ((event.clientX - box.left) / box.width) * SIZE.width;
    const distance = (row) => Math.abs(place(row) - across);
    moveCursor(steps.reduce((best, _, row) => (distance(row) < distance(best) ? row : best), 0));
  });
  drawn.push({
    follow(row, isWhole) {
      line.setAttribute("x1", place(row));
      line.setAttribute("x2", place(row));
      line.classList.toggle("unseen", isWhole);
      entries.forEach((entry, i) => { values[i].textContent = entry.at(row, isWhole); });
    },
  });
  return element("figure", { "data-chart": title },
    element("figcaption", {}, element("h3", {}, title), element("span", {}, unit)), picture, legend);
}

// No row: the whole run, of which the last values are told.
function moveCursor(row = null) {
  const isWhole = row === null;
  const last = steps.length - 1;
  $("cursor").value = isWhole ? last : row;
  $("cursor-step").textContent = isWhole ? `${steps[last]}, the last` : String(steps[row]);
  $("whole").hidden = isWhole;
  for (const { follow } of drawn) follow(isWhole ? last : row, isWhole);
}

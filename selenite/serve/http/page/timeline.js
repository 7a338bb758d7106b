// The last requests as bars (queued, prefill with the cached share, decode) and as a table.

import { $, element, svg } from "./dom.js";

const BARS = 40;
let answer = null; // of /requests

export function draw(requests) {
  answer = requests;
  drawBars();
  drawTable();
}

export function start() {
  $("rows").closest("details").addEventListener("toggle", drawTable);
}

// Seconds of each part so far.
function parts(request) {
  const now = request.ended ?? answer.uptime;
  const scheduled = request.first_scheduled ?? now;
  const first = request.first_token ?? (request.first_scheduled === null ? scheduled : now);
  const end = request.ended === null ? now : request.last_token ?? first;
  const prefill = first - scheduled;
  const cached = (prefill * request.cached_tokens) / request.prompt_tokens;
  return {
    queued: scheduled - request.arrival, cached, prefill: prefill - cached, decode: end - first,
  };
}

function drawBars() {
  const shown = answer.requests.slice(0, BARS).map((request) => ({ request, spans: parts(request) }));
  const total = (spans) => Object.values(spans).reduce((sum, seconds) => sum + seconds, 0);
  const longest = Math.max(...shown.map(({ spans }) => total(spans)), 1e-3);
  $("bars").replaceChildren(...shown.map(({ request, spans }) => (
    element("li", {},
      element("span", {}, element("b", {}, name(request)), ` ${sizes(request)}`),
      element("span", { class: "end" }, `${time(total(spans))}, ${ending(request)}`),
      bar(request, spans, longest)))));
  if (!shown.length) $("bars").append(element("li", { class: "note" }, "None yet."));
}

function bar(request, spans, longest) {
  let x = 0;
  const rects = [];
  for (const [kind, seconds] of Object.entries(spans)) {
    if (seconds <= 0) continue;
    const width = (960 * seconds) / longest;
    rects.push(svg("rect", { class: kind, x, y: 0, width, height: 10 }));
    x += width;
  }
  return svg("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none" },
    svg("title", {}, times(request, spans)), ...rects);
}

// In words: a part may be too short to be seen, and cached tokens take no time of their own.
function times(request, { queued, cached, prefill, decode }) {
  return `queued ${time(queued)}, prefill ${time(cached + prefill)} `
    + `(${request.cached_tokens} of ${request.prompt_tokens} tokens cached), decode ${time(decode)}`;
}

function drawTable() {
  const rows = $("rows");
  if (!answer || !rows.closest("details").open) return;
  rows.replaceChildren(...answer.requests.map((request) => {
    const { queued, cached, prefill, decode } = parts(request);
    const numbers = [
      milliseconds(queued), milliseconds(cached + prefill), milliseconds(decode),
      request.prompt_tokens, request.cached_tokens, request.completion_tokens, request.preemptions,
    ];
    return element("tr", {},
      element("th", { scope: "row" }, name(request)),
      ...numbers.map((value) => element("td", {}, String(value))),
      element("td", {}, ending(request)));
  }));
}

function name(request) {
  return request.id.slice(0, 8) + (request.index ? `.${request.index}` : "");
}

function sizes(request) {
  const cached = request.cached_tokens ? ` (${request.cached_tokens} cached)` : "";
  const lost = request.preemptions ? `, preempted ${request.preemptions}×` : "";
  return `${request.prompt_tokens}${cached} + ${request.completion_tokens}${lost}`;
}

function ending(request) {
  if (request.finish_reason) return request.finish_reason;
  return request.first_scheduled === null ? "waiting" : "running";
}

function time(seconds) {
  return seconds < 1 ? `${milliseconds(seconds)} ms` : `${seconds.toFixed(1)} s`;
}

function milliseconds(seconds) {
  return (1000 * seconds).toFixed(seconds < 0.01 ? 1 : 0);
}

// The live panel: asks /stats every second while the page is seen, and draws what has changed.

import { json } from "./api.js";
import { $, write } from "./dom.js";
import * as models from "./models.js";
import { draw } from "./timeline.js";

const SECONDS = 60; // that the curve reaches back
const GROWING = ["uptime", "ended", "prompt_tokens", "generation_tokens"];
const GAUGES = ["running", "waiting", "rate", "prompt-rate"];
const rates = [];
let last = null;

export async function start() {
  for (;;) {
    if (document.hidden) await once(document, "visibilitychange");
    else await tick();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function once(target, name) {
  return new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
}

async function tick() {
  try {
    const stats = await json("/stats");
    if (last && GROWING.some((name) => stats[name] < last[name])) { // it was started anew
      last = null;
      models.list();
    }
    show(stats);
    const isNew = !last || stats.ended !== last.ended;
    if (isNew || stats.open || last.open) draw(await json("/requests"));
    last = stats;
    tell("", false);
  } catch (error) {
    for (const id of GAUGES) write($(id), "–");
    tell(last ? `${error.message}; what is dimmed is old` : error.message, true);
  }
}

function tell(text, isOld) {
  write($("panel-status"), text);
  $("live").classList.toggle("old", isOld);
}

function show(stats) {
  const seconds = last ? stats.uptime - last.uptime : 0;
  const rate = (name) => (seconds > 0 ? (stats[name] - last[name]) / seconds : 0);
  const written = rate("generation_tokens");
  write($("running"), number(stats.running));
  write($("waiting"), number(stats.waiting));
  write($("rate"), number(written));
  write($("prompt-rate"), number(rate("prompt_tokens")));
  share("kv", stats.pages_in_use, stats.pages);
  share("hits", stats.prefix_cache_hits, stats.prefix_cache_queries);
  const parts = [
    `${number(stats.ended)} requests ended`, `${number(stats.generation_tokens)} tokens written`,
    `${number(stats.prompt_tokens)} of prompts`, `${number(stats.preemptions)} preemptions`,
    `${number(stats.pages_cached)} pages hold prefixes`,
  ];
  write($("totals"), parts.join(" · "));
  curve(written);
}

function share(id, part, whole) {
  const value = whole ? part / whole : 0;
  $(id).value = value;
  write($(`${id}-text`), `${Math.round(100 * value)} % (${number(part)} of ${number(whole)})`);
}

function curve(rate) {
  rates.push(rate);
  if (rates.length > SECONDS) rates.shift();
  const most = Math.max(...rates, 1);
  const points = rates.map((value, index) => {
    const x = 240 - ((rates.length - 1 - index) * 240) / (SECONDS - 1);
    return `${x.toFixed(1)},${(35 - (33 * value) / most).toFixed(1)}`;
  });
  $("spark").firstElementChild.setAttribute("d", `M${points.join("L")}`);
}

function number(value) {
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

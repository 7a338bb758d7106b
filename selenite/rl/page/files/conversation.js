// One attempt: its reward and checks, and what was said, as messages or as tokens.
"use strict";

function attemptView(attempt, view) {
  const isTokens = view !== "messages" && attempt.turns?.length > 0;
  const said = isTokens
    ? [tokenLegend(attempt, view), ...attempt.prompt.map(promptView),
      ...attempt.turns.map((turn) => turnView(attempt, turn, view))]
    : attempt.messages.map((place) => messageView(DATA.messages[place]));
  const note = view !== "messages" && !attempt.turns
    ? element("p", { class: "note" }, "Its tokens are not on this page: there are too many.") : null;
  return [headView(attempt), checksView(attempt), note, ...said].filter((node) => node !== null);
}

function headView(attempt) {
  const mean = attempt.group_mean === null ? "" : `, its group ${worded(attempt.group_mean)}`;
  const times = DATA.times.filter((kind) => attempt.seconds[kind] >= 0.01)
    .map((kind) => `${kind} ${worded(attempt.seconds[kind])} s`);
  const facts = [counted(attempt.num_tokens, "token"), `temperature ${worded(attempt.temperature)}`, ...times];
  return element("div", { class: "head" },
    element("p", {}, element("strong", { class: "reward" }, worded(attempt.reward)), ` reward${mean} `,
      element("span", { class: `status ${attempt.status === "done" ? "" : "wrong"}` }, attempt.status)),
    attempt.reason ? element("p", { class: "wrong reason" }, attempt.reason) : null,
    element("p", { class: "note" }, facts.join(" · ")));
}

function checksView(attempt) {
  if (!attempt.checks.length) return element("p", { class: "note" }, "No checks: it was not scored.");
  const holds = ([, value, reason]) => value === 1 && !reason;
  const rows = attempt.checks.filter((check) => !holds(check));
  const rest = attempt.checks.filter(holds).map(([name]) => name);
  const head = rest.length > 1 ? `${rest.length} checks` : "1 check";
  if (rest.length) rows.push([head, 1, `${rest.length > 1 ? "hold" : "holds"}: ${rest.join(", ")}`]);
  return element("table", { class: "checks" },
    element("thead", {}, element("tr", {},
      ...["Check", "Value", "Why"].map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, ...rows.map(([name, value, reason]) => element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", { class: value < 1 ? "wrong" : "right" }, worded(value)),
      element("td", {}, reason)))));
}

function messageView(message) {
  const role = message.name ? `${message.role}, ${message.name}` : message.role;
  const isEmpty = !message.content && !message.calls && !message.reasoning;
  return element("div", { class: `message ${message.role}` },
    element("h4", {}, role),
    message.reasoning ? element("p", { class: "text reasoning" }, message.reasoning) : null,
    message.content ? element("p", { class: "text", dir: "auto" }, message.content) : null,
    ...(message.calls ?? []).map(([name, args]) => element("div", { class: "call" },
      element("strong", {}, name), element("pre", {}, indented(args)))),
    isEmpty ? element("p", { class: "note" }, "(nothing that reads as a message: see its tokens)") : null);
}

// Arguments as the model wrote them; in lines where they are JSON.
function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

// --- tokens

// What the model saw before its first turn, tools included.
function promptView(place) {
  return element("details", {}, element("summary", {}, "Prompt, as the model saw it"),
    element("pre", { class: "between" }, DATA.messages[place].content));
}

function turnView(attempt, turn, view) {
  const oldest = Math.min(...attempt.turns.flatMap(({ versions }) => versions.map(([version]) => version)));
  const versions = turn.versions.flatMap(([version, count]) => Array(count).fill(version));
  const tokens = turn.ids.map((id, i) => {
    const logprob = turn.logprobs[i];
    const look = view === "versions" ? `v${(versions[i] - oldest) % 4}` : `p${level(logprob)}`;
    const title = `probability ${worded(Math.exp(logprob))}, weights ${versions[i]}, id ${id}`;
    return element("span", { class: look, title }, DATA.tokens[id]);
  });
  return element("div", {},
    turn.between ? element("pre", { class: "between" }, turn.between) : null,
    element("pre", { class: "tokens" }, ...tokens));
}

const LEVELS = [0.9, 0.5, 0.1, 0.01]; // probabilities, above which a token's colour is paler

function level(logprob) {
  const found = LEVELS.findIndex((probability) => Math.exp(logprob) >= probability);
  return found < 0 ? LEVELS.length : found;
}

function tokenLegend(attempt, view) {
  const key = (look, text) => element("span", { class: look }, text);
  if (view === "logprobs") {
    const keys = LEVELS.map((probability, i) => key(`p${i}`, `≥ ${probability}`));
    return element("p", { class: "note keys" }, "Probability: ", ...keys, key(`p${LEVELS.length}`, "less"));
  }
  const versions = unique(attempt.turns.flatMap((turn) => turn.versions.map(([version]) => version)));
  versions.sort((a, b) => a - b);
  return element("p", { class: "note keys" }, "Weights: ",
    ...versions.map((version) => key(`v${(version - versions[0]) % 4}`, String(version))));
}

// The conversation: it lives in this page only. Sends it, shows the answer, asks for tools' results.

import { Answer } from "./answer.js";
import { $, element } from "./dom.js";
import * as settings from "./settings.js";
import { stream } from "./stream.js";

let history = []; // messages as the server takes them
let running = null; // the AbortController of the answer that is being written
let results = null; // the form that waits for tools' results

export function start() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendPrompt();
  });
  sendOnEnter($("prompt"));
  $("stop").addEventListener("click", () => stop());
  $("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) stop();
  });
}

function sendOnEnter(field) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    field.form.requestSubmit();
  });
}

function stop() {
  running?.abort();
  $("prompt").focus();
}

function clear() {
  running?.abort();
  history = [];
  results = null;
  $("log").replaceChildren();
  say("");
  $("prompt").focus();
}

function sendPrompt() {
  const text = $("prompt").value;
  if (running || !text.trim()) return;
  if (results) {
    say("Give the results of the tool calls first, or begin a new chat.");
    results.elements[0].focus();
    return;
  }
  const body = checkedFields();
  if (!body) return;
  $("prompt").value = "";
  const shown = turn("You", "user", text);
  exchange(body, [{ role: "user", content: text }], [shown], () => {
    $("prompt").value ||= text;
  });
}

function checkedFields() {
  try {
    say("");
    return settings.fields();
  } catch (error) {
    say(error.message);
    return null;
  }
}

// Sends the history and ``added``. Where that fails, the history is as before, and ``undo`` is
// called: the next try must not send what the server refused.
async function exchange(body, added, shown, undo) {
  const before = history;
  const controller = running = new AbortController();
  const answer = new Answer();
  show(true);
  history = [...history, ...added];
  const system = settings.systemMessage();
  const messages = system ? [{ role: "system", content: system }, ...history] : history;
  const request = {
    ...body, model: $("model").value, messages, stream: true,
    stream_options: { include_usage: true },
  };
  put(...shown, answer.root);
  let failure = null;
  try {
    for await (const chunk of stream("/v1/chat/completions", request, controller.signal)) {
      follow(() => answer.take(chunk));
    }
  } catch (error) {
    if (error.name !== "AbortError") failure = error;
  }
  if (running === controller) running = null;
  show(Boolean(running));
  if (!answer.root.isConnected) return; // a new chat has begun
  follow(() => {
    answer.end(failure ? "failed" : "stopped");
    if (failure) {
      answer.root.append(element("p", { class: "error", role: "alert" }, failure.message));
      history = before;
      undo();
      return;
    }
    const message = answer.message();
    if (message) history = [...history, message];
    if (message?.tool_calls) askForResults(message.tool_calls);
  });
}

function askForResults(calls) {
  const fields = calls.map((call) => {
    const field = element("textarea", { rows: "2", spellcheck: "false" });
    sendOnEnter(field);
    return field;
  });
  results = element("form", { class: "turn results", "aria-label": "Results of the tool calls" },
    ...calls.map((call, index) => (
      element("label", {}, `Result of ${call.function.name}`, fields[index]))),
    element("div", { class: "row" },
      element("button", { type: "submit", class: "main" }, "Send results")));
  results.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = running ? null : checkedFields();
    if (body) sendResults(body, calls, fields.map((field) => field.value));
  });
  put(results);
  if ([document.body, $("prompt")].includes(document.activeElement) && !$("prompt").value) {
    fields[0].focus();
  }
}

function sendResults(body, calls, texts) {
  const form = results;
  results = null;
  form.remove();
  const added = calls.map((call, index) => (
    { role: "tool", tool_call_id: call.id, content: texts[index] }));
  const shown = calls.map((call, index) => (
    turn(`Result of ${call.function.name}`, "tool", texts[index])));
  $("prompt").focus();
  exchange(body, added, shown, () => {
    results = form;
    put(form);
  });
}

function turn(title, kind, text) {
  return element("article", { class: `turn ${kind}` },
    element("h3", {}, title), element("p", { class: "text" }, text));
}

function put(...parts) {
  $("log").append(...parts);
  $("log").scrollTop = $("log").scrollHeight;
}

// Does something that makes the log longer, and stays at its end if it was there.
function follow(change) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function show(isRunning) {
  $("stop").hidden = !isRunning;
  $("send").hidden = isRunning;
  $("log").ariaBusy = String(isRunning);
}

function say(text) {
  $("status").textContent = text;
}

// The conversation: it lives in this page only. Sends it, shows the answer, asks for tools' results.

import { Answer } from "./answer.js";
import { $, element, write } from "./dom.js";
import { Follower } from "./follow.js";
import { Frames } from "./frames.js";
import * as models from "./models.js";
import * as settings from "./settings.js";
import { stream } from "./stream.js";

let history = []; // messages as the server takes them
let running = null; // the AbortController of the answer that is being written
let results = null; // the form that waits for tools' results
const follower = new Follower($("log"));

export function start() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    sendPrompt();
  });
  onEnter($("prompt"), () => $("composer").requestSubmit());
  $("stop").addEventListener("click", stop);
  $("stop").addEventListener("keydown", (event) => {
    if (event.repeat) event.preventDefault(); // an Enter held on Send
  });
  $("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running && !event.isComposing) stop();
  });
}

function onEnter(field, act) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (matchMedia("(pointer: coarse)").matches) return; // its keyboard has no Shift+Enter
    event.preventDefault();
    act();
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
  if (!text.trim()) return;
  if (running) {
    say("The answer is still being written; Stop ends it.");
    return;
  }
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

// Sends the history and ``added``. Where no answer comes, or the server fails, the history is as
// before, and ``undo`` is called: the next try must not send what the server refused.
async function exchange(body, added, shown, undo) {
  const before = history;
  const controller = running = new AbortController();
  const answer = new Answer();
  const frames = new Frames((chunks) => {
    for (const chunk of chunks) answer.take(chunk);
    follower.grown();
  });
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
      frames.add(chunk);
    }
  } catch (error) {
    if (error.name !== "AbortError") failure = error;
  }
  if (running === controller) running = null;
  show(Boolean(running));
  if (!answer.root.isConnected) return; // a new chat has begun
  say("");
  frames.flush();
  answer.end(failure ? "failed" : "stopped");
  if (failure) {
    answer.root.append(element("p", { class: "error", role: "alert" }, failure.message));
    if (failure.status === 404) models.list(); // it may serve another by now
  }
  const message = failure ? null : answer.message();
  if (message) {
    history = [...history, message];
    if (message.tool_calls) askForResults(message.tool_calls);
  } else {
    history = before;
    leaveOut([...shown, answer.root]);
    undo();
  }
  follower.grown();
}

function leaveOut(turns) {
  for (const turn of turns) turn.classList.add("left-out");
  turns.at(-1).append(element("p", { class: "note" }, "Not part of the conversation."));
}

function askForResults(calls) {
  const fields = calls.map((call) => {
    const field = element("textarea", { rows: "2", spellcheck: "false", dir: "auto" });
    onEnter(field, () => {
      const next = fields.find((other) => other !== field && !other.value);
      if (next) next.focus();
      else field.form.requestSubmit();
    });
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
    element("h3", {}, title), element("p", { class: "text", dir: "auto" }, text));
}

function put(...parts) {
  $("log").append(...parts);
  follower.toEnd();
}

function show(isRunning) {
  const [shown, gone] = isRunning ? [$("stop"), $("send")] : [$("send"), $("stop")];
  shown.hidden = false;
  if (document.activeElement === gone) shown.focus(); // hiding it would lose the focus
  gone.hidden = true;
  $("log").ariaBusy = String(isRunning);
}

function say(text) {
  write($("status"), text);
}

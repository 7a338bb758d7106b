// Sampling controls and the box of tools, as fields of a request.

import { $, element, write } from "./dom.js";
import * as views from "./views.js";

const EXAMPLE = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city, now or in some days.",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer", minimum: 0, maximum: 7 } },
      required: ["city"],
      additionalProperties: false,
    },
  },
}];
const PAUSE = 500; // milliseconds without a key, after which what was written is judged

let refused = null; // the field that could not be sent, of which the status speaks
let pause = null;

export function start() {
  $("tools").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(showTools, PAUSE);
  });
  $("sampling").addEventListener("input", (event) => mended(event.target));
  $("example").addEventListener("click", () => {
    $("tools").value = JSON.stringify(EXAMPLE, null, 2);
    showTools();
  });
  for (const id of ["sampling", "toolbox"]) {
    $(id).addEventListener("submit", (event) => event.preventDefault());
  }
  showTools();
}

export function systemMessage() {
  return $("sampling").elements.system.value.trim();
}

// Fields of the request's body; throws an Error for what cannot be sent.
export function fields() {
  const body = {};
  for (const input of $("sampling").elements) {
    if (input.type !== "number") continue;
    const why = complaint(input);
    if (why) {
      const message = `${input.parentElement.firstChild.textContent.trim()}: ${why}`;
      write($("sampling-note"), message);
      throw refusal(input, message);
    }
    if (input.value !== "") body[input.name] = Number(input.value);
  }
  const stop = $("sampling").elements.stop.value.split("\n").filter((line) => line !== "");
  if (stop.length) body.stop = stop;
  const tools = offered();
  if (tools.length) {
    const choice = $("tool-choice").selectedOptions[0];
    body.tools = tools;
    body.tool_choice = choice.dataset.tool
      ? { type: "function", function: { name: choice.dataset.tool } }
      : choice.value;
  }
  return body;
}

function offered() {
  showTools(); // the pause may not be over
  try {
    return parsed($("tools").value);
  } catch (error) {
    throw refusal($("tools"), error.message);
  }
}

function complaint(input) {
  if (!input.checkValidity()) return input.validationMessage;
  const isWhole = input.step === "1" && input.value !== "";
  if (isWhole && !Number.isSafeInteger(Number(input.value))) return "That number is too large.";
  return "";
}

// The error for a field that cannot be sent; leads the user there.
function refusal(field, message) {
  refused = field;
  field.ariaInvalid = "true";
  views.show("settings");
  field.focus();
  return new Error(message);
}

function mended(field) {
  field.ariaInvalid = null;
  if (field !== refused) return;
  refused = null;
  write($("sampling-note"), "");
  write($("status"), "");
}

// A list of tools; bare functions are wrapped. Throws an Error that says what is wrong.
function parsed(text) {
  if (!text.trim()) return [];
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new Error(`Tools: not JSON (${error.message})`);
  }
  if (!Array.isArray(tools)) throw new Error("Tools: write a list, in [ ]");
  return tools.map((tool, index) => {
    const spec = tool?.function ?? tool;
    if (typeof spec?.name !== "string" || !spec.name) {
      throw new Error(`Tools: number ${index + 1} has no name`);
    }
    const { parameters } = spec;
    const isObject = typeof parameters === "object" && !Array.isArray(parameters);
    if (parameters !== undefined && !isObject) {
      throw new Error(`Tools: the parameters of ${spec.name} are no JSON schema`);
    }
    return { type: "function", function: spec };
  });
}

function showTools() {
  clearTimeout(pause);
  const note = $("tools-note");
  let names = [];
  try {
    names = parsed($("tools").value).map((tool) => tool.function.name);
    write(note, names.length ? `Offered: ${names.join(", ")}` : "No tools.");
    note.classList.remove("wrong");
    mended($("tools"));
  } catch (error) {
    write(note, error.message);
    note.classList.add("wrong");
    $("tools").ariaInvalid = "true";
    return; // the choice stays while the JSON is being written
  }
  const select = $("tool-choice");
  const before = select.value;
  select.replaceChildren(
    ...["auto", "required", "none"].map((word) => element("option", { value: word }, word)),
    ...names.map((name) => element("option", { value: `tool:${name}`, "data-tool": name }, name)),
  );
  select.value = before;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
  select.disabled = !names.length;
}

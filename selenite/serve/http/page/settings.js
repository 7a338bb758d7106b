// Sampling controls and the box of tools, as fields of a request.

import { $, element } from "./dom.js";

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

export function start() {
  $("tools").addEventListener("input", showTools);
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
    if (!input.checkValidity()) {
      const label = input.parentElement.firstChild.textContent.trim();
      throw new Error(`${label}: ${input.validationMessage}`);
    }
    if (input.value !== "") body[input.name] = Number(input.value);
  }
  const stop = $("sampling").elements.stop.value.split("\n").filter((line) => line !== "");
  if (stop.length) body.stop = stop;
  const tools = parsed($("tools").value);
  if (tools.length) {
    const choice = $("tool-choice").selectedOptions[0];
    body.tools = tools;
    body.tool_choice = choice.dataset.tool
      ? { type: "function", function: { name: choice.dataset.tool } }
      : choice.value;
  }
  return body;
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
  const note = $("tools-note");
  let names = [];
  try {
    names = parsed($("tools").value).map((tool) => tool.function.name);
    note.textContent = names.length ? `Offered: ${names.join(", ")}` : "No tools.";
    note.classList.remove("wrong");
    $("tools").removeAttribute("aria-invalid");
  } catch (error) {
    note.textContent = error.message;
    note.classList.add("wrong");
    $("tools").setAttribute("aria-invalid", "true");
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

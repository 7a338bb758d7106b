// One turn of the assistant as it comes: reasoning, text, tool calls, what was no call, the end.

import { append, element, write } from "./dom.js";

export class Answer {
  constructor() {
    this.content = "";
    this.reasoning = "";
    this.id = "";
    this.calls = new Map(); // index to call, as the history has it, and its element
    this.root = element("article", { class: "turn assistant", "aria-busy": "true" },
      element("h3", {}, "Assistant"));
    this.foot = element("p", { class: "foot note" }, "waiting …");
    this.root.append(this.foot);
  }

  // A chunk of the stream.
  take(chunk) {
    this.id ||= chunk.id.replace("chatcmpl-", "");
    if (chunk.usage) this.usage = chunk.usage;
    for (const choice of chunk.choices) {
      const delta = choice.delta;
      if (delta.reasoning_content) this.addReasoning(delta.reasoning_content);
      if (delta.content) this.addContent(delta.content);
      for (const call of delta.tool_calls ?? []) this.addCall(call);
      for (const part of delta.malformed ?? []) this.addMalformed(part);
      if (choice.finish_reason) this.reason = choice.finish_reason;
      if (this.root.ariaBusy === "true") write(this.foot, "writing …");
    }
  }

  addReasoning(text) {
    this.reasoning += text;
    if (!this.reasoningText) {
      this.reasoningText = element("p", { class: "text", dir: "auto" });
      this.add(element("details", { class: "reasoning" },
        element("summary", {}, "Reasoning"), this.reasoningText));
    }
    append(this.reasoningText, text);
  }

  addContent(text) {
    this.content += text;
    if (!this.contentText) {
      this.contentText = element("p", { class: "text", dir: "auto" });
      this.add(this.contentText);
    }
    append(this.contentText, text);
  }

  addCall({ index, id, function: { name, arguments: text } }) {
    let call = this.calls.get(index);
    if (!call) {
      call = { id: "", name: "", arguments: "", state: new Text("writing …") };
      call.title = element("strong");
      call.text = element("pre", { tabindex: "0", "aria-label": "Arguments" });
      call.root = element("div", { class: "call" },
        element("p", {}, "Tool call ", call.title, element("span", { class: "note" }, call.state)),
        call.text);
      this.calls.set(index, call);
      this.add(call.root);
    }
    if (id) call.id = id;
    if (name) call.title.textContent = call.name += name;
    if (text) append(call.text, text);
    call.arguments += text ?? "";
  }

  // What was meant as a call and is none; with an index it takes that call back.
  addMalformed({ index, reason, detail, text }) {
    const taken = this.calls.get(index);
    if (taken) taken.root.remove();
    this.calls.delete(index);
    this.add(element("div", { class: "call malformed" },
      element("p", {}, "No valid tool call: ", element("strong", {}, reason.replaceAll("_", " "))),
      element("p", { class: "note" }, detail),
      element("pre", { tabindex: "0", "aria-label": "Text" }, text)));
  }

  // Nothing more comes. ``reason``: what ended it, where the server did not say.
  end(reason) {
    this.root.ariaBusy = "false";
    for (const { id, state } of this.calls.values()) {
      state.data = this.reason ? id : "cut off, and not kept";
    }
    const parts = [this.reason ?? reason];
    if (this.usage) {
      const { prompt_tokens: prompt, completion_tokens: written } = this.usage;
      const cached = this.usage.prompt_tokens_details?.cached_tokens ?? 0;
      parts.push(`prompt ${prompt} tokens, ${cached} of them cached`, `answer ${written} tokens`);
    }
    if (this.id) parts.push(`request ${this.id.slice(0, 8)}`);
    this.foot.textContent = parts.join(" · ");
  }

  // As the history has it; null where nothing came.
  message() {
    const calls = this.reason ? [...this.calls.values()] : []; // a cut call is no call
    if (!this.content && !this.reasoning && !this.reason) return null;
    const message = { role: "assistant", content: this.content };
    if (this.reasoning) message.reasoning_content = this.reasoning;
    if (calls.length) {
      message.tool_calls = calls.map(({ id, name, arguments: text }) => (
        { id, type: "function", function: { name, arguments: text } }));
    }
    return message;
  }

  add(part) {
    this.foot.before(part);
  }
}

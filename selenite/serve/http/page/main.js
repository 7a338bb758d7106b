// Starts the page: the model's name, the three views of a small screen, and their scripts.

import { json } from "./api.js";
import * as chat from "./chat.js";
import { $, element } from "./dom.js";
import * as panel from "./panel.js";
import * as settings from "./settings.js";
import * as timeline from "./timeline.js";

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.show;
    document.querySelector("[aria-current]").removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
  });
}

async function listModels() {
  for (;;) {
    try {
      const { data } = await json("/v1/models");
      $("model").replaceChildren(...data.map(({ id }) => element("option", { value: id }, id)));
      $("status").textContent = "";
      return;
    } catch (error) { // while the model is being loaded, too
      $("status").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

settings.start();
chat.start();
timeline.start();
listModels();
panel.start();

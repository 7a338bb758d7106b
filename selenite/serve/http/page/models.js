// The names of the models that the server has, to choose from.

import { json } from "./api.js";
import { $, element, write } from "./dom.js";

let listing = null; // the promise, while the server is being asked

export function list() {
  listing ??= ask().finally(() => {
    listing = null;
  });
  return listing;
}

async function ask() {
  let complaint = "";
  for (;;) {
    try {
      const { data } = await json("/v1/models");
      const chosen = $("model").value;
      $("model").replaceChildren(...data.map(({ id }) => element("option", { value: id }, id)));
      if (data.some(({ id }) => id === chosen)) $("model").value = chosen;
      if ($("status").textContent === complaint) write($("status"), "");
      return;
    } catch (error) { // while the model is being loaded, too
      complaint = error.message;
      write($("status"), complaint);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

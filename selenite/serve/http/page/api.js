// Asks the server, with the key that the user gave; the key stays in this tab's sessionStorage.

import { $ } from "./dom.js";

const KEY = "selenite-api-key";
let granted = null; // resolves when a key was given

export class ServerError extends Error {}

async function send(path, options) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("the server does not answer");
  }
}

// The answer; waits for a key where the server wants one, and throws what it says went wrong.
export async function ask(path, options = {}) {
  let response = await send(path, options);
  while (response.status === 401) {
    await keyFromUser();
    response = await send(path, options);
  }
  if (response.ok) return response;
  throw new ServerError(await reason(response));
}

export async function json(path) {
  return (await ask(path)).json();
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

function keyFromUser() {
  granted ??= new Promise((resolve) => {
    const form = $("key-form");
    if (sessionStorage.getItem(KEY)) $("key-note").textContent = "That is no key of this server.";
    form.hidden = false;
    $("key").value = "";
    $("key").focus();
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, $("key").value.trim());
      form.hidden = true;
      granted = null;
      $("prompt").focus();
      resolve();
    }, { once: true });
  });
  return granted;
}

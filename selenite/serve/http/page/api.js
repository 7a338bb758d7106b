// Asks the server, with the key that the user gave; the key stays in this tab's sessionStorage.

import { $ } from "./dom.js";

const KEY = "selenite-api-key";
const SENDABLE = /^[\x20-\x7e]+$/; // no header can carry more
const PATIENCE = 3000; // milliseconds, for what a server answers at once
let granted = null; // resolves when a key was given

export class ServerError extends Error {
  constructor(message, status = null) {
    super(message);
    this.status = status;
  }
}

// What ``promise`` gives; a network that fails is told as ``message``.
export async function reached(promise, message = "the server does not answer") {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(message);
  }
}

function send(path, { patience, ...options }) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEY) ?? "";
  if (SENDABLE.test(key)) headers.Authorization = `Bearer ${key}`;
  const signal = patience ? AbortSignal.timeout(patience) : options.signal;
  return reached(fetch(path, { ...options, headers, signal, cache: "no-store" }));
}

// The answer; waits for a key where the server wants one, and throws what it says went wrong.
export async function ask(path, options = {}) {
  let response = await send(path, options);
  while (response.status === 401) {
    await unlessAborted(keyFromUser(), options.signal);
    response = await send(path, options);
  }
  if (response.ok) return response;
  throw new ServerError(await reason(response), response.status);
}

export async function json(path) {
  const response = await ask(path, { patience: PATIENCE });
  return reached(response.json());
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

function unlessAborted(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve);
  });
}

function keyFromUser() {
  granted ??= new Promise((resolve) => {
    const form = $("key-form");
    form.hidden = false;
    if (sessionStorage.getItem(KEY)) $("key-note").textContent = "That is no key of this server.";
    $("key").value = "";
    $("key").focus();
    form.addEventListener("submit", function take(event) {
      event.preventDefault();
      const key = $("key").value.trim();
      if (!SENDABLE.test(key)) {
        $("key-note").textContent = "A key has letters, digits and signs of ASCII only.";
        $("key").select();
        return;
      }
      form.removeEventListener("submit", take);
      sessionStorage.setItem(KEY, key);
      form.hidden = true;
      granted = null;
      $("prompt").focus();
      resolve();
    });
  });
  return granted;
}

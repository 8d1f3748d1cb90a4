// Asks what needs the admin's token. The token is kept in this tab only, and sent to this server only.
import { byId, text } from "./dom.js";

const KEY = "mds-admin-token";
const TIMEOUT_MS = 120_000;

export class Cancelled extends Error {}

const dialog = byId("token");
let token = sessionStorage.getItem(KEY);

export function forget() {
  token = null;
  sessionStorage.removeItem(KEY);
}

function closed(box) {
  return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue), { once: true }));
}

async function askForToken(wrong) {
  const input = byId("token-value");
  text("token-wrong", wrong);
  input.value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  input.focus();
  const given = (await closed(dialog)) === "use" ? input.value.trim() : "";
  input.value = "";
  if (!given) throw new Cancelled("the admin's token is needed for this");
  token = given;
}

// Whether the user is sure to delete.
export async function isSure(question, yes) {
  const box = byId("sure");
  text("sure-title", question);
  text("sure-yes", yes);
  box.returnValue = "cancel";
  box.showModal();
  return (await closed(box)) === "yes";
}

// The server's answer; asks for the token until it is right. Throws what the server says is wrong, in one line.
export async function ask(path, body = null, { isOpen = false } = {}) {
  if (token === null && !isOpen) await askForToken("");
  for (;;) {
    const headers = {};
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== null) headers["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method: body === null ? "GET" : "POST",
      body: body === null ? null : JSON.stringify(body),
      headers,
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.status === 401) {
      const wrong = token === null ? "" : "This token is wrong.";
      forget();
      await askForToken(wrong);
      continue;
    }
    if (token !== null) sessionStorage.setItem(KEY, token);
    if (response.ok) return response;
    const said = await response.json().catch(() => ({}));
    throw Object.assign(new Error(said.error || `HTTP ${response.status}`), { status: response.status, said });
  }
}

export const askJson = async (path, body = null, options = {}) => (await ask(path, body, options)).json();

export const query = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value !== null && value !== undefined)).toString();

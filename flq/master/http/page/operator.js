// What an operator does: asked with a token, which is kept in this module's memory and nowhere else.

const ANSWER_MS = 60000;
const STOP_MS = 660000; // the master writes the results before it answers

let token = null;
let caller = null; // {role, name}: whose token it is, as the master said

// Whether the buttons are of use: a viewer's token reads, and changes nothing.
export function isOperator() {
  return caller?.role === "operator";
}

export function whoIs() {
  return caller;
}

export function forget() {
  token = caller = null;
}

// Asks for a token, and the master whose it is; null where the reader gave up.
export async function unlock() {
  caller = await request("GET", "whoami");
  return caller;
}

// One request with the reader's token: the answer's JSON, or null where the reader gave up. Asks for the token where there is none
// or another one is needed. Throws what the master said.
export async function request(method, path, body = undefined) {
  for (let wrong = false; ; wrong = true) {
    if (token === null) {
      token = await askForToken(wrong);
      if (token === null) {
        return null;
      }
    }
    const response = await fetch(path, {
      method, cache: "no-store", credentials: "omit", headers: { Authorization: `Bearer ${token}` }, body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(path === "stop" ? STOP_MS : ANSWER_MS),
    });
    const answer = await response.json();
    if (response.ok) {
      if (caller === null && path !== "whoami") { // another token than before was asked for on the way
        await unlock();
      }
      return answer;
    }
    if (response.status !== 401) {
      throw new Refused(answer);
    }
    forget(); // it is wrong, or was revoked meanwhile
  }
}

export class Refused extends Error {
  constructor({ message, expected, hint }) {
    super([message, expected && `expected ${expected}`, hint].filter(Boolean).join("; "));
  }
}

async function askForToken(wrong) {
  document.getElementById("token-wrong").hidden = !wrong;
  const input = document.getElementById("token");
  input.value = "";
  const given = await ask("ask-token", () => input.value.trim());
  input.value = "";
  // What no header may carry is no token either; the master would not see it.
  return given === null ? null : given.replace(/[^\x21-\x7e]/g, "?");
}

export function askIfSure(text, yes) {
  document.getElementById("sure").textContent = text;
  document.getElementById("sure-yes").textContent = yes;
  return ask("ask-sure", () => true);
}

// What the dialog of that id was answered: value() when it was confirmed, else null.
export function ask(id, value) {
  const dialog = document.getElementById(id);
  if (dialog.open) {
    return Promise.resolve(null);
  }
  dialog.showModal();
  return new Promise((resolve) => {
    const listening = new AbortController();
    const hear = (target, name, end) => target.addEventListener(name, (event) => {
      event.preventDefault();
      const found = end();
      listening.abort(); // here and not when the dialog says that it closed: the next question may be open by then
      dialog.close();
      resolve(found);
    }, { signal: listening.signal });
    hear(dialog.querySelector("form"), "submit", value);
    hear(dialog.querySelector(".cancel"), "click", () => null);
    hear(dialog, "cancel", () => null); // the Escape key
  });
}

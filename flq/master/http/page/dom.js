// What every part of the page uses: elements, and questions to the master.

const TIMEOUT_MS = 15000;

export const byId = (id) => document.getElementById(id);

// Texts are only ever texts: nothing that came from a worker is read as HTML.
export function element(tag, text, kind = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = kind;
  return node;
}

export async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) {
    throw new Error(`${path}: HTTP ${response.status}`);
  }
  return response.json();
}

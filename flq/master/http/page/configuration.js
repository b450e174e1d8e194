// The configuration in force, and the form that changes a key of it.

import { ask, byId, element } from "./dom.js";
import * as operator from "./operator.js";

let runtimeKeys = null; // of /openapi.json: what may be changed while the run goes on

// What the master answered to a change; null where the operator gave up.
export async function changeKey() {
  if (runtimeKeys === null) {
    const { paths } = await ask("openapi.json");
    runtimeKeys = paths["/config"].patch.requestBody.content["application/json"].schema.properties;
    byId("change-key").replaceChildren(...Object.keys(runtimeKeys).map((key) => element("option", key)));
    byId("change-key").addEventListener("change", describeKey);
  }
  describeKey();
  const change = await operator.ask("ask-change", () => ({ [byId("change-key").value]: valueOf(byId("change-value").value) }));
  return change === null ? null : operator.request("PATCH", "config", change);
}

function describeKey() {
  const { description, type, minimum, maximum } = runtimeKeys[byId("change-key").value];
  byId("change-doc").textContent = `${description} (${[type].flat().join(", ")}, ${minimum} … ${maximum})`;
}

// 5, null and true are themselves; what is no JSON is a text, which the master judges.
function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// Fills the section where it is open. Where the master listens on a network, it wants a viewer's or an operator's token.
export async function showConfiguration(words) {
  if (!byId("configuration-section").open) {
    return;
  }
  let note = [];
  try {
    const response = await fetch("config", { cache: "no-store" });
    if (response.ok) {
      showKeys(await response.json());
    } else if (operator.whoIs() !== null) {
      showKeys(await operator.request("GET", "config"));
    } else {
      note = [words.config_locked, " ", unlockButton(words)];
    }
  } catch {
    note = [words.unreachable];
  }
  byId("configuration-note").hidden = !note.length;
  byId("configuration-note").replaceChildren(...note);
}

function unlockButton(words) {
  const button = element("button", words.unlock);
  button.type = "button";
  button.addEventListener("click", async () => {
    await operator.unlock().catch(() => null);
    if (operator.whoIs() !== null) {
      showConfiguration(words);
    }
  });
  return button;
}

function showKeys(sections) {
  const keys = Object.entries(sections ?? {}).flatMap(([section, values]) => Object.entries(values).map(([name, value]) => [`${section}.${name}`, value]));
  byId("configuration").replaceChildren(...keys.flatMap(([key, value]) => [element("dt", key), element("dd", JSON.stringify(value))]));
}

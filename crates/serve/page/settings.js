// The settings form: what is sent with each request, kept in localStorage (but for the key, which `api.js` keeps).

import { key } from "./api.js";

const KEY = "tritforge.settings";
/** Fields of requests. Empty ones are not sent, so that the service's defaults apply. */
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];

const form = document.getElementById("settings-form");
const field = (name) => form.elements.namedItem(name);

function stored() {
  try {
    const value = JSON.parse(localStorage.getItem(KEY));
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

/** Fills the form; `changed` is called after every change. */
export function setUp(changed) {
  const values = stored();
  for (const name of [...NUMBERS, "system"]) {
    if (typeof values[name] === "string") field(name).value = values[name];
  }
  if (["chat", "text"].includes(values.mode)) field("mode").value = values.mode;
  field("key").value = key.value;
  field("keep-key").checked = key.kept;
  form.addEventListener("input", (event) => {
    if (["key", "keep-key"].includes(event.target.name)) key.set(field("key").value, field("keep-key").checked);
    else keep();
    changed(event.target.name);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("reset-sampling").addEventListener("click", () => {
    for (const name of NUMBERS) field(name).value = "";
    keep();
    changed("reset");
  });
}

function keep() {
  const values = { mode: field("mode").value, model: field("model").value };
  for (const name of [...NUMBERS, "system"]) values[name] = field(name).value;
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // Only this page has them then.
  }
}

/** Shows the models to choose from. */
export function setModels(models) {
  const select = field("model");
  const wanted = select.value || stored().model;
  select.replaceChildren(
    ...models.map(({ id, parent }) => {
      const option = document.createElement("option");
      option.value = id;
      option.textContent = parent ? `${id} (adapter)` : id;
      return option;
    }),
  );
  if (models.some(({ id }) => id === wanted)) select.value = wanted;
}

export const model = () => field("model").value;
export const isChat = () => field("mode").value === "chat";
export const system = () => field("system").value;
export function setSystem(text) {
  field("system").value = text;
}

/** The first field whose value cannot be sent, with what is wrong with it. */
export function invalid() {
  const name = NUMBERS.find((name) => !field(name).validity.valid);
  return name ? `${name}: ${field(name).validationMessage}` : null;
}

/** The fields of a request beside its prompt. */
export function fields() {
  const body = {};
  if (model()) body.model = model();
  for (const name of NUMBERS) {
    const text = field(name).value.trim();
    if (text !== "") body[name] = Number(text);
  }
  return body;
}

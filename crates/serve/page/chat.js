// The chat: one conversation at a time, its answers streamed.

import { ApiError, events, json, request } from "./api.js";
import * as conversations from "./conversations.js";
import { element } from "./inline.js";
import { view } from "./message.js";
import * as settings from "./settings.js";

const $ = (id) => document.getElementById(id);
const log = $("log");
const composer = $("composer");
const input = $("input");

let conversation = conversations.create(settings.system());
/** Aborts the answer that comes, if one does. */
let running = null;

// Whether the reader is at the end of the log, and so wants to stay there.
let atEnd = true;
log.addEventListener("scroll", () => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
});
function follow(always = false) {
  if (always || atEnd) log.scrollTop = log.scrollHeight;
}

function say(text) {
  $("status").textContent = text;
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

const actions = {
  regenerate(message) {
    if (running) return;
    conversation.messages.length = conversation.messages.indexOf(message);
    show();
    answer();
  },
  edit(message) {
    if (running) return;
    input.value = message.content;
    conversation.messages.length = conversation.messages.indexOf(message);
    show();
    grow();
    input.focus();
  },
};

/** Shows the conversation. */
function show() {
  log.replaceChildren(...conversation.messages.map((message) => view(message, actions).node));
  $("empty").hidden = conversation.messages.length > 0;
  document.title = conversation.messages.length ? `${conversation.title} – Tritforge` : "Tritforge";
  follow(true);
  list();
}

function keep() {
  if (!conversations.save(conversation)) {
    notice("This conversation cannot be kept: the browser's storage is full or off. Delete or export older ones.");
  }
  list();
}

/** Lists the conversations that are kept. */
function list() {
  const items = conversations.all().map((kept) => {
    const item = element("li");
    const open = element("button", "open", kept.title);
    open.type = "button";
    open.title = new Date(kept.updated).toLocaleString();
    if (kept.id === conversation.id) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => {
      stop();
      conversation = kept;
      settings.setSystem(kept.system ?? "");
      show();
      drawer(false);
      input.focus();
    });
    const remove = element("button", "quiet", "✕");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete ${kept.title}`);
    remove.title = "Delete";
    remove.addEventListener("click", () => {
      if (!confirm(`Delete “${kept.title}”?`)) return;
      conversations.remove(kept.id);
      if (kept.id === conversation.id) fresh();
      else list();
    });
    item.append(open, remove);
    return item;
  });
  $("conversations").replaceChildren(...items);
  $("export-all").disabled = $("delete-all").disabled = items.length === 0;
}

function fresh() {
  stop();
  conversation = conversations.create(settings.system());
  notice("");
  show();
  drawer(false);
  input.focus();
}

/** What is asked of the service. */
function body() {
  const fields = { ...settings.fields(), stream: true, stream_options: { include_usage: true } };
  const said = conversation.messages.filter(({ content }) => content !== "");
  if (!settings.isChat()) {
    // Without a limit of its own a completion has OpenAI's, 16 tokens.
    if (fields.max_tokens === undefined) fields.n_predict = -1;
    return { ...fields, prompt: said.at(-1).content };
  }
  const messages = said.map(({ role, content }) => ({ role, content }));
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  return { ...fields, messages };
}

/** What to tell of an error. */
function explain(error) {
  if (error.status === 401) {
    $("settings").open = true;
    return `${error.message}. Enter the key under Settings.`;
  }
  if (error.retryAfter) return `${error.message} (try again in ${error.retryAfter} s)`;
  if (error.message.includes("chat template")) return `${error.message}. Choose “Continue text” under Settings.`;
  return error.message;
}

/** Streams an answer to the conversation as it is. */
async function answer() {
  const mine = conversation;
  const control = new AbortController();
  running = control;
  const message = { role: "assistant", content: "" };
  const asked = body();
  mine.messages.push(message);
  const shown = view(message, actions);
  log.append(shown.node);
  shown.update();
  follow(true);
  state();
  say("Generating");
  const begin = performance.now();
  const stats = {};
  try {
    const path = settings.isChat() ? "v1/chat/completions" : "v1/completions";
    const response = await request(path, { body: asked, signal: control.signal });
    for await (const event of events(response)) {
      const choice = event.choices?.[0];
      const text = choice?.delta?.content ?? choice?.text ?? "";
      if (text) {
        stats.first ??= (performance.now() - begin) / 1000;
        message.content += text;
        shown.update();
        requestAnimationFrame(() => follow());
      }
      if (choice?.finish_reason) {
        stats.seconds = (performance.now() - begin) / 1000;
        message.end = choice.finish_reason;
      }
      if (event.usage) stats.tokens = event.usage.completion_tokens;
    }
    if (stats.first !== undefined) message.stats = stats;
    say("The answer is complete");
  } catch (error) {
    if (error.name === "AbortError") {
      message.end = "stopped";
      say("Stopped");
    } else {
      message.error = error instanceof ApiError ? explain(error) : `The page failed: ${error.message}`;
      say("The request failed");
    }
  } finally {
    if (running === control) running = null;
    shown.finish();
    if (mine === conversation) follow();
    // One that was deleted meanwhile stays deleted.
    if (mine === conversation || conversations.all().some(({ id }) => id === mine.id)) {
      if (!conversations.save(mine)) keep();
      list();
    }
    state();
  }
}

function send() {
  const text = input.value;
  if (running || text.trim() === "") return;
  const wrong = settings.invalid();
  if (wrong) {
    notice(wrong);
    $("settings").open = true;
    return;
  }
  notice("");
  const message = { role: "user", content: settings.isChat() ? text.trim() : text };
  conversation.system = settings.system();
  conversation.messages.push(message);
  $("empty").hidden = true;
  log.append(view(message, actions).node);
  input.value = "";
  grow();
  keep();
  answer();
}

function stop() {
  running?.abort();
}

/** Makes the buttons fit what is going on. */
function state() {
  const busy = running !== null;
  log.setAttribute("aria-busy", String(busy));
  $("stop").hidden = !busy;
  $("send").hidden = busy;
  document.body.classList.toggle("busy", busy);
}

function grow() {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight + 2, window.innerHeight / 3)}px`;
}

// The list of conversations is beside the chat where there is room, and over it where there is not.
const narrow = matchMedia("(max-width: 760px)");
function drawer(open) {
  const sidebar = $("sidebar");
  document.body.classList.toggle("drawer", open && narrow.matches);
  sidebar.inert = narrow.matches && !open;
  $("menu").setAttribute("aria-expanded", String(open || !narrow.matches));
  if (open && narrow.matches) sidebar.querySelector("button").focus();
}
narrow.addEventListener("change", () => drawer(false));
$("menu").addEventListener("click", () => drawer(!document.body.classList.contains("drawer")));
$("backdrop").addEventListener("click", () => drawer(false));

async function loadModels() {
  try {
    const { data } = await json("v1/models");
    settings.setModels(data);
    $("model-name").textContent = settings.model();
    notice("");
  } catch (error) {
    notice(explain(error));
  }
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
input.addEventListener("input", grow);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (document.body.classList.contains("drawer")) drawer(false);
  else stop();
});
$("stop").addEventListener("click", () => {
  stop();
  input.focus();
});
$("new").addEventListener("click", fresh);
$("export").addEventListener("click", () => {
  conversations.download([conversation], `conversation-${conversation.id}.json`);
});
$("export-all").addEventListener("click", () => conversations.download(conversations.all(), "conversations.json"));
$("delete-all").addEventListener("click", () => {
  if (!confirm("Delete all conversations?")) return;
  for (const { id } of conversations.all()) conversations.remove(id);
  fresh();
});

let keyChange = 0;
settings.setUp((name) => {
  if (name === "system") {
    conversation.system = settings.system();
    if (conversation.messages.length) keep();
  }
  if (name === "model") $("model-name").textContent = settings.model();
  if (name === "key") {
    clearTimeout(keyChange);
    keyChange = setTimeout(loadModels, 400);
  }
});
conversation.system = settings.system();
show();
state();
drawer(false);
loadModels();
// On a phone that would open the keyboard.
if (!narrow.matches) input.focus();

// How a message looks. The text of a model goes through `markdown.js`; that of the user is shown as it is.

import { element } from "./inline.js";
import { render } from "./markdown.js";

const ENDS = {
  length: "The answer reached the token limit or the end of the context.",
  content_filter: "The service's content filter ended the answer.",
  stopped: "Stopped.",
};

function button(label, title, action) {
  const node = element("button", "quiet", label);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", action);
  return node;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS there is no clipboard but by way of a selection.
    const area = element("textarea", "hidden");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

async function copyBy(node, text) {
  const label = node.textContent;
  node.textContent = (await copy(text)) ? "Copied" : "Not copied";
  setTimeout(() => {
    node.textContent = label;
  }, 1500);
}

function statistics({ tokens, seconds, first }) {
  const parts = [];
  if (Number.isFinite(tokens)) parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  if (Number.isFinite(tokens) && tokens > 1 && seconds - first > 0.01) {
    parts.push(`${((tokens - 1) / (seconds - first)).toFixed(1)} tokens/s`);
  }
  if (Number.isFinite(first)) parts.push(`first text after ${first.toFixed(2)} s`);
  return parts.join(" · ");
}

/** The view of a message; `actions` are called with it. */
export function view(message, actions) {
  const isUser = message.role === "user";
  const node = element("article", `message ${message.role}`);
  node.setAttribute("aria-label", isUser ? "You" : "Model");
  const content = element("div", "content");
  const error = element("p", "error");
  error.setAttribute("role", "alert");
  const footer = element("footer");
  node.append(content, error, footer);
  let frame = 0;

  function draw() {
    frame = 0;
    if (isUser) content.textContent = message.content;
    else content.replaceChildren(render(message.content));
  }

  function finish() {
    if (frame) cancelAnimationFrame(frame);
    draw();
    node.classList.remove("running");
    error.hidden = !message.error;
    error.textContent = message.error ?? "";
    const note = [ENDS[message.end], message.stats && statistics(message.stats)].filter(Boolean).join(" ");
    footer.replaceChildren();
    if (message.content) {
      const node = button("Copy", "Copy the message", () => copyBy(node, message.content));
      footer.append(node);
    }
    if (isUser) footer.append(button("Edit", "Edit the message and send it again", () => actions.edit(message)));
    else footer.append(button("Regenerate", "Another answer in the place of this one", () => actions.regenerate(message)));
    if (note) footer.append(element("span", "note", note));
  }

  content.addEventListener("click", (event) => {
    const target = event.target.closest(".copy-code");
    if (target) copyBy(target, target.closest("figure").querySelector("pre").textContent);
  });
  finish();
  return {
    node,
    finish,
    /** Shows text that has come, at the next frame. */
    update() {
      node.classList.add("running");
      footer.replaceChildren();
      if (!frame) frame = requestAnimationFrame(draw);
    },
  };
}

// Conversations, kept in this browser's localStorage, each under a key of its own, so that two tabs do not overwrite
// each other's.

const PREFIX = "tritforge.chat.";

/** Whether a value is a conversation, whatever has been written to the storage. */
function valid(value) {
  return (
    typeof value === "object" && value !== null && typeof value.id === "string" && typeof value.title === "string" &&
    Number.isFinite(value.updated) && Array.isArray(value.messages) &&
    value.messages.every((m) => (m?.role === "user" || m?.role === "assistant") && typeof m.content === "string")
  );
}

/** All conversations, the newest first. */
export function all() {
  const found = [];
  try {
    for (let i = 0; i < localStorage.length; i += 1) {
      const name = localStorage.key(i);
      if (!name.startsWith(PREFIX)) continue;
      try {
        const value = JSON.parse(localStorage.getItem(name));
        if (valid(value) && PREFIX + value.id === name) found.push(value);
      } catch {
        // Not one of ours.
      }
    }
  } catch {
    // Storage is off.
  }
  return found.sort((a, b) => b.updated - a.updated);
}

export function create(system) {
  // crypto.randomUUID needs HTTPS.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const now = Date.now();
  return { id, title: "New conversation", created: now, updated: now, system, messages: [] };
}

/** Keeps a conversation; false if there is no room. */
export function save(conversation) {
  conversation.updated = Date.now();
  const first = conversation.messages.find((m) => m.role === "user");
  if (first) conversation.title = first.content.trim().replace(/\s+/g, " ").slice(0, 60) || "…";
  try {
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    return true;
  } catch {
    return false;
  }
}

export function remove(id) {
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    // There is nothing then.
  }
}

/** Downloads conversations as JSON. */
export function download(conversations, name) {
  const data = JSON.stringify({ format: "tritforge-conversations", version: 1, conversations }, null, 2);
  const url = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

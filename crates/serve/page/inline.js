// Markdown within a paragraph: emphasis, code, links. Builds nodes, never HTML.
//
// Time is linear in the text: a search for an end that fails is not made again behind it.

const MAX_DEPTH = 8;
const LONGEST_LABEL = 1000;
const LONGEST_URL = 2000;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BARE_URL = /https?:\/\/[^\s<>"'`*]{1,2000}/y;
const EMPHASIS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** The URL of a link, if it is one of the web. */
export function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
}

export function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function link(url) {
  const node = element("a");
  node.href = url;
  node.target = "_blank";
  node.rel = "noopener noreferrer nofollow";
  return node;
}

const isWord = (c) => c !== undefined && /[\p{L}\p{N}]/u.test(c);
const isSpace = (c) => c === undefined || /\s/.test(c);

/** The end of a link's address that begins at `at`, behind its parenthesis; -1 if there is none. */
function endOfAddress(text, at) {
  let depth = 0;
  const last = Math.min(text.length, at + LONGEST_URL);
  for (let i = at; i < last; i++) {
    if (text[i] === "\n") return -1;
    if (text[i] === "(") depth += 1;
    if (text[i] === ")") {
      if (depth === 0) return i;
      depth -= 1;
    }
  }
  return -1;
}

/** The end of a label whose bracket opens at `at`; -1 if no address follows it. */
function endOfLabel(text, at) {
  let depth = 0;
  const last = Math.min(text.length, at + LONGEST_LABEL);
  for (let i = at; i < last; i++) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "[") depth += 1;
    else if (text[i] === "]") {
      depth -= 1;
      if (depth === 0) return text[i + 1] === "(" ? i : -1;
    }
  }
  return -1;
}

/** Where emphasis ends that was opened before `from`; -1 if nowhere. */
function endOfEmphasis(text, mark, from) {
  for (let at = text.indexOf(mark, from); at !== -1; at = text.indexOf(mark, at + 1)) {
    const after = text[at + mark.length];
    if (isSpace(text[at - 1]) || text[at - 1] === "\\") continue;
    // A single mark that is a half of a double one.
    if (mark.length === 1 && (after === mark || text[at - 1] === mark)) continue;
    if (mark[0] === "_" && isWord(after)) continue;
    return at;
  }
  return -1;
}

/** Appends the nodes of a text to `parent`. */
export function inline(parent, text, depth = 0, inLink = false) {
  let plain = "";
  let i = 0;
  // Marks and lengths of code fences that have no end any more.
  const dead = new Set();
  const flush = () => {
    if (plain) parent.append(plain);
    plain = "";
  };
  const nested = (node, inner, isLink = inLink) => {
    flush();
    if (depth < MAX_DEPTH) inline(node, inner, depth + 1, isLink);
    else node.append(inner);
    parent.append(node);
  };
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && ESCAPABLE.test(text[i + 1] ?? "")) {
      plain += text[i + 1];
      i += 2;
      continue;
    }
    if (c === "\n") {
      flush();
      parent.append(element("br"));
      i += 1;
      continue;
    }
    if (c === "`") {
      let length = 1;
      while (text[i + length] === "`") length += 1;
      const end = dead.has(length) ? -1 : endOfCode(text, i + length, length);
      if (end === -1) {
        dead.add(length);
        plain += "`".repeat(length);
        i += length;
        continue;
      }
      flush();
      const code = text.slice(i + length, end).replaceAll("\n", " ");
      const padded = code.startsWith(" ") && code.endsWith(" ") && code.trim() !== "";
      parent.append(element("code", "", padded ? code.slice(1, -1) : code));
      i = end + length;
      continue;
    }
    if (!inLink && (c === "[" || (c === "!" && text[i + 1] === "["))) {
      // An image is a link: nothing of another site is loaded.
      const open = c === "!" ? i + 1 : i;
      const label = endOfLabel(text, open);
      const close = label === -1 ? -1 : endOfAddress(text, label + 2);
      if (close !== -1) {
        const [address] = text.slice(label + 2, close).trim().split(/\s/, 1);
        const url = safeUrl(address.replace(/^<|>$/g, ""));
        const inner = text.slice(open + 1, label);
        if (url) {
          nested(link(url), inner || url, true);
          i = close + 1;
          continue;
        }
      }
    }
    if (!inLink && c === "h" && !isWord(text[i - 1])) {
      BARE_URL.lastIndex = i;
      const found = BARE_URL.exec(text)?.[0].replace(/[.,:;!?)\]}]{1,8}$/, "");
      const url = found && safeUrl(found);
      if (url) {
        flush();
        const node = link(url);
        node.append(found);
        parent.append(node);
        i += found.length;
        continue;
      }
    }
    const style = EMPHASIS.find(([mark]) => text.startsWith(mark, i));
    if (style) {
      const [mark, name] = style;
      const from = i + mark.length;
      const opens = !isSpace(text[from]) && !(mark[0] === "_" && isWord(text[i - 1]));
      if (opens && !dead.has(mark)) {
        const end = endOfEmphasis(text, mark, from + 1);
        if (end !== -1) {
          nested(element(name), text.slice(from, end));
          i = end + mark.length;
          continue;
        }
        dead.add(mark);
      }
      plain += mark;
      i = from;
      continue;
    }
    plain += c;
    i += 1;
  }
  flush();
}

/** Where a run of exactly `length` backticks begins; -1 if nowhere. */
function endOfCode(text, from, length) {
  let at = text.indexOf("`", from);
  while (at !== -1) {
    let run = 1;
    while (text[at + run] === "`") run += 1;
    if (run === length) return at;
    at = text.indexOf("`", at + run);
  }
  return -1;
}

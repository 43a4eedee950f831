// Markdown to nodes of the page: paragraphs, headings, lists, quotes, code, tables, rules.
//
// What a model writes is not trusted: everything becomes text nodes and a fixed set of elements. There is no HTML in
// between, so that a tag in the text is shown as it is written.

import { element, inline } from "./inline.js";

const MAX_DEPTH = 12;
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: |$)/;
const RULE = /^(?:\*{3,}|-{3,}|_{3,})$/;
const DELIMITER = /^:?-+:?$/;

/** The nodes of a text. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  blocks(fragment, text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"), 0);
  return fragment;
}

const isBlank = (line) => line.trim() === "";
const isRule = (line) => line.length < 200 && RULE.test(line.replaceAll(" ", ""));
const indentOf = (line) => line.length - line.trimStart().length;

/** Whether a line begins a block, and so ends the paragraph before it. */
function beginsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || ITEM.test(line) || isRule(line);
}

function blocks(parent, lines, depth) {
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (isBlank(line)) i += 1;
    else if (FENCE.test(line)) i = code(parent, lines, i);
    else if (HEADING.test(line)) i = heading(parent, lines, i);
    else if (isRule(line)) {
      parent.append(element("hr"));
      i += 1;
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) i = quote(parent, lines, i, depth);
    else if (ITEM.test(line) && depth < MAX_DEPTH) i = list(parent, lines, i, depth);
    else if (isTable(lines, i)) i = table(parent, lines, i);
    else i = paragraph(parent, lines, i);
  }
}

function paragraph(parent, lines, i) {
  const text = [lines[i].trim()];
  i += 1;
  while (i < lines.length && !isBlank(lines[i]) && !beginsBlock(lines[i]) && !isTable(lines, i)) {
    text.push(lines[i].trim());
    i += 1;
  }
  const node = element("p");
  inline(node, text.join("\n"));
  parent.append(node);
  return i;
}

function heading(parent, lines, i) {
  const level = HEADING.exec(lines[i])[1].length;
  let text = lines[i].trim().slice(level).trim();
  let end = text.length;
  while (text[end - 1] === "#") end -= 1;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trimEnd();
  // The page has headings of its own above those of answers.
  const node = element(`h${Math.min(level + 2, 6)}`);
  inline(node, text);
  parent.append(node);
  return i + 1;
}

/** A fenced block; to the end of the text as long as its end has not come. */
function code(parent, lines, i) {
  const [, fence, info] = FENCE.exec(lines[i]);
  const indent = indentOf(lines[i]);
  const text = [];
  for (i += 1; i < lines.length; i += 1) {
    const line = lines[i].trim();
    if (line.length >= fence.length && indentOf(lines[i]) < 4 && line === fence[0].repeat(line.length)) {
      i += 1;
      break;
    }
    text.push(lines[i].slice(Math.min(indent, indentOf(lines[i]))));
  }
  const figure = element("figure", "code");
  const language = info.trim().split(/\s/, 1)[0].slice(0, 40);
  const caption = element("figcaption");
  caption.append(element("span", "", language || "text"));
  const copy = element("button", "copy-code", "Copy");
  copy.type = "button";
  caption.append(copy);
  const pre = element("pre");
  pre.tabIndex = 0;
  pre.append(element("code", "", text.join("\n")));
  figure.append(caption, pre);
  parent.append(figure);
  return i;
}

function quote(parent, lines, i, depth) {
  const inner = [];
  for (; i < lines.length && QUOTE.test(lines[i]); i += 1) inner.push(lines[i].trimStart().replace(/^> ?/, ""));
  const node = element("blockquote");
  blocks(node, inner, depth + 1);
  parent.append(node);
  return i;
}

function list(parent, lines, i, depth) {
  const [, , first] = ITEM.exec(lines[i]);
  const ordered = /\d/.test(first);
  const kind = first.at(-1);
  const base = indentOf(lines[i]);
  const node = element(ordered ? "ol" : "ul");
  if (ordered && Number.parseInt(first, 10) !== 1) node.start = Number.parseInt(first, 10);
  while (i < lines.length) {
    const found = ITEM.exec(lines[i]);
    if (!found || found[2].at(-1) !== kind || indentOf(lines[i]) > base + 3 || isRule(lines[i])) break;
    if (indentOf(lines[i]) < base) break;
    const width = found[1].length + found[2].length + 1;
    const inner = [lines[i].slice(width)];
    for (i += 1; i < lines.length; i += 1) {
      const line = lines[i];
      if (isBlank(line)) {
        // Of an item only if more of it follows.
        const next = lines.slice(i + 1, i + 8).find((later) => !isBlank(later));
        if (next === undefined || indentOf(next) < width) break;
        inner.push("");
      } else if (indentOf(line) >= Math.min(width, base + 2)) inner.push(line.slice(Math.min(width, indentOf(line))));
      else if (beginsBlock(line) || isBlank(lines[i - 1])) break;
      else inner.push(line.trim());
    }
    const item = element("li");
    blocks(item, inner, depth + 1);
    tighten(item);
    node.append(item);
    // Blank lines between two items.
    let next = i;
    while (next < lines.length && isBlank(lines[next])) next += 1;
    if (next < lines.length && ITEM.test(lines[next]) && indentOf(lines[next]) >= base) i = next;
  }
  parent.append(node);
  return i;
}

/** An item's first paragraph needs no paragraph's margins; what it is ticked with is a mark. */
function tighten(item) {
  const first = item.firstElementChild;
  if (first?.tagName !== "P") return;
  const text = first.firstChild;
  const task = text?.nodeType === Node.TEXT_NODE ? /^\[([ xX])\] /.exec(text.data) : null;
  if (task) text.data = `${task[1] === " " ? "☐" : "☑"} ${text.data.slice(4)}`;
  first.replaceWith(...first.childNodes);
}

/** The cells of a table's row. */
function cells(line) {
  let text = line.trim();
  if (text.startsWith("|")) text = text.slice(1);
  const row = [""];
  let inCode = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (c === "\\" && text[i + 1] === "|") {
      row[row.length - 1] += "|";
      i += 1;
    } else if (c === "|" && !inCode) row.push("");
    else {
      if (c === "`") inCode = !inCode;
      row[row.length - 1] += c;
    }
  }
  if (row.length > 1 && isBlank(row.at(-1))) row.pop();
  return row.map((cell) => cell.trim());
}

function isTable(lines, i) {
  const next = lines[i + 1];
  if (!lines[i].includes("|") || !next?.includes("-") || !/^[ |:-]+$/.test(next)) return false;
  const delimiters = cells(next);
  return delimiters.every((cell) => DELIMITER.test(cell)) && delimiters.length === cells(lines[i]).length;
}

function table(parent, lines, i) {
  const align = cells(lines[i + 1]).map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "end";
    return "start";
  });
  const row = (line, name) => {
    const node = element("tr");
    const texts = cells(line);
    align.forEach((side, column) => {
      const cell = element(name, `align-${side}`);
      inline(cell, texts[column] ?? "");
      node.append(cell);
    });
    return node;
  };
  const node = element("table");
  const head = element("thead");
  head.append(row(lines[i], "th"));
  const body = element("tbody");
  for (i += 2; i < lines.length && !isBlank(lines[i]) && lines[i].includes("|"); i += 1) body.append(row(lines[i], "td"));
  node.append(head, body);
  const scroller = element("div", "table");
  scroller.tabIndex = 0;
  scroller.append(node);
  parent.append(scroller);
  return i;
}

// The page in Chromium: it sends, streams, stops, shows errors, keeps conversations, and never makes HTML of a text.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { cleanUp, serve } from "./service.mjs";

const { chromium } = await import(process.env.PLAYWRIGHT_CORE);
const screenshots = process.argv[2];
const browser = await chromium.launch({ executablePath: process.env.TRITFORGE_CHROMIUM, args: ["--no-sandbox"] });
const service = await serve("--concurrency", "2", "--history-interval", "1", "--watts", "65");
let failures = 0;

/** A page of its own; whatever the browser complains of fails the test. */
async function open(options = {}, path = "/", address = service.address) {
  const context = await browser.newContext({ acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("console", (message) => {
    // Refused requests are what some tests are about.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      page.complaints.push(message.text());
    }
  });
  page.requested = [];
  page.on("request", (request) => page.requested.push(request.url()));
  page.on("dialog", (dialog) => dialog.accept());
  await page.goto(address + path);
  return page;
}

async function test(name, run) {
  try {
    await run();
    console.log(`ok   ${name}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL ${name}\n${error.stack}`);
  }
}

async function done(page) {
  assert.deepEqual(page.complaints, []);
  await page.context().close();
}

async function shot(page, name) {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`) });
}

async function set(page, name, value) {
  await page.evaluate(() => { document.getElementById("settings").open = true; });
  const field = page.locator(`#settings-form [name="${name}"]`);
  if (name === "mode" || name === "model") await field.selectOption(value);
  else await field.fill(value);
}

async function send(page, text) {
  await page.locator("#input").fill(text);
  await page.locator("#input").press("Enter");
}

/** Has the model go on to the last token that it may generate. */
function withoutEnd(page) {
  return page.route("**/v1/completions", (route) =>
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), ignore_eos: true }) }));
}

const answer = (page) => page.locator(".message.assistant").last();

/** Has the service answer with these texts, one an event. */
async function stub(page, texts, { end = "stop", requests = [] } = {}) {
  await page.route("**/v1/chat/completions", async (route) => {
    requests.push(route.request().postDataJSON());
    const chunk = (delta, reason = null) => ({ choices: [{ index: 0, delta, finish_reason: reason }] });
    const events = [
      chunk({ role: "assistant", content: "" }),
      ...texts.map((content) => chunk({ content })),
      chunk({}, end),
      { choices: [], usage: { prompt_tokens: 3, completion_tokens: texts.length } },
    ];
    const body = [...events.map((event) => JSON.stringify(event)), "[DONE]"].map((data) => `data: ${data}\n\n`).join("");
    await route.fulfill({ status: 200, contentType: "text/event-stream", body });
  });
}

await test("an answer is streamed, and another one takes its place", async () => {
  const page = await open();
  await withoutEnd(page);
  await set(page, "mode", "text");
  await set(page, "max_tokens", "2000");
  await set(page, "seed", "1");
  await send(page, "fn main");
  // It grows before it is complete.
  await page.waitForFunction(() => document.querySelector(".message.running .content")?.textContent.length > 5);
  await page.waitForFunction(() => document.body.className === "chat" && !document.querySelector(".running"));
  assert.match(await answer(page).locator("footer").innerText(), /2000 tokens.* tokens\/s/);
  const first = await answer(page).locator(".content").innerText();
  await answer(page).getByRole("button", { name: "Regenerate" }).click();
  await page.waitForFunction(() => document.querySelector(".running"));
  await page.waitForFunction(() => !document.querySelector(".running"));
  assert.equal(await page.locator(".message").count(), 2);
  // The same seed gives the same answer.
  assert.equal(await answer(page).locator(".content").innerText(), first);
  await set(page, "seed", "2");
  await answer(page).getByRole("button", { name: "Regenerate" }).click();
  await page.waitForFunction(() => document.querySelector(".running"));
  await page.waitForFunction(() => !document.querySelector(".running"));
  assert.notEqual(await answer(page).locator(".content").innerText(), first);
  assert.ok(page.requested.every((url) => url.startsWith(service.address)), String(page.requested));
  await done(page);
});

await test("an answer is stopped, by the button and by Escape", async () => {
  const page = await open();
  await withoutEnd(page);
  await set(page, "mode", "text");
  await set(page, "max_tokens", "");
  for (const how of ["button", "Escape"]) {
    await send(page, "let x = ");
    await page.waitForFunction(() => document.querySelector(".message.running .content")?.textContent.length > 5);
    if (how === "button") await page.locator("#stop").click();
    else await page.keyboard.press("Escape");
    await page.waitForFunction(() => !document.querySelector(".running"));
    assert.match(await answer(page).locator("footer").innerText(), /Stopped\./);
    assert.ok((await answer(page).locator(".content").innerText()).length > 0);
  }
  assert.equal(await page.locator("#send").isVisible(), true);
  // The service has noticed.
  for (let i = 0; ; i += 1) {
    const metrics = await (await fetch(`${service.address}/metrics`)).text();
    if (/tritforge_generations_total\{finished_reason="abort"[^}]*\} 2\n/.test(metrics)) break;
    assert.ok(i < 50, metrics);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await done(page);
});

await test("errors of the service are shown", async () => {
  const page = await open();
  // The model has no chat template.
  await send(page, "hello");
  await page.waitForFunction(() => document.querySelector(".message.assistant .error")?.textContent);
  assert.match(await answer(page).locator(".error").innerText(), /chat template.*Continue text/s);
  await set(page, "mode", "text");
  await set(page, "max_tokens", "0");
  await send(page, "hello");
  assert.match(await page.locator("#notice").innerText(), /max_tokens/);
  await set(page, "max_tokens", "2");
  await send(page, "x".repeat(9000));
  await page.waitForFunction(() => document.querySelectorAll(".message .error:not([hidden])").length === 2);
  assert.match(await answer(page).locator(".error").innerText(), /context has room for/);
  // A stream that ends with an error, and one that ends in the middle.
  await set(page, "mode", "chat");
  for (const [body, expected] of [
    [`data: {"choices":[{"delta":{"content":"begun"}}]}\n\ndata: {"error":{"message":"it <b>broke</b>"}}\n\n`, /it <b>broke<\/b>/],
    [`data: {"choices":[{"delta":{"content":"begun"}}]}\n\n`, /connection was lost/],
  ]) {
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body }));
    await send(page, "again");
    await page.waitForFunction(() => !document.querySelector(".running"));
    assert.match(await answer(page).locator(".error").innerText(), expected);
    assert.equal(await answer(page).locator(".content").innerText(), "begun");
  }
  await page.route("**/v1/chat/completions", (route) => route.abort());
  await send(page, "again");
  await page.waitForFunction(() => !document.querySelector(".running"));
  assert.match(await answer(page).locator(".error").innerText(), /cannot be reached/);
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({
      status: 429, headers: { "retry-after": "7" },
      json: { error: { message: "the limit is reached", code: "RATE_LIMIT_EXCEEDED" } },
    }));
  await send(page, "again");
  await page.waitForFunction(() => !document.querySelector(".running"));
  assert.match(await answer(page).locator(".error").innerText(), /the limit is reached.*7 s/);
  await done(page);
});

const HOSTILE = [
  "<script>window.hit = 1</script>",
  "<img src=x onerror='window.hit = 1'>",
  "<svg/onload=window.hit=1>",
  "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
  "<a href='javascript:window.hit=1'>x</a>",
  "[click](javascript:window.hit=1)",
  "[click](JaVaScRiPt:window.hit=1)",
  "[click](\u0001javascript:window.hit=1)",
  "[click](data:text/html,<script>window.hit=1</script>)",
  "[click](vbscript:x)",
  "![x](javascript:window.hit=1)",
  "![x](https://evil.example/pixel.png)",
  "[x](https://evil.example/\"onmouseover=\"window.hit=1)",
  "<https://evil.example>",
  "https://evil.example/\"><script>window.hit=1</script>",
  "`<b>`",
  "```html\n<script>window.hit = 1</script>\n```",
  "```<img src=x onerror=window.hit=1>\ncode\n```",
  "| <b>a</b> | b |\n|---|---|\n| <script>window.hit=1</script> | <img src=x onerror=window.hit=1> |",
  "# <h1 onclick=window.hit=1>",
  "> <style>*{display:none}</style>",
  "- <form action=https://evil.example><input name=a>",
  "&lt;script&gt;window.hit=1&lt;/script&gt;",
  "<!--",
  "<plaintext>",
  "</div></article></main></body>",
  "<base href=https://evil.example>",
  "<meta http-equiv=refresh content='0;url=https://evil.example'>",
];

await test("a text never becomes HTML", async () => {
  const page = await open();
  const found = await page.evaluate(async (texts) => {
    const { render } = await import("./page/markdown.js");
    const allowed = new Set(["P", "H3", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "PRE", "CODE", "FIGURE", "FIGCAPTION",
      "SPAN", "BUTTON", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "DIV", "HR", "BR", "STRONG", "EM", "DEL", "A"]);
    const attributes = new Set(["class", "href", "rel", "target", "type", "start", "tabindex"]);
    return texts.map((text) => {
      const node = document.createElement("div");
      node.append(render(text));
      document.body.append(node);
      const all = Array.from(node.querySelectorAll("*"));
      return {
        text,
        elements: all.filter((e) => !allowed.has(e.tagName)).map((e) => e.tagName),
        attributes: all.flatMap((e) => Array.from(e.attributes, (a) => a.name)).filter((name) => !attributes.has(name)),
        links: all.filter((e) => e.tagName === "A").map((e) => ({ protocol: e.protocol, rel: e.rel, target: e.target })),
        shown: node.textContent,
      };
    });
  }, [...HOSTILE, HOSTILE.join("\n\n"), HOSTILE.join(" "), HOSTILE.join("\n")]);
  for (const { text, elements, attributes, links, shown } of found) {
    assert.deepEqual({ elements, attributes }, { elements: [], attributes: [] }, text);
    for (const { protocol, rel, target } of links) {
      assert.ok(["http:", "https:"].includes(protocol), `${protocol} in ${text}`);
      assert.ok(rel.includes("noopener") && target === "_blank", text);
    }
    // What looks like a tag is there to be read.
    for (const tag of text.match(/<(script|img|svg|iframe|base|meta|plaintext|form|style)\b/g) ?? []) {
      if (!text.startsWith("```<")) assert.ok(shown.includes(tag), `${tag} in ${shown}`);
    }
  }
  await page.waitForTimeout(200);
  assert.equal(await page.evaluate(() => window.hit), undefined);
  await done(page);
});

await test("an answer with HTML is shown as text, also from the history", async () => {
  const page = await open();
  await stub(page, HOSTILE.flatMap((text) => [`${text.slice(0, 5)}`, `${text.slice(5)}\n\n`]));
  await send(page, "<img src=x onerror='window.hit = 1'> please");
  await page.waitForFunction(() => document.querySelector(".message.assistant") && !document.querySelector(".running"));
  await page.reload();
  await page.locator("#conversations .open").first().click();
  assert.equal(await page.locator("#log").locator("script, img, svg, iframe, style, form, base, meta, plaintext").count(), 0);
  assert.equal(await page.locator("#sidebar").locator("img").count(), 0);
  assert.match(await page.locator(".message.user .content").innerText(), /<img src=x/);
  await page.waitForTimeout(200);
  assert.equal(await page.evaluate(() => window.hit), undefined);
  assert.ok(page.requested.every((url) => url.startsWith(service.address)), "something was loaded from elsewhere");
  await done(page);
});

await test("the policy stops scripts that are not the page's", async () => {
  const page = await open();
  const blocked = await page.evaluate(async () => {
    const seen = [];
    document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
    const image = document.createElement("img");
    // Trusted Types may refuse that at once.
    try { image.setAttribute("onerror", "window.hit = 1"); } catch { /* so much the better */ }
    image.src = "https://evil.example/x.png";
    document.body.append(image);
    let threw = 0;
    try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { threw += 1; }
    // Later, since what the browser's own tools run may do that.
    await new Promise((done) => setTimeout(() => {
      try { new Function("window.hit = 1")(); } catch { threw += 1; }
      done();
    }));
    await fetch("https://evil.example/").catch(() => { threw += 1; });
    await new Promise((resolve) => setTimeout(resolve, 300));
    return { seen, threw, hit: window.hit };
  });
  assert.equal(blocked.hit, undefined);
  assert.equal(blocked.threw, 3);
  assert.ok(blocked.seen.includes("img-src") && blocked.seen.includes("connect-src"), String(blocked.seen));
  await page.context().close();
});

await test("Markdown looks like what it says", async () => {
  const page = await open();
  const html = await page.evaluate(async () => {
    const { render } = await import("./page/markdown.js");
    const of = (text) => {
      const node = document.createElement("div");
      node.append(render(text));
      return node.innerHTML;
    };
    const link = (url, text) => `<a href="${url}" target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
    return [
      ["a **b** *c* ~~d~~ `e*f*`", "<p>a <strong>b</strong> <em>c</em> <del>d</del> <code>e*f*</code></p>"],
      ["a_b_c and 2 * 3 * 4", "<p>a_b_c and 2 * 3 * 4</p>"],
      ["**unfinished and *too", "<p>**unfinished and *too</p>"],
      ["``a ` b``", "<p><code>a ` b</code></p>"],
      ["\\*a\\*", "<p>*a*</p>"],
      ["# One\n## Two #", "<h3>One</h3><h4>Two</h4>"],
      ["#no heading", "<p>#no heading</p>"],
      ["a\nb\n\nc", "<p>a<br>b</p><p>c</p>"],
      ["- a\n- b\n  - c\n  - d\n- e", "<ul><li>a</li><li>b<ul><li>c</li><li>d</li></ul></li><li>e</li></ul>"],
      ["3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'],
      ["1. a\n\n2. b\n\nc", "<ol><li>a</li><li>b</li></ol><p>c</p>"],
      ["- [ ] a\n- [x] b", "<ul><li>☐ a</li><li>☑ b</li></ul>"],
      ["> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"],
      ["---", "<hr>"],
      ["[a](https://x.example/b_(c))", `<p>${link("https://x.example/b_(c)", "a")}</p>`],
      ["see https://x.example/a.", `<p>see ${link("https://x.example/a", "https://x.example/a")}.</p>`],
      ["[a](nowhere)", "<p>[a](nowhere)</p>"],
      ["| a | b |\n|:-:|--:|\n| `x|y` | 2 |",
        '<div class="table" tabindex="0"><table><thead><tr><th class="align-center">a</th><th class="align-end">b</th></tr></thead>' +
        '<tbody><tr><td class="align-center"><code>x|y</code></td><td class="align-end">2</td></tr></tbody></table></div>'],
      ["```rust\nfn a() {}\n```\nb",
        '<figure class="code"><figcaption><span>rust</span><button class="copy-code" type="button">Copy</button></figcaption>' +
        '<pre tabindex="0"><code>fn a() {}</code></pre></figure><p>b</p>'],
      ["```\n```` \n", '<figure class="code"><figcaption><span>text</span><button class="copy-code" type="button">Copy</button></figcaption>' +
        '<pre tabindex="0"><code></code></pre></figure>'],
      ["", ""],
    ].map(([text, expected]) => [text, of(text), expected]);
  });
  for (const [text, found, expected] of html) assert.equal(found, expected, text);
  await done(page);
});

await test("no text takes long to show", async () => {
  const page = await open();
  const slow = await page.evaluate(async () => {
    const { render } = await import("./page/markdown.js");
    const texts = ["*a ", "**", "_", "`", "``` ", "[", "[a](", "![", "](", "> ", "- ", "  - ", "1. ", "|", "| -", "\\", "https://", "#",
      "*_~`[", "a ", "(", "~~", "\n", " ", "\n> ", "\n- ", "\n|a|\n|-|", "[[a](b) ", "***a** "];
    const slow = [];
    for (const text of texts) {
      const long = text.repeat(Math.ceil(100_000 / text.length));
      const begin = performance.now();
      render(long);
      if (performance.now() - begin > 2000) slow.push([text, performance.now() - begin]);
    }
    return slow;
  });
  assert.deepEqual(slow, []);
  await done(page);
});

await test("settings are sent, and conversations are kept, exported and deleted", async () => {
  const page = await open();
  const requests = [];
  await stub(page, ["Hello **there**.\n"], { requests });
  await set(page, "system", "Be short.");
  for (const [name, value] of [["temperature", "0.5"], ["top_p", "0.9"], ["top_k", "40"], ["min_p", "0.05"], ["max_tokens", "77"], ["seed", "12"]]) {
    await set(page, name, value);
  }
  await send(page, "First question");
  await page.waitForFunction(() => document.querySelector(".message.assistant strong"));
  await send(page, "Second question");
  await page.waitForFunction(() => document.querySelectorAll(".message.assistant strong").length === 2);
  const model = await page.locator("#model-name").innerText();
  assert.deepEqual(requests[1], {
    model, temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05, max_tokens: 77, seed: 12,
    stream: true, stream_options: { include_usage: true },
    messages: [
      { role: "system", content: "Be short." },
      { role: "user", content: "First question" },
      { role: "assistant", content: "Hello **there**.\n" },
      { role: "user", content: "Second question" },
    ],
  });
  await page.locator("#new").click();
  await send(page, "Another one");
  await page.waitForFunction(() => document.querySelector(".message.assistant strong"));
  await page.reload();
  assert.equal(await page.locator("#settings-form [name=temperature]").inputValue(), "0.5");
  assert.deepEqual(await page.locator("#conversations .open").allInnerTexts(), ["Another one", "First question"]);
  await page.getByRole("button", { name: "First question", exact: true }).click();
  assert.equal(await page.locator(".message").count(), 4);
  // A message is edited: what came after it goes.
  await page.locator(".message.user").nth(1).getByRole("button", { name: "Edit" }).click();
  assert.equal(await page.locator("#input").inputValue(), "Second question");
  assert.equal(await page.locator(".message").count(), 2);
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#export-all").click()]);
  const exported = JSON.parse(readFileSync(await download.path(), "utf8"));
  assert.deepEqual(exported.conversations.map(({ title }) => title).sort(), ["Another one", "First question"]);
  assert.equal(exported.format, "tritforge-conversations");
  await page.getByRole("button", { name: "Delete First question" }).click();
  assert.deepEqual(await page.locator("#conversations .open").allInnerTexts(), ["Another one"]);
  await page.locator("#delete-all").click();
  await page.reload();
  assert.equal(await page.locator("#conversations .open").count(), 0);
  await done(page);
});

await test("what others have written to the storage does no harm", async () => {
  const page = await open();
  await page.evaluate(() => {
    localStorage.setItem("tritforge.chat.x", "{");
    localStorage.setItem("tritforge.chat.y", '{"id":"y","title":{},"updated":1,"messages":[]}');
    localStorage.setItem("tritforge.chat.z", '{"id":"z","title":"<img src=x>","updated":1,"messages":[{"role":"user","content":"<b>"}]}');
    localStorage.setItem("tritforge.settings", "[1]");
    localStorage.setItem("tritforge.theme", "pink");
  });
  await page.reload();
  assert.deepEqual(await page.locator("#conversations .open").allInnerTexts(), ["<img src=x>"]);
  await done(page);
});

await test("a key is asked for where one is needed", async () => {
  const locked = await serve("--api-key", "a-key-of-the-test");
  const page = await open({}, "/", locked.address);
  await page.waitForFunction(() => document.getElementById("notice").textContent.includes("API key"));
  await set(page, "key", "a-key-of-the-test");
  await page.waitForFunction(() => document.getElementById("model-name").textContent);
  assert.equal(await page.locator("#notice").isVisible(), false);
  await set(page, "mode", "text");
  await set(page, "max_tokens", "3");
  await send(page, "hello");
  await page.waitForFunction(() => document.querySelector(".message.assistant footer .note"));
  // It is in memory alone, unless it is to be kept.
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("a-key")), false);
  await page.locator("[name=keep-key]").check();
  await page.goto(`${locked.address}/dashboard`);
  await page.waitForFunction(() => document.getElementById("model-name").textContent);
  await page.goto(`${locked.address}/`);
  await page.locator("#settings summary").click();
  await page.locator("[name=keep-key]").uncheck();
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("a-key")), false);
  await done(page);
  locked.stop();
});

await test("it works by the keyboard, and is labelled", async () => {
  const page = await open();
  await stub(page, ["ok"]);
  // From the message field on, where the page begins.
  assert.equal(await page.evaluate(() => document.activeElement.id), "input");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".message.assistant footer button"));
  assert.equal(await page.locator(".message.user .content").innerText(), "one\ntwo");
  const unnamed = await page.evaluate(() => {
    const named = (e) => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim() || e.title;
    return Array.from(document.querySelectorAll("button, input, select, textarea, a"), (e) => [named(e), e.outerHTML])
      .filter(([name]) => !name).map(([, html]) => html);
  });
  assert.deepEqual(unnamed, []);
  const reached = new Set();
  for (let i = 0; i < 40; i += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent));
  }
  for (const id of ["new", "theme", "log", "send", "Dashboard", "Settings", "Regenerate", "export-all"]) {
    assert.ok(reached.has(id), `${id} is not reached: ${[...reached]}`);
  }
  await done(page);
});

const SAMPLE = `## Ternary weights

A **BitNet b1.58** layer has weights in {-1, 0, 1}. See [the paper](https://arxiv.org/abs/2402.17764).

1. Scale by the mean of \`|W|\`
2. Round and clip:
   - to -1, 0 or 1
   - the scale stays a float

\`\`\`rust
fn quantize(w: f32, scale: f32) -> i8 {
    (w / scale).round().clamp(-1.0, 1.0) as i8 // <b>not bold</b>
}
\`\`\`

| packing | bits |
|---|--:|
| TQ1_0 | 1.69 |
| TQ2_0 | 2.06 |

> Additions take the place of multiplications.
`;

for (const [name, options] of [
  ["light", { colorScheme: "light", viewport: { width: 1200, height: 850 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1200, height: 850 } }],
  ["phone", { colorScheme: "light", viewport: { width: 375, height: 700 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 }],
]) {
  await test(`it fits: ${name}`, async () => {
    const page = await open(options);
    await stub(page, SAMPLE.match(/.{1,7}/gs));
    await send(page, "What are ternary weights?");
    await page.waitForFunction(() => document.querySelector(".message.assistant table") && !document.querySelector(".running"));
    await page.locator("#log").evaluate((log) => { log.scrollTop = 0; });
    await page.waitForTimeout(300);
    await shot(page, `chat-${name}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} px too wide`);
    await page.locator("#settings summary").click();
    await shot(page, `settings-${name}`);
    assert.ok(await page.locator("#send").evaluate((e) => e.getBoundingClientRect().bottom <= innerHeight), "the composer is cut off");
    await page.locator("#settings summary").click();
    if (name === "phone") {
      assert.equal(await page.locator("#new").isVisible(), false);
      await page.locator("#menu").click();
      await page.locator("#new").waitFor({ state: "visible" });
      await shot(page, "drawer-phone");
      await page.keyboard.press("Escape");
      assert.equal(await page.locator("#new").isVisible(), false);
    }
    const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const before = await back();
    // To the other scheme and back to the system's.
    const themes = [];
    for (let i = 0; i < 3; i += 1) {
      await page.locator("#theme").click();
      themes.push(await back());
    }
    assert.equal(new Set(themes).size, 2);
    assert.equal(themes[2], before);
    await done(page);
  });
}

for (const [name, options] of [
  ["light", { colorScheme: "light", viewport: { width: 1300, height: 950 } }],
  ["dark", { colorScheme: "dark", viewport: { width: 1300, height: 950 } }],
  ["phone", { colorScheme: "dark", viewport: { width: 375, height: 700 }, isMobile: true }],
]) {
  await test(`the dashboard shows what goes on: ${name}`, async () => {
    const page = await open(options, "/dashboard");
    const ask = () => fetch(`${service.address}/v1/completions`, {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "fn main() { let x = 1; }", max_tokens: 60, ignore_eos: true }),
    }).then((response) => response.text());
    let more = true;
    const load = (async () => { while (more) await ask(); })();
    try {
      await page.waitForFunction(() => {
        const value = document.querySelector(".chart output").textContent;
        return value.endsWith("/s") && Number.parseFloat(value) > 0;
      }, undefined, { timeout: 20_000 });
      await page.locator("#range").selectOption("2");
      await page.waitForTimeout(name === "phone" ? 2500 : 9000);
    } finally {
      more = false;
      await load;
    }
    const charts = await page.locator(".chart:not([hidden]) svg").evaluateAll((all) => all.map((svg) => ({
      label: svg.getAttribute("aria-label"),
      drawn: Array.from(svg.querySelectorAll(".line"), (line) => line.getAttribute("d").length > 0),
    })));
    assert.equal(charts.length, 8);
    for (const { label, drawn } of charts) {
      if (!label.startsWith("Cache hits")) assert.ok(drawn.every(Boolean), label);
    }
    assert.match(charts[0].label, /generated [\d.]+\/s/);
    assert.equal(await page.locator("#error").isVisible(), false);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} px too wide`);
    await shot(page, `dashboard-${name}`);
    // What the service has kept.
    await page.locator("#range").selectOption("60-past");
    await page.waitForFunction(() => document.getElementById("source").textContent.includes("every 1 s"));
    const past = await page.locator(".chart:not([hidden])").evaluateAll((all) =>
      all.map((chart) => [chart.querySelector("h2").textContent, chart.querySelector(".line").getAttribute("d").length > 0]));
    assert.ok(past.length >= 11, String(past));
    for (const title of ["Tokens per second", "Memory of the process", "Power", "Energy per token"]) {
      assert.ok(past.some(([found, drawn]) => found === title && drawn), `${title}: ${past}`);
    }
    await shot(page, `history-${name}`);
    await done(page);
  });
}

await test("readings of Prometheus' format are those of its definition", async () => {
  const page = await open({}, "/dashboard");
  const found = await page.evaluate(async () => {
    const { increase, parse, quantile, sum } = await import("./page/prometheus.js");
    const { ceiling } = await import("./page/chart.js");
    const at = (counts, total) => parse([
      "# HELP h x", "# TYPE h histogram",
      ...["0.1", "0.2", "0.4", "+Inf"].map((le, i) => `h_bucket{model="a \\"b\\" {c}",le="${le}"} ${counts[i]}`),
      `h_count{model="m"} ${counts[3]}`, `n{code="200"} ${total}`, `n{code="500"} 1`,
    ].join("\n"));
    const [before, now] = [at([1, 1, 1, 1], 5), at([1, 11, 21, 21], 9)];
    return [
      sum(now, "n"), sum(now, "n", ({ code }) => code === "200"), increase(before, now, "n"), increase(now, before, "n"),
      quantile(before, now, "h", 0.5), quantile(before, now, "h", 0.75), quantile(now, now, "h", 0.5),
      quantile(before, now, "absent", 0.5), quantile(at([0, 0, 0, 0], 0), at([0, 0, 0, 4], 0), "h", 0.5),
      ceiling(0), ceiling(0.3), ceiling(1), ceiling(101),
    ].map((value) => (typeof value === "number" ? Number(value.toFixed(9)) : value));
  });
  assert.deepEqual(found, [10, 9, 4, 6, 0.2, 0.3, null, null, 0.4, 1, 0.5, 1, 200]);
  await done(page);
});

await browser.close();
service.stop();
cleanUp();
console.log(failures === 0 ? "all passed" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);

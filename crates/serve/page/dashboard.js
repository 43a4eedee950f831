// The dashboard: the service's own metrics, read every two seconds as long as the page is visible, or the history that it
// keeps of itself.

import { ApiError, json, key, request } from "./api.js";
import { chart } from "./chart.js";
import { increase, parse, quantile, sum } from "./prometheus.js";

const $ = (id) => document.getElementById(id);
const PERIOD = 2000;
/** What the page itself asks for is not shown. */
const OWN = new Set(["/", "/dashboard", "/page/{file}", "/metrics", "/health", "/ready", "/v1/stats"]);

const number = (value) => (value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2));
const rate = (value) => `${number(value)}/s`;
const percent = (value) => `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
function duration(value) {
  if (value >= 10) return `${value.toFixed(0)} s`;
  return value >= 1 ? `${value.toFixed(1)} s` : `${number(value * 1000)} ms`;
}
function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(value) / 10)) : 0;
  return `${number(value / 1024 ** step)} ${units[step]}`;
}

const served = (first) => (labels) => !OWN.has(labels.endpoint) && labels.code.startsWith(first);
function share(before, now, part, whole) {
  const all = increase(before, now, whole);
  return all > 0 ? increase(before, now, part) / all : null;
}
const quantiles = (name) => (before, now) => [0.5, 0.95].map((q) => quantile(before, now, name, q));

/**
 * Each chart with what it shows: `of` two readings, the second `seconds` after the first, and of the `past`, fields of the
 * service's snapshots.
 */
const CHARTS = [
  {
    title: "Tokens per second", series: ["generated", "prompts"], format: rate,
    past: ["tokens_per_second", "prompt_tokens_per_second"],
    of: (before, now, seconds) =>
      ["tritforge_generation_tokens_total", "tritforge_prompt_tokens_total"].map(
        (name) => increase(before, now, name) / seconds,
      ),
  },
  {
    title: "Requests", series: ["running", "waiting"], format: number, past: ["running", "waiting"],
    of: (_, now) => ["tritforge_requests_running", "tritforge_requests_waiting"].map((name) => sum(now, name)),
  },
  {
    title: "Answers per second", series: ["2xx", "4xx", "5xx"], format: rate,
    of: (before, now, seconds) =>
      ["2", "4", "5"].map((code) => increase(before, now, "tritforge_http_requests_total", served(code)) / seconds),
  },
  {
    title: "Time to first token", series: ["median", "95 %"], format: duration,
    past: ["first_token_p50", "first_token_p95"],
    of: quantiles("tritforge_time_to_first_token_seconds"),
  },
  {
    title: "Time between tokens", series: ["median", "95 %"], format: duration,
    of: quantiles("tritforge_inter_token_latency_seconds"),
  },
  {
    title: "Duration of requests", series: ["median", "95 %"], format: duration,
    past: ["latency_p50", "latency_p95"],
    of: quantiles("tritforge_request_duration_seconds"),
  },
  {
    title: "Memory for keys and values", series: ["in use"], format: percent, top: 1, past: ["kv_usage"],
    of: (_, now) => [sum(now, "tritforge_kv_cache_usage_ratio")],
  },
  {
    title: "Cache hits", series: ["prefix, tokens", "responses"], format: percent, top: 1,
    past: ["prefix_hit_rate", "response_hit_rate"],
    of: (before, now) => [
      share(before, now, "tritforge_prefix_cache_hit_tokens_total", "tritforge_prefix_cache_query_tokens_total"),
      share(before, now, "tritforge_response_cache_hits_total", "tritforge_response_cache_queries_total"),
    ],
  },
  {
    title: "Proposed tokens that came", series: ["look-up", "draft"], format: percent, top: 1,
    past: ["lookup_acceptance", "draft_acceptance"],
    of: (before, now) => [
      share(before, now, "tritforge_lookup_accepted_tokens_total", "tritforge_lookup_proposed_tokens_total"),
      share(before, now, "tritforge_draft_accepted_tokens_total", "tritforge_draft_proposed_tokens_total"),
    ],
  },
  { title: "All answers per second", series: ["answers"], format: rate, past: ["requests_per_second"] },
  { title: "Failed answers", series: ["share"], format: percent, top: 1, past: ["error_rate"] },
  { title: "Processors in use", series: ["percent of one"], format: number, past: ["cpu_percent"] },
  { title: "Memory of the process", series: ["resident"], format: bytes, past: ["memory_bytes"] },
  { title: "Power", series: ["watts"], format: number, past: ["watts"] },
  { title: "Energy per token", series: ["joules"], format: number, past: ["joules_per_token"] },
].map((spec) => ({ ...spec, ...chart(spec), points: [] }));

/** What there is in all. */
const TOTALS = [
  ["Answers", (now) => number(sum(now, "tritforge_http_requests_total", served("")))],
  ["Tokens generated", (now) => sum(now, "tritforge_generation_tokens_total").toLocaleString()],
  ["Tokens of prompts", (now) => sum(now, "tritforge_prompt_tokens_total").toLocaleString()],
  ["Keys and values", (now) => bytes(sum(now, "tritforge_kv_cache_bytes"))],
  ["Response cache", (now) => bytes(sum(now, "tritforge_response_cache_bytes"))],
  ["Adapters", (now) => number(sum(now, "tritforge_lora_adapters_loaded"))],
].map(([name, of]) => {
  const item = document.createElement("div");
  const [term, value] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  value.textContent = "–";
  item.append(term, value);
  return { node: item, show: (now) => { value.textContent = of(now); } };
});

$("totals").append(...TOTALS.map(({ node }) => node));
$("charts").append(...CHARTS.map(({ node }) => node));
for (const { node, of } of CHARTS) node.hidden = !of;

let last = null;
/** Minutes that are shown, of the live readings or of the history. */
const minutes = () => Number.parseInt($("range").value, 10);
const isPast = () => $("range").value.endsWith("past");

function draw() {
  for (const { node, of, past } of CHARTS) node.hidden = isPast() ? !past : !of;
  $("source").textContent = "";
  if (isPast()) return readPast();
  const to = last?.time ?? Date.now();
  for (const { of, points, draw } of CHARTS) if (of) draw(points, to - minutes() * 60_000, to);
  return undefined;
}

/** Shows the service's own snapshots. */
async function readPast() {
  const stats = await json(`v1/stats?hours=${minutes() / 60}`);
  if (!isPast()) return;
  const to = Date.now();
  for (const { past, draw } of CHARTS) {
    if (!past) continue;
    const points = stats.snapshots.map((snapshot) => ({ time: snapshot.time * 1000, values: past.map((name) => snapshot[name]) }));
    draw(points, to - minutes() * 60_000, to);
  }
  const energy = { measured: "Energy is measured by the processor.", estimate: "Power and energy are estimates from --watts." };
  const alerts = stats.alerts.map(({ name, severity }) => `${severity}: ${name}`);
  $("source").textContent = [
    `A snapshot every ${stats.interval_seconds} s.`, energy[stats.energy] ?? "", alerts.length ? `Alerts: ${alerts.join(", ")}.` : "",
  ].filter(Boolean).join(" ");
}

function report(error) {
  const asks = error instanceof ApiError && (error.status === 401 || error.status === 403);
  const text = asks ? `${error.message}: enter a key that may read the metrics.` : error.message;
  if ($("error").textContent !== text) $("error").textContent = text;
  $("error").hidden = false;
  if (asks) $("key-form").hidden = false;
}

async function read() {
  const text = await (await request("metrics")).text();
  const reading = { time: Date.now(), samples: parse(text) };
  const model = reading.samples.values().next().value?.[0]?.labels.model_name;
  if (model) $("model-name").textContent = model;
  for (const { show } of TOTALS) show(reading.samples);
  if (last) {
    const seconds = (reading.time - last.time) / 1000;
    for (const { of, points } of CHARTS) {
      if (!of) continue;
      points.push({ time: reading.time, values: of(last.samples, reading.samples, seconds) });
      if (points.length > 3600_000 / PERIOD) points.shift();
    }
  }
  last = reading;
}

let busy = false;
async function tick() {
  if (document.hidden || busy) return;
  busy = true;
  try {
    await read();
    await draw();
    $("error").hidden = true;
    $("error").textContent = "";
  } catch (error) {
    report(error);
    last = null;
  }
  busy = false;
}

$("key-form").hidden = !key.value;
$("key").value = key.value;
$("keep-key").checked = key.kept;
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value, $("keep-key").checked);
  tick();
});
$("range").addEventListener("change", () => Promise.resolve(draw()).catch(report));
document.addEventListener("visibilitychange", tick);
setInterval(tick, PERIOD);
tick();

// The dashboard: the service's own metrics, read every two seconds as long as the page is visible.

import { ApiError, key, request } from "./api.js";
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

/** Each chart with what it shows of two readings, the second `seconds` after the first. */
const CHARTS = [
  {
    title: "Tokens per second", series: ["generated", "prompts"], format: rate,
    of: (before, now, seconds) =>
      ["tritforge_generation_tokens_total", "tritforge_prompt_tokens_total"].map(
        (name) => increase(before, now, name) / seconds,
      ),
  },
  {
    title: "Requests", series: ["running", "waiting"], format: number,
    of: (_, now) => ["tritforge_requests_running", "tritforge_requests_waiting"].map((name) => sum(now, name)),
  },
  {
    title: "Answers per second", series: ["2xx", "4xx", "5xx"], format: rate,
    of: (before, now, seconds) =>
      ["2", "4", "5"].map((code) => increase(before, now, "tritforge_http_requests_total", served(code)) / seconds),
  },
  {
    title: "Time to first token", series: ["median", "95 %"], format: duration,
    of: quantiles("tritforge_time_to_first_token_seconds"),
  },
  {
    title: "Time between tokens", series: ["median", "95 %"], format: duration,
    of: quantiles("tritforge_inter_token_latency_seconds"),
  },
  {
    title: "Duration of requests", series: ["median", "95 %"], format: duration,
    of: quantiles("tritforge_request_duration_seconds"),
  },
  {
    title: "Memory for keys and values", series: ["in use"], format: percent, top: 1,
    of: (_, now) => [sum(now, "tritforge_kv_cache_usage_ratio")],
  },
  {
    title: "Cache hits", series: ["prefix, tokens", "responses"], format: percent, top: 1,
    of: (before, now) => [
      share(before, now, "tritforge_prefix_cache_hit_tokens_total", "tritforge_prefix_cache_query_tokens_total"),
      share(before, now, "tritforge_response_cache_hits_total", "tritforge_response_cache_queries_total"),
    ],
  },
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

let last = null;
const range = () => Number($("range").value) * 60_000;

function draw() {
  const to = last?.time ?? Date.now();
  for (const { points, draw } of CHARTS) draw(points, to - range(), to);
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
    $("error").hidden = true;
    $("error").textContent = "";
  } catch (error) {
    const asks = error instanceof ApiError && (error.status === 401 || error.status === 403);
    const text = asks ? `${error.message}: enter a key that may read the metrics.` : error.message;
    if ($("error").textContent !== text) $("error").textContent = text;
    $("error").hidden = false;
    if (asks) $("key-form").hidden = false;
    last = null;
  }
  busy = false;
  draw();
}

$("key-form").hidden = !key.value;
$("key").value = key.value;
$("keep-key").checked = key.kept;
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value, $("keep-key").checked);
  tick();
});
$("range").addEventListener("change", draw);
document.addEventListener("visibilitychange", tick);
setInterval(tick, PERIOD);
tick();

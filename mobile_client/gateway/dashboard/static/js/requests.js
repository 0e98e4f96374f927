// The list of the last requests: read from the ledger, continued by the stream, filtered.

import { call } from "./api.js";
import { on } from "./bus.js";
import { byId, el, options, replace } from "./dom.js";
import { counted, number, percent, timeOfDay, words } from "./format.js";
import { openRecord } from "./record.js";
import { maySeeAll } from "./state.js";

const SHOWN = 100;
const REDRAW_MS = 1_000;
const SINCE = [
  ["10m", "last 10 minutes"],
  ["1h", "last hour"],
  ["24h", "last 24 hours"],
];
const REASONS = ["route", "escalate", "fail_over", "retry", "hedge"];

let rows = [];
let selects = {};
let loading = 0;
let changed = false;
let filled = false;

/** Set up the list. */
export function start() {
  buildFilters();
  on("state", (state) => {
    if (!maySeeAll()) return;
    if (filled) return;
    filled = true;
    selects.policy.append(...options((state.policies ?? []).map((name) => [name, name])));
    load();
  });
  on("signed-out", () => {
    filled = false;
    rows = [];
    draw();
  });
  on("stream", ({ status }) => {
    if (status === "live" && filled) load(); // requests that ended while the stream was lost
  });
  on("request", (request) => {
    if (!matches(request)) return;
    rows = merge([{ ...request, streamed: true }], rows);
    changed = true;
  });
  setInterval(() => {
    if (changed) draw();
  }, REDRAW_MS);
}

function buildFilters() {
  const choices = {
    since: ["Time", SINCE],
    policy: ["Policy", [["", "all"]]],
    tier: ["Tier", [["", "all"], ...["mobile", "edge", "cloud"].map((name) => [name, name])]],
    reason: ["Reason", [["", "all"], ...REASONS.map((name) => [name, words(name)])]],
  };
  const fields = Object.entries(choices).map(([name, [label, pairs]]) => {
    const id = `filter-${name}`;
    selects[name] = el("select", { id, class: "input" }, options(pairs));
    selects[name].addEventListener("change", load);
    return el("div", { class: "field" }, el("label", { for: id }, label), selects[name]);
  });
  replace(byId("request-filters"), fields);
  byId("request-filters").addEventListener("submit", (event) => event.preventDefault());
}

async function load() {
  const turn = (loading += 1);
  const query = new URLSearchParams({ limit: String(SHOWN) });
  for (const [name, select] of Object.entries(selects)) if (select.value) query.set(name, select.value);
  let problem = null;
  let found = [];
  try {
    const answer = await call(`/dashboard/api/requests?${query}`);
    [found, problem] = [answer.requests, answer.problem];
  } catch (error) {
    problem = error.message;
  }
  if (turn !== loading) return;
  // what has just ended may not be in the ledger yet
  const streamed = rows.filter((row) => row.streamed && matches(row));
  rows = merge(found, streamed);
  byId("request-problem").textContent = problem ? `The ledger cannot be read: ${problem}` : "";
  byId("request-problem").hidden = !problem;
  draw();
}

function matches(request) {
  return ["policy", "tier", "reason"].every(
    (name) => !selects[name].value || request[name] === selects[name].value,
  );
}

function merge(first, second) {
  const known = new Map();
  for (const row of [...second, ...first]) known.set(row.request_id, row);
  return [...known.values()].sort((one, other) => other.at - one.at).slice(0, SHOWN);
}

function draw() {
  changed = false;
  const focused = document.activeElement?.dataset?.request;
  replace(byId("request-rows"), rows.map(row));
  if (focused) {
    byId("request-rows").querySelector(`[data-request="${CSS.escape(focused)}"]`)?.focus();
  }
  byId("request-table").hidden = rows.length === 0;
  byId("no-requests").hidden = rows.length > 0;
  byId("no-requests").textContent = "No request matches. Classify a text above, or choose other filters.";
  byId("request-count").textContent = rows.length === 0 ? "" : `${counted(rows.length, "request")}, newest first`;
}

function row(request) {
  const shown = request.request_id.slice(-8); // ids begin with the time, which neighbours share
  const open = el(
    "button",
    { type: "button", class: "link-button id", "data-request": request.request_id },
    shown,
  );
  open.setAttribute("aria-label", `Record of request ${shown}`);
  open.addEventListener("click", () => openRecord(request.request_id));
  // an answered request may have an error too, such as offline
  const answered = request.state === "answered";
  const problem = request.error ?? (answered ? null : request.state);
  const result = [answered ? request.label : null, problem && words(problem)].filter(Boolean).join(", ");
  return el(
    "tr",
    {},
    el("td", {}, timeOfDay(request.at)),
    el("td", { class: answered ? "" : "error" }, result),
    el("td", { class: "number less" }, percent(request.confidence)),
    el(
      "td",
      {},
      request.tier ? el("span", { class: `tier ${request.tier}` }, request.tier) : "–",
      request.exit_layer ? `, ${request.exit_layer}` : "",
    ),
    el("td", { class: "extra" }, words(request.reason)),
    el("td", { class: "extra" }, request.policy ?? "–"),
    el("td", { class: "number extra" }, number(request.attempts)),
    el("td", { class: "number" }, number(request.total_ms, 1)),
    el("td", { class: "number less" }, number(request.cost_lambda, 2)),
    el("td", {}, open),
  );
}

// Policy, mode and prices in force, and what today's requests would have cost at others.

import { call } from "./api.js";
import { divided } from "./bars.js";
import { on } from "./bus.js";
import { term } from "./definitions.js";
import { byId, el, options, replace } from "./dom.js";
import { counted, lambda, ms, number, percent } from "./format.js";
import { maySeeAll } from "./state.js";

const PAUSE_MS = 400;
const COUNT = 200;
const TIERS = ["mobile", "edge", "cloud"];
const LINKS = ["lan", "wifi", "5g", "4g", "3g", "satellite"];
const LABELS = {
  book: "Price book",
  layers: "Layers of the encoder",
  all_cloud_lambda: "All-cloud, a request",
  edge_usd_per_hour: "Edge, an hour",
  cloud_usd_per_hour: "Cloud, an hour",
  network_usd_per_gb: "Network, a gigabyte",
  mobile_compute_mw: "Mobile, power while computing",
  mobile_radio_nj_per_byte: "Mobile, radio energy a byte",
  gamma: "Cloud fee γ",
  mobile_layer: "Layer on the mobile λm",
  edge_layer: "Layer on the edge λe",
  offload_edge: "Offload to the edge oe",
  offload_cloud: "Offload to the cloud oc",
  latency_price_lambda: "Price of waiting a millisecond",
};

const UNITS = [
  ["usd", "USD"],
  ["_mw", "mW"],
  ["_nj", "nJ"],
];

let timer = null;
let running = null;
let gamma = null;

/** Set up the prices in force and the sliders. */
export function start() {
  byId("what-if").querySelector("label").after(term("γ", "What is γ?"));
  replace(
    byId("what-if-link"),
    options([["", "as measured"], ...LINKS.map((name) => [name, name])]),
  );
  byId("what-if").addEventListener("submit", (event) => event.preventDefault());
  byId("gamma").addEventListener("input", () => {
    showGamma();
    later();
  });
  byId("what-if-link").addEventListener("change", later);
  on("state", showState);
  replace(byId("what-if-result"), el("p", { class: "empty" }, "Move a slider to compare."));
}

function showState(state) {
  if (!state.prices) return;
  const prices = state.prices;
  replace(byId("in-force"), [
    fact("Policy", state.policy),
    fact("Mode", state.mode ?? "auto"),
    fact("Deadline", ms(state.deadline_ms)),
    Number.isFinite(state.alpha)
      ? [el("dt", {}, term("α", "Exit threshold α")), el("dd", {}, percent(state.alpha))]
      : null,
    ...Object.entries(prices).filter(([name]) => name !== "cloud_fee").map(([name, value]) => fact(LABELS[name] ?? name.replaceAll("_", " "), price(name, value))),
    fact("Certificate", state.certificate_id ?? "none"),
  ]);
  if (gamma === null && Number.isFinite(prices.gamma)) {
    gamma = prices.gamma;
    const slider = byId("gamma");
    slider.max = String(Math.max(30, Math.ceil(2 * gamma)));
    slider.value = String(gamma);
    showGamma();
    later();
  }
}

function fact(name, value) {
  return [el("dt", {}, name), el("dd", {}, value ?? "–")];
}

function price(name, value) {
  if (typeof value !== "number") return value === null ? "–" : String(value);
  if (name === "layers") return number(value);
  const unit = UNITS.find(([part]) => name.includes(part))?.[1] ?? "λ";
  return `${number(value, name.startsWith("latency") ? 4 : 2)} ${unit}`;
}

function showGamma() {
  const text = `${number(Number(byId("gamma").value), 1)} λ`;
  byId("gamma-value").textContent = text;
  byId("gamma").setAttribute("aria-valuetext", text);
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(compare, PAUSE_MS);
}

async function compare() {
  if (!maySeeAll()) return;
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  byId("what-if-result").setAttribute("aria-busy", "true");
  let view;
  try {
    const body = { gamma: Number(byId("gamma").value), link: byId("what-if-link").value || null, count: COUNT };
    view = resultView(await call("/dashboard/api/whatif", { method: "POST", body, signal }));
  } catch (error) {
    if (error.name === "AbortError") return;
    view = el("p", { class: "error" }, error.message);
  }
  byId("what-if-result").removeAttribute("aria-busy");
  replace(byId("what-if-result"), view);
}

function resultView({ rows, requests, notes }) {
  const remarks = notes.map((note) => el("p", { class: "muted small" }, note));
  if (rows.length === 0) {
    return [el("p", { class: "empty" }, "No request of today can be compared yet. Classify some texts first."), ...remarks];
  }
  const columns = rows.slice(0, 2);
  const line = (name, read, fill) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, fill ? el("span", { class: `swatch fill-${fill}` }) : null, name),
      ...columns.map((one) => el("td", { class: "number" }, read(one))),
    );
  return [
    el("p", { class: "muted small" }, `Means of ${counted(requests, "request")}, decided again by the policy.`),
    el(
      "table",
      { id: "what-if-table" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          el("th", { scope: "col" }, "A request"),
          ...columns.map((one, index) =>
            el("th", { scope: "col", class: "number" }, `${index === 0 ? "in force" : "then"}, γ ${number(one.gamma, 1)} λ`),
          ),
        ),
      ),
      el(
        "tbody",
        {},
        line("Cost", (one) => lambda(one.cost_lambda)),
        line("All-cloud", (one) => lambda(one.all_cloud_lambda)),
        line("Saved", (one) => percent(one.saving)),
        line("Latency", (one) => ms(one.total_ms)),
        ...TIERS.map((tier) => line(`${tier} answers`, (one) => percent(one.shares?.[tier]), tier)),
      ),
    ),
    ...columns.map((one, index) =>
      el(
        "div",
        {},
        el("p", { class: "small muted" }, `Answers by tier ${index === 0 ? "in force" : "then"}`),
        divided(
          TIERS.map((tier) => [tier, one.shares?.[tier]]),
          1,
        ),
      ),
    ),
    ...remarks,
  ];
}

// The live figures as tiles, the alarms, and the table of the tiers.

import { announce } from "../shared/announce.js";
import { emit, on } from "./bus.js";
import { term } from "./definitions.js";
import { byId, el, replace } from "./dom.js";
import { counted, duration, lambda, ms, number, percent, timeOfDay, title, usd, words } from "./format.js";
import { isDown, readiness } from "./journey.js";

const TILES = [
  ["Requests a second", (stats) => `${number(stats.requests_per_s, 1)}/s`],
  ["Answered", (stats) => number(stats.answered), "in 60 s"],
  ["Failed", (stats) => number(stats.failed), "in 60 s"],
  ["In flight", (stats) => number(stats.in_flight), "now"],
  ["Queue", (stats) => number(stats.queue), "requests", "queue"],
  ["Latency p50", (stats) => ms(stats.total_ms?.p50)],
  ["Latency p95", (stats) => ms(stats.total_ms?.p95)],
  ["Cost of a request", (stats) => lambda(perRequest(stats, stats.cost_lambda)), null, "λ"],
  ["Saved", (stats) => percent(saving(stats)), "of all-cloud", "all-cloud"],
  ["Money", (stats) => usd(stats.cost_usd), "in 60 s"],
  ["Outbox", (stats) => counted(stats.outbox_rows, "entry").replace("entrys", "entries"), null, "outbox"],
  ["Oldest entry", (stats) => duration(stats.outbox_rows ? stats.outbox_age_s : null)],
];

const values = [];
let layers = [];
let tiers = {};
let alarms = [];

/** Set up tiles, alarms and the table of tiers. */
export function start() {
  replace(byId("tiles"), TILES.map(tile));
  on("stats", (stats) => {
    TILES.forEach(([, read], index) => {
      values[index].textContent = read(stats);
    });
    showTiers(stats.tiers ?? {});
    showAlarms(stats.alarms ?? []);
  });
  on("state", (state) => {
    if (!state.tiers) return;
    layers = state.tiers;
    showTiers(Object.fromEntries(state.tiers.map((facts) => [facts.tier, facts])));
    showAlarms(state.alarms ?? []);
  });
}

function tile([name, , unit, word], index) {
  values[index] = el("span", {}, "–");
  return el(
    "div",
    { class: "tile" },
    el("dt", {}, word ? term(word, name) : name),
    el("dd", {}, values[index], unit ? el("small", {}, ` ${unit}`) : null),
  );
}

/** Return the mean over the requests that ended in the last minute; null without any. */
export function perRequest(stats, sum) {
  const ended = stats.answered + stats.failed;
  return ended > 0 ? sum / ended : null;
}

function saving(stats) {
  return stats.all_cloud_lambda ? 1 - stats.cost_lambda / stats.all_cloud_lambda : null;
}

function showTiers(next) {
  const changed = Object.entries(next).filter(([tier, facts]) => {
    const before = tiers[tier];
    return before && (before.ready !== facts.ready || before.breaker !== facts.breaker);
  });
  const first = Object.keys(tiers).length === 0;
  tiers = { ...tiers, ...next };
  for (const [tier, facts] of changed) {
    const breaker = facts.breaker ? `, circuit breaker ${facts.breaker}` : "";
    const sentence = `${title(tier)} is ${facts.ready}${breaker}.`;
    emit("happened", { sentence, bad: isDown(facts) });
    announce(sentence);
  }
  if (changed.length > 0) emit("tiers-changed");
  if (first || changed.length > 0 || byId("tier-rows").children.length !== layers.length) {
    replace(byId("tier-rows"), layers.map(tierRow));
  }
}

function tierRow({ tier, first_layer: low, last_layer: high }) {
  const facts = tiers[tier] ?? {};
  const ready = isDown({ breaker: null, ...facts, breaker: null }) ? "bad" : facts.ready === "ready" ? "good" : "";
  const breaker = { closed: "good", open: "bad", "half-open": "warning" }[facts.breaker];
  return el(
    "tr",
    { "data-tier": tier },
    el("th", { scope: "row" }, el("span", { class: `tier ${tier}` }, title(tier))),
    el("td", {}, low === high ? `${high}` : `${low} to ${high}`),
    el("td", {}, el("span", { class: `badge ${ready}` }, readiness({ ...facts, breaker: null }) ?? "unknown")),
    el("td", {}, facts.breaker ? el("span", { class: `badge ${breaker ?? ""}` }, facts.breaker) : "–"),
  );
}

function showAlarms(next) {
  const key = (alarm) => `${alarm.kind} ${alarm.since}`;
  for (const alarm of next.filter((one) => !alarms.some((old) => key(old) === key(one)))) {
    emit("happened", { sentence: `Alarm: ${alarm.message}`, bad: true });
    announce(`Alarm: ${alarm.message}`);
  }
  if (next.length === 0 && byId("alarms").children.length > 0 && alarms.length === 0) return;
  alarms = next;
  replace(
    byId("alarms"),
    next.length === 0
      ? el("p", { class: "small muted" }, "No alarm is raised.")
      : next.map((alarm) =>
          el(
            "div",
            { class: "banner bad" },
            el("b", {}, `Alarm: ${words(alarm.kind).replaceAll("-", " ")}`),
            el("span", {}, alarm.message),
            el("span", { class: "small" }, `since ${timeOfDay(alarm.since)}`),
            alarm.degrades ? el("span", { class: "small" }, "all requests go to the cloud") : null,
          ),
        ),
  );
}

// The attempts of a request as a list: exits, times, bytes and cost of each.

import { bar, divided } from "./bars.js";
import { el } from "./dom.js";
import { bytes, lambda, ms, percent, points, title, words } from "./format.js";
import { hasAnswer } from "./journey.js";

const TIMES = [
  ["queue", "queue_ms"],
  ["compute", "compute_ms"],
  ["network", "network_ms"],
];
const REASONS = {
  route: "chosen first by the policy",
  escalate: "asked because the confidence was too low",
  fail_over: "asked because another tier failed",
  retry: "asked again",
  hedge: "asked because another tier was late",
  audit: "asked later, to compare the answers",
};

/** Return a list item for each attempt; `alpha` is the exit threshold. */
export function stepItems(attempts, alpha) {
  return attempts.map((attempt, index) =>
    el(
      "li",
      { class: `step ${attempt.tier}` },
      head(attempt, index),
      exits(attempt, alpha),
      times(attempt),
      costs(attempt),
      escalations(attempt),
    ),
  );
}

/** Return what happened to an attempt, in one sentence. */
export function sentence(attempt) {
  if (!hasAnswer(attempt)) return `no answer: ${words(attempt.error_code ?? attempt.state)}`;
  const resumed = attempt.resumed_after ? `, resumed after layer ${attempt.resumed_after}` : "";
  return `${attempt.label ?? "answer"} at exit ${attempt.exit_layer}${resumed}`;
}

function head(attempt, index) {
  return el(
    "div",
    { class: "step-head wide" },
    el("span", { class: `tier ${attempt.tier}` }, `${index + 1}. ${title(attempt.tier)}`),
    el("span", { class: "muted small" }, REASONS[attempt.reason] ?? words(attempt.reason)),
    el("span", { class: hasAnswer(attempt) ? "" : "error" }, sentence(attempt)),
    attempt.verdict ? el("span", { class: "muted" }, attempt.verdict) : null,
  );
}

function exits(attempt, alpha) {
  const computed = attempt.exits ?? [];
  const threshold = attempt.tier === "cloud" ? null : alpha;
  if (computed.length === 0) {
    return el("p", { class: "muted small" }, "No exit gave a confidence.");
  }
  return el(
    "div",
    {},
    el(
      "h4",
      { class: "step-title" },
      "Confidence",
      threshold ? el("span", { class: "muted" }, ` (mark: α ${percent(threshold)})`) : null,
    ),
    el(
      "div",
      { class: "bars" },
      computed.flatMap(({ layer, confidence }) => [
        el("span", {}, `exit ${layer}`),
        bar(confidence, { fill: attempt.tier, mark: threshold }),
        el("span", { class: "value" }, percent(confidence)),
      ]),
    ),
  );
}

function times(attempt) {
  const total = TIMES.reduce((sum, [, key]) => sum + (attempt[key] ?? 0), 0);
  return el(
    "div",
    {},
    el("h4", { class: "step-title" }, `Time: ${ms(attempt.round_trip_ms ?? (total || null))}`),
    divided(
      TIMES.map(([fill, key]) => [fill, attempt[key]]),
      total,
    ),
    el(
      "dl",
      { class: "pairs small" },
      TIMES.flatMap(([fill, key]) => [
        el("dt", {}, el("span", { class: `swatch fill-${fill}` }), fill),
        el("dd", {}, ms(attempt[key])),
      ]),
    ),
  );
}

function costs(attempt) {
  return el(
    "div",
    {},
    el("h4", { class: "step-title" }, `Cost: ${lambda(attempt.cost_lambda)}`),
    el(
      "dl",
      { class: "pairs small" },
      el("dt", {}, "sent"),
      el("dd", {}, bytes(attempt.sent_bytes)),
      el("dt", {}, "received"),
      el("dd", {}, bytes(attempt.received_bytes)),
      attempt.right === null || attempt.right === undefined
        ? null
        : [el("dt", {}, "right with probability"), el("dd", {}, percent(attempt.right))],
    ),
  );
}

function escalations(attempt) {
  const choices = attempt.options ?? [];
  if (choices.length === 0) return null;
  return el(
    "ul",
    { class: "wide small plain-list" },
    choices.map((option) => {
      const better = option.gain > option.cost;
      const waiting = option.waiting_lambda ? ` and ${lambda(option.waiting_lambda)} of waiting` : "";
      return el(
        "li",
        {},
        `Escalating to the ${option.tier}: gain ${points(option.gain)}; cost ` +
          `${lambda(option.cost_lambda)}${waiting}, which counts as ${points(option.cost, "")}: `,
        el("b", {}, better ? "gain exceeds cost" : "cost exceeds gain"),
      );
    }),
  );
}

// The answer: label, tier, time and cost, then each attempt with its exits.

import { announce } from "../../shared/announce.js";
import { bar, divided } from "./bars.js";
import { byId, el, replace, terms } from "./dom.js";
import { bytes, lambda, millijoules, ms, percent, title, usd, words } from "./format.js";

/** @import { Outcome } from "../client/request.js" */
/** @import { AttemptReport } from "../client/runner.js" */

/** @type {Record<string, string>} */
const DEGRADED = {
  offline: "no server could be reached, so this device answered",
  unavailable: "the servers failed or were too slow, so this device answered",
};
/** @type {Record<string, string>} */
const REASONS = {
  route: "chosen first by the policy",
  escalate: "asked because the confidence was too low",
  fail_over: "asked because another tier failed",
  retry: "asked again",
};

/** Show an answered request. @param {Outcome} outcome */
export function showOutcome(outcome) {
  const { answer, cost, decision } = outcome;
  if (answer === null) return;
  byId("result").hidden = false;
  replace(
    byId("answer"),
    el("span", { class: "label", id: "answer-label" }, answer.label),
    el("span", { id: "answer-confidence" }, `confidence ${percent(answer.confidence)}`),
    el(
      "span",
      {},
      "by the ",
      el("span", { class: `tier ${answer.tier}`, id: "answer-tier" }, answer.tier),
      ` at exit ${answer.exitLayer}`,
    ),
  );
  replace(byId("remarks"), ...remarks(outcome).map((remark) => el("span", { class: "badge warning" }, remark)));
  replace(
    byId("totals"),
    ...terms([
      ["Time", ms(outcome.totalMs)],
      ["Policy", `${decision.policy}${pool(decision.difficulty)}`],
      ["Decision", ms(outcome.decisionMs)],
      ["Cost", lambda(cost.lambda)],
      ["All in the cloud", `${lambda(cost.allCloudLambda)}${saving(cost)}`],
      ["Money", usd(cost.usd)],
      ["Energy, estimated", millijoules(cost.energyMj)],
      ["Tokens", String(outcome.tokens)],
    ]),
  );
  showSteps(outcome);
  announce(
    `Classified as ${answer.label}, confidence ${percent(answer.confidence)}, by the ${answer.tier} at exit ` +
      `${answer.exitLayer}, ${ms(outcome.totalMs)}, ${lambda(cost.lambda)}. ${remarks(outcome).join(". ")}`,
  );
}

/** Show a request that no tier answered; null if none was made. @param {Outcome | null} outcome */
export function showFailure(outcome) {
  byId("result").hidden = outcome === null;
  if (outcome === null) return;
  replace(byId("answer"), el("span", { class: "label error" }, "No tier answered"));
  replace(byId("remarks"));
  replace(byId("totals"), ...terms([["Time", ms(outcome.totalMs)]]));
  showSteps(outcome);
}

/** Return what is special about an answer, in words. @param {Outcome} outcome */
export function remarks(outcome) {
  const { attempts, degradedBecause, skipped } = outcome;
  const reasons = new Set(attempts.map(({ entry }) => entry.reason));
  return [
    degradedBecause && `degraded: ${DEGRADED[degradedBecause] ?? words(degradedBecause)}`,
    reasons.has("fail_over") && "failed over",
    reasons.has("escalate") && "escalated",
    skipped.length > 0 && `skipped: ${skipped.map(title).join(", ")}`,
    outcome.truncated && "the text was longer than the model reads",
    outcome.costCapped && "the cost ceiling excluded a tier",
  ].filter((remark) => typeof remark === "string");
}

/** @param {string | null} difficulty */
function pool(difficulty) {
  return difficulty === null ? "" : `, ${difficulty}`;
}

/** @param {Outcome["cost"]} cost */
function saving({ lambda: spent, allCloudLambda }) {
  if (!allCloudLambda) return "";
  const saved = 1 - spent / allCloudLambda;
  return saved >= 0 ? ` (${percent(saved)} saved)` : ` (${percent(-saved)} more)`;
}

/** @param {Outcome} outcome */
function showSteps({ attempts, alpha }) {
  replace(byId("steps"), ...attempts.map((attempt, index) => step(attempt, index, alpha)));
}

/** @param {AttemptReport} attempt @param {number} index @param {number} alpha */
function step(attempt, index, alpha) {
  const { entry } = attempt;
  const answered = entry.state === "answered";
  return el(
    "li",
    { class: `step ${entry.tier}` },
    el(
      "div",
      { class: "step-head" },
      el("span", { class: "tier" }, `${index + 1}. ${title(entry.tier)}`),
      el("span", { class: "muted small" }, REASONS[entry.reason ?? ""] ?? words(entry.reason)),
      el("span", { class: answered ? null : "error" }, happened(attempt)),
    ),
    answered ? exits(attempt, entry.tier === "cloud" ? null : alpha) : el("p", { class: "small" }, attempt.problem),
    times(entry, answered),
    el(
      "dl",
      { class: "facts small" },
      ...facts([
        ["sent", bytes(entry.sent_bytes ?? 0)],
        ["received", bytes(entry.received_bytes ?? 0)],
        ["cost", lambda(entry.cost_lambda)],
        ["energy here, estimated", millijoules(entry.energy_mj)],
      ]),
    ),
  );
}

/** @param {AttemptReport} attempt */
function happened({ entry, reused }) {
  if (entry.state !== "answered") return `no answer: ${words(entry.error_code ?? entry.state)}`;
  return `${entry.label} at exit ${entry.exit_layer}${reused ? ", the earlier answer" : ""}`;
}

/** @param {AttemptReport} attempt @param {number | null} alpha */
function exits({ entry, exits: shown }, alpha) {
  const mark = alpha === null ? null : el("span", { class: "muted" }, ` (mark: α ${percent(alpha)})`);
  return el(
    "div",
    {},
    el("h4", {}, "Confidence", mark),
    el(
      "div",
      { class: "bars" },
      ...shown.flatMap(({ layer, confidence }) => [
        el("span", {}, `exit ${layer}`),
        bar(confidence, String(entry.tier), alpha),
        el("span", {}, percent(confidence)),
      ]),
    ),
  );
}

/** @param {Record<string, any>} entry @param {boolean} answered */
function times(entry, answered) {
  const title = el("h4", {}, `Time: ${ms(entry.round_trip_ms)}`);
  if (!answered) return title; // only an answer tells its parts
  /** @type {[string, number | null | undefined][]} */
  const parts = [
    ["queue", entry.queue_ms],
    ["compute", entry.compute_ms],
    ["network", entry.network_ms],
  ];
  return el(
    "div",
    {},
    title,
    divided(parts),
    el(
      "dl",
      { class: "facts small" },
      ...facts(parts.map(([name, value]) => [name, ms(value), `swatch fill-${name}`])),
    ),
  );
}

/**
 * Return short facts that stand beside each other: name, value, and the class of a mark.
 * @param {[string, string, string?][]} rows
 */
function facts(rows) {
  return rows.map(([name, value, mark]) =>
    el("div", {}, el("dt", {}, mark === undefined ? null : el("span", { class: mark }), name), el("dd", {}, value)),
  );
}

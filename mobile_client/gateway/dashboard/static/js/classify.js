// The form: sends a text, then shows its way, its steps and why it went there.

import { announce } from "../shared/announce.js";
import { call } from "./api.js";
import { on } from "./bus.js";
import { byId, el, options, replace } from "./dom.js";
import { explanationView } from "./explanation.js";
import { lambda, ms, percent, title, words } from "./format.js";
import { Journey, hasAnswer } from "./journey.js";
import { openRecord } from "./record.js";
import { state } from "./state.js";
import { stepItems } from "./steps.js";

const DEGRADED = {
  certificate: "the certificate was found not to hold, so the cloud answered",
  offline: "no server could be reached, so the mobile answered",
  unavailable: "the servers failed or were too slow, so the mobile answered",
};

let journey = null;
let attempts = [];
let requestId = null;
let shown = 0;

/** Set up the form. */
export function start() {
  journey = new Journey(byId("journey"));
  on("state", showState);
  byId("classify-form").addEventListener("submit", (event) => {
    event.preventDefault();
    classify();
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      byId("classify-form").requestSubmit();
    }
  });
  byId("sample").addEventListener("change", useSample);
  byId("replay").addEventListener("click", () => journey.play(showSteps));
  byId("next-step").addEventListener("click", () => {
    shown = shown >= attempts.length ? 1 : shown + 1;
    journey.show(shown);
    showSteps(shown);
  });
  byId("open-record").addEventListener("click", () => openRecord(requestId));
}

function showState(now) {
  if (!now.tiers) return;
  byId("pair-field").hidden = !now.pair;
  byId("pair").required = Boolean(now.pair);
  journey.setState(now.tiers, now.links ?? []);
  const samples = byId("sample");
  if (samples.options.length === 1) {
    samples.append(
      ...options((now.samples ?? []).map((sample, index) => [String(index), brief(sample.text)])),
    );
    samples.closest(".field").hidden = samples.options.length <= 2;
    if (byId("text").value === "") chooseSample(now.samples?.[0]);
    fillChoice("policy", now.policies, now.policy);
    fillChoice("mode", now.modes, now.mode ?? "auto");
    byId("deadline").placeholder = String(now.deadline_ms ?? "");
  }
}

function fillChoice(id, names, inForce) {
  byId(id).append(
    ...options([
      ["", `${inForce} (in force)`],
      ...(names ?? []).filter((name) => name !== inForce).map((name) => [name, name]),
    ]),
  );
}

function brief(text) {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

function useSample(event) {
  if (event.target.value !== "") chooseSample(state()?.samples?.[Number(event.target.value)]);
}

function chooseSample(sample) {
  if (sample === undefined) return;
  byId("text").value = sample.text;
  byId("pair").value = sample.pair ?? "";
}

async function classify() {
  const button = byId("classify-form").querySelector("[type=submit]");
  const problem = byId("classify-error");
  problem.hidden = true;
  button.disabled = true;
  button.textContent = "Classifying …";
  try {
    const { result, explanation } = await call("/dashboard/api/classify", {
      method: "POST",
      body: request(),
    });
    showResult(result, explanation);
  } catch (error) {
    problem.textContent = `Not classified: ${error.message}`;
    problem.hidden = false;
    if (error.answer?.explanation) showFailure(error.answer);
    else reset();
  } finally {
    button.disabled = false;
    button.textContent = "Classify";
  }
}

function request() {
  const form = new FormData(byId("classify-form"));
  const body = { text: form.get("text") };
  if (state()?.pair) body.pair = form.get("pair");
  for (const name of ["policy", "mode"]) if (form.get(name)) body[name] = form.get(name);
  for (const name of ["deadline_ms", "max_cost_lambda"]) {
    if (form.get(name)) body[name] = Number(form.get(name));
  }
  return body;
}

function reset() {
  journey.setAttempts([]);
  for (const id of ["answer", "journey-buttons", "travel", "why"]) byId(id).hidden = true;
}

function showResult(result, explanation) {
  requestId = result.request_id;
  const cost = result.cost;
  const saved = cost.all_cloud_lambda ? 1 - cost.cost_lambda / cost.all_cloud_lambda : null;
  replace(
    byId("answer"),
    el("span", { class: "label", id: "answer-label" }, result.label),
    el("span", { id: "answer-confidence" }, `confidence ${percent(result.confidence)}`),
    el(
      "span",
      {},
      "by ",
      el("span", { class: `tier ${result.tier}`, id: "answer-tier" }, result.tier),
      ` at exit ${result.exit_layer}`,
    ),
    el("span", { id: "answer-time" }, ms(result.total_ms)),
    el(
      "span",
      { id: "answer-cost" },
      `${lambda(cost.cost_lambda)}; all-cloud ${lambda(cost.all_cloud_lambda)} (${change(saved)})`,
    ),
    ...remarks(result).map((remark) => el("span", { class: "badge warning" }, remark)),
  );
  announce(
    `Classified as ${result.label}, confidence ${percent(result.confidence)}, by the ` +
      `${result.tier} at exit ${result.exit_layer}, ${ms(result.total_ms)}, ` +
      `${lambda(cost.cost_lambda)}.`,
  );
  showWay(explanation ?? { attempts: result.attempts, tiers: [], alpha: null });
}

function showFailure({ request_id: id, explanation }) {
  requestId = id;
  replace(byId("answer"), el("span", { class: "label error" }, "No tier answered"));
  showWay(explanation);
}

function showWay(explanation) {
  attempts = explanation.attempts.map((attempt) => ({
    ...attempt,
    exits: hasAnswer(attempt) ? exitsOf(attempt, explanation.tiers) : [],
  }));
  replace(byId("steps"), stepItems(attempts, explanation.alpha));
  replace(byId("why"), explanation.why ? explanationView(explanation) : []);
  for (const id of ["answer", "journey-buttons", "travel"]) byId(id).hidden = false;
  byId("why").hidden = !explanation.why;
  byId("next-step").hidden = attempts.length < 2;
  journey.setAttempts(attempts);
  journey.play(showSteps);
}

function exitsOf(attempt, tiers) {
  const computed = tiers.find(({ tier }) => tier === attempt.tier)?.exits ?? [];
  const answered = { layer: attempt.exit_layer, confidence: attempt.confidence };
  return computed.length > 0 ? computed : [answered];
}

function change(saved) {
  if (saved === null) return "no saving known";
  return saved >= 0 ? `${percent(saved)} saved` : `${percent(-saved)} more`;
}

function remarks(result) {
  const found = [];
  if (result.failed_over) found.push("failed over");
  if (result.escalated) found.push("escalated");
  if (result.degraded) {
    const why = result.degraded_because;
    found.push(`degraded: ${DEGRADED[why] ?? words(why)}`);
  }
  if (result.skipped?.length) found.push(`skipped: ${result.skipped.map(title).join(", ")}`);
  if (result.truncated) found.push("the text was longer than the model reads");
  if (result.cost_capped) found.push("the cost ceiling excluded a tier");
  if (result.budget_exhausted) found.push("no escalations left");
  return found;
}

function showSteps(count) {
  shown = count;
  [...byId("steps").children].forEach((item, index) => {
    item.classList.toggle("later", index >= count);
  });
}

// Runs a session of the shared cases: the core's modules put together as the app puts them together,
// with edge and cloud by a script and a clock that passes by waiting only.

import { AttemptEntries } from "../../mobile_client/web/static/js/core/attempt-entries.js";
import { prepare } from "../../mobile_client/web/static/js/core/decide.js";
import * as errors from "../../mobile_client/web/static/js/core/errors.js";
import { meetsThreshold } from "../../mobile_client/web/static/js/core/layers.js";
import { allowedTiers, applyMode } from "../../mobile_client/web/static/js/core/options.js";
import { makePolicy } from "../../mobile_client/web/static/js/core/policies.js";
import { DEFAULT_PRICE_BOOK } from "../../mobile_client/web/static/js/core/price-book.js";
import { RequestState } from "../../mobile_client/web/static/js/core/request-state.js";
import { charsOf } from "../../mobile_client/web/static/js/core/text-checks.js";
import { TierSelector } from "../../mobile_client/web/static/js/core/tier-selector.js";
import { SERVERS, TierStats } from "../../mobile_client/web/static/js/core/tier-stats.js";

/** @import { Delivery, Outcome, Tier, TierAnswer } from "../../mobile_client/web/static/js/core/domain.js" */
/** @import { Exchange } from "../../mobile_client/web/static/js/core/exchange.js" */
/** @import { LedgerEntry } from "../../mobile_client/web/static/js/core/ledger-entry.js" */
/** @import { Policy } from "../../mobile_client/web/static/js/core/policies.js" */
/** @import { Action, Event, MakeAttempt } from "../../mobile_client/web/static/js/core/request-state.js" */
/** @import { Model } from "./model.js" */

/**
 * What a step of a script means for the caller: the delivery and the class of the error.
 * @type {Record<string, [Delivery, typeof errors.DimeeError]>}
 */
const FAILURES = {
  gone: ["not_sent", errors.TierUnreachable],
  broken: ["unknown", errors.TierUnreachable],
  hangs: ["unknown", errors.DeadlineExceeded],
  tier_failed: ["arrived", errors.TierFailed],
  not_ready: ["unknown", errors.NotReady],
  overloaded: ["arrived", errors.Overloaded],
  rate_limited: ["unknown", errors.RateLimited],
  bundle_mismatch: ["arrived", errors.BundleMismatch],
  unauthorised: ["unknown", errors.NotAdmitted],
  deadline_exceeded: ["arrived", errors.DeadlineExceeded],
};
const HANGS_MS = 120_000;
const HIDDEN_FIELDS = [
  ...["attempt_id", "request_id", "bundle_id", "started_at", "writer", "text_hash", "decision_ms"],
  ...["sent_bytes", "received_bytes", "cost_usd", "energy_mj", "price_book"],
];

/** One client with its clock, policies and knowledge of the tiers. */
class Client {
  nowMs = 1e6;
  /** @type {Map<string, Policy>} */
  policies = new Map();

  /** @param {any} input @param {Model} model */
  constructor(input, model) {
    this.model = model;
    this.settings = input.settings;
    this.jitter = input.jitter.values();
    const { costModel } = model.facts;
    this.stats = new TierStats(costModel, input.settings.latency_price_lambda, () => this.nowMs / 1e3);
    this.entries = new AttemptEntries({ costModel, priceBook: DEFAULT_PRICE_BOOK, bundleId: "b" });
  }

  /** @param {string} name */
  policy(name) {
    const known = this.policies.get(name);
    if (known !== undefined) return known;
    const policy = makePolicy(name, this.model.facts);
    policy.useConditions(this.stats.conditions);
    this.policies.set(name, policy);
    return policy;
  }
}

/**
 * Return the outcome of each request of a session, and the entries of its attempts.
 * @param {any} input
 * @param {Model} model
 */
export async function runSession(input, model) {
  const client = new Client(input, model);
  const requests = [];
  for (const given of input.requests) {
    client.nowMs += 1e3 * given.gap_s;
    requests.push(await new Request(client, given).run());
  }
  return { requests };
}

/** One request: the loop that the app has around RequestState. */
class Request {
  /** @type {LedgerEntry[]} */
  written = [];

  /** @param {Client} client @param {any} given */
  constructor(client, given) {
    const { model, stats } = client;
    this.client = client;
    this.options = given.options;
    this.scripts = { edge: [...given.edge], cloud: [...given.cloud] };
    this.since = client.nowMs;
    this.policy = client.policy(this.options.policy);
    this.prepared = prepare(model.encoder, model.embeddings, given.text);
    stats.refresh(this.options.deadline_ms);
    this.decision = applyMode(this.policy.route(this.prepared.features), this.options.mode);
    this.alpha = this.decision.alpha ?? model.manifest.alpha;
    const { mobile_layers: mobile, edge_layers: edge, layers: cloud } = model.manifest;
    this.state = new RequestState({
      routedTier: this.decision.tier,
      deadlineMs: this.options.deadline_ms,
      selector: new TierSelector({
        tierStats: stats,
        costModel: model.facts.costModel,
        layers: { mobile, edge, cloud },
        allowed: allowedTiers(this.options.mode),
        maxCostLambda: this.options.max_cost_lambda,
      }),
      failOver: client.settings.fail_over,
      retries: client.settings.retries,
      jitter: () => client.jitter.next().value,
    });
    this.routed = {
      requestId: "r",
      decision: this.decision,
      decisionMs: 0,
      tokens: this.prepared.encoded.tokens,
      textHash: "h",
      textChars: charsOf(given.text),
      mode: this.options.mode,
      maxCostLambda: this.options.max_cost_lambda,
    };
  }

  get spentMs() {
    return this.client.nowMs - this.since;
  }

  async run() {
    const preferred = this.decision.tier === "mobile" ? this.preferred(null, false) : null;
    /** @type {Action} */
    let action = this.state.handle({ kind: "started", preferred }, this.spentMs);
    while (action.kind === "attempt") {
      this.client.nowMs += action.waitMs;
      action = await (action.tier === "mobile" ? this.runLocally(action) : this.callTier(action, action.tier));
    }
    const outcome = action.kind === "accept" ? this.answered() : refusal(action.error);
    return { ...outcome, spent_ms: this.spentMs, tiers: this.tiers(), entries: this.written.map(shown) };
  }

  /** @param {MakeAttempt} action */
  opened(action) {
    const { tier, reason, ordinal } = action;
    return this.client.entries.open(this.routed, { attemptId: "a", ordinal, tier, reason, startedAt: 0 });
  }

  /** @param {MakeAttempt} action @returns {Promise<Action>} */
  async runLocally(action) {
    const { model, stats, entries } = this.client;
    const entry = this.opened(action);
    const reused = action.reuses !== null;
    const answer = action.reuses ?? (await this.localAnswer());
    /** @type {Event} */
    let event = { kind: "answered", tier: "mobile", answer, costLambda: 0 };
    if (!reused) {
      stats.recordDelay("mobile", answer.queueMs + answer.computeMs);
      const outcome = this.outcome("mobile", answer);
      const escalateTo = this.escalate(outcome, answer.meetsAlpha);
      const preferred = escalateTo === null ? this.preferred(outcome, answer.meetsAlpha) : null;
      const costLambda = model.facts.costModel.attempt("mobile", answer.exitLayer);
      event = { ...event, costLambda, escalateTo, preferred };
    }
    const next = this.state.handle(event, this.spentMs);
    const end = { reused, final: next.kind !== "attempt", withheldBecause: this.state.degradedBecause };
    const [tierSide, callerSide] = entries.closeLocal(entry, answer, 0, end);
    this.written.push(callerSide, tierSide);
    return next;
  }

  /** @returns {Promise<TierAnswer>} */
  async localAnswer() {
    const { model } = this.client;
    const { encoded } = this.prepared;
    const hidden = model.embeddings.firstHidden(encoded);
    const { lastLayer: last, firstExit } = this.decision;
    const prediction = await model.layers.classify(hidden, encoded.tokens, this.alpha, { last, firstExit });
    const meetsAlpha = meetsThreshold(prediction.confidence, this.alpha);
    return { ...prediction, meetsAlpha, truncated: encoded.truncated, queueMs: 0, computeMs: 0 };
  }

  /** @param {MakeAttempt} action @param {"edge" | "cloud"} tier @returns {Promise<Action>} */
  async callTier(action, tier) {
    const { stats, entries } = this.client;
    const entry = this.opened(action);
    const timeoutMs = Math.max(0.001, this.state.deadlineMs - this.spentMs) * action.timeShare;
    const token = stats.begin(tier);
    let exchange = this.exchange(tier, timeoutMs);
    stats.recordExchange(tier, exchange, token, timeoutMs);
    const late = this.state.deadlineError(this.spentMs);
    if (late !== null) exchange = { ...exchange, answer: null, error: exchange.error ?? late };
    const costLambda = entries.costLambda(tier, exchange);
    const next = this.state.handle(this.eventOf(tier, exchange, costLambda), this.spentMs);
    const end = { final: next.kind !== "attempt", withheldBecause: this.state.degradedBecause };
    this.written.push(entries.closeExchange(entry, exchange, end));
    return next;
  }

  /** @param {"edge" | "cloud"} tier @param {Exchange} exchange @param {number} costLambda @returns {Event} */
  eventOf(tier, exchange, costLambda) {
    if (exchange.answer === null) {
      const error = /** @type {errors.DimeeError} */ (exchange.error);
      return { kind: "failed", tier, error, delivery: exchange.delivery, costLambda };
    }
    const { label, probabilities, confidence, exit_layer: exitLayer } = exchange.answer;
    /** @type {TierAnswer} */
    const answer = {
      label,
      labelIndex: this.client.model.manifest.labels.indexOf(label),
      probabilities,
      confidence,
      meetsAlpha: tier === "cloud" || meetsThreshold(confidence, this.alpha),
      exitLayer,
      truncated: exchange.answer.truncated || this.prepared.encoded.truncated,
      queueMs: 0,
      computeMs: 0,
    };
    const escalateTo = this.escalate(this.outcome(tier, answer), answer.meetsAlpha);
    return { kind: "answered", tier, answer, costLambda, escalateTo };
  }

  /** @param {"edge" | "cloud"} tier @param {number} timeoutMs @returns {Exchange} */
  exchange(tier, timeoutMs) {
    const step = this.scripts[tier].shift() ?? { what: "gone", ms: 0 };
    const takesMs = step.what === "hangs" ? HANGS_MS : step.ms;
    const late = takesMs > timeoutMs;
    const roundTripMs = Math.min(takesMs, timeoutMs);
    this.client.nowMs += roundTripMs;
    const common = { sentBytes: 0, receivedBytes: 0, roundTripMs, replica: null };
    if (step.what !== "answer" || late) {
      const [delivery, kind] = FAILURES[late ? "hangs" : step.what];
      const error = new kind("a scripted error", { retryAfterS: step.retry_after_s });
      return { ...common, delivery, answer: null, error };
    }
    const other = step.label === "positive" ? "negative" : "positive";
    const answer = {
      attempt_id: "a",
      tier,
      label: step.label,
      probabilities: { [step.label]: step.confidence, [other]: 1 - step.confidence },
      confidence: step.confidence,
      exit_layer: step.exit_layer,
      tokens: 12,
      truncated: false,
      bundle_id: "b",
      queue_ms: 0.1,
      compute_ms: 1,
      tier_ms: 1.2,
    };
    return { ...common, delivery: "arrived", answer, error: null };
  }

  /** @param {Outcome} outcome @param {boolean} meetsAlpha */
  escalate(outcome, meetsAlpha) {
    if (this.policy.usesConditions) this.client.stats.refresh(this.state.deadlineMs - this.spentMs);
    return this.policy.escalate(this.prepared.features, this.decision, outcome, meetsAlpha);
  }

  /**
   * Return the tier that the policy would choose now if every server were available.
   * @param {Outcome | null} outcome
   * @param {boolean} meetsAlpha
   * @returns {Tier | null}
   */
  preferred(outcome, meetsAlpha) {
    const { stats } = this.client;
    const { features } = this.prepared;
    if (!this.policy.usesConditions || stats.allUp) return null;
    return stats.assumeAllAvailable(() =>
      outcome === null
        ? this.policy.route(features).tier
        : this.policy.escalate(features, this.decision, outcome, meetsAlpha),
    );
  }

  /** @param {Tier} tier @param {TierAnswer} answer @returns {Outcome} */
  outcome(tier, { exitLayer, confidence, labelIndex }) {
    return { tier, exitLayer, confidence, costLambda: this.state.spentLambda, label: labelIndex };
  }

  answered() {
    const callers = this.written.filter((entry) => entry.side === "caller");
    const last = callers[callers.length - 1];
    const costLambda = callers.reduce((sum, entry) => sum + (entry.cost_lambda ?? 0), 0);
    const { mode, max_cost_lambda: ceiling } = this.options;
    if (mode === "auto" && ceiling === null && this.state.degradedBecause === null) {
      const label = this.client.model.manifest.labels.indexOf(String(last.label));
      const [exitLayer, confidence] = [Number(last.exit_layer), Number(last.confidence)];
      this.policy.learn(this.decision, { tier: last.tier, exitLayer, confidence, costLambda, label });
    }
    return {
      label: last.label,
      tier: last.tier,
      exit_layer: last.exit_layer,
      confidence: last.confidence,
      policy: this.decision.policy,
      failed_over: callers.some((entry) => entry.reason === "fail_over"),
      escalated: callers.some((entry) => entry.reason === "escalate"),
      truncated: this.prepared.encoded.truncated,
      degraded_because: this.state.degradedBecause,
      skipped: [...this.state.skipped.keys()],
      cost_capped: this.state.costCapped,
      cost_lambda: costLambda,
    };
  }

  tiers() {
    const known = SERVERS.map((tier) => {
      const { breaker, delay } = this.client.stats.servers[tier];
      const { state, readiness, available } = breaker;
      return [tier, { breaker: state, readiness, available, delay_ms: delay.ms }];
    });
    return Object.fromEntries(known);
  }
}

/** @param {errors.DimeeError} error */
function refusal(error) {
  return { error: error.code, field: error.field, limit: error.limit };
}

/** Return the fields of an entry that the cases compare. @param {LedgerEntry} entry */
function shown(entry) {
  const found = Object.fromEntries(
    Object.entries(entry).filter(
      ([name]) => !HIDDEN_FIELDS.includes(name) && !(entry.tier === "mobile" && name.endsWith("_ms")),
    ),
  );
  return { final: false, ...found, ...("decision" in found ? { decision: JSON.parse(String(found.decision)) } : {}) };
}

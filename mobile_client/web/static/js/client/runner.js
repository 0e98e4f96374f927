// Runs a request: executes the actions of its `RequestState` until it is answered or fails.

import { BundleError, DeadlineExceeded, DimeeError } from "../core/errors.js";
import { newId } from "../core/ids.js";
import { meetsThreshold } from "../core/layers.js";
import { allowedTiers } from "../core/options.js";
import { GRACE_MS, RequestState } from "../core/request-state.js";
import { TierSelector } from "../core/tier-selector.js";

/** @import { Decision, EncodedText, Mode, TextFeatures, Tier, TierAnswer } from "../core/domain.js" */
/** @import { Exchange } from "../core/exchange.js" */
/** @import { LedgerEntry } from "../core/ledger-entry.js" */
/** @import { Policy } from "../core/policies.js" */
/** @import { Action, MakeAttempt } from "../core/request-state.js" */
/** @import { Model } from "./model.js" */

/** Timeout of an attempt whose deadline passed while it was being opened. */
const MIN_LEFT_MS = 0.001;

/** @typedef {{layer: number, confidence: number, label?: string}} Exit */
/**
 * @typedef {object} Recording Where entries go: the outbox, or nowhere without a ledger.
 * @property {(...entries: LedgerEntry[]) => Promise<void>} record
 * @property {(...entries: LedgerEntry[]) => Promise<void>} recordOrBuffer
 * @property {(text: string, pair: string | null) => Promise<string>} hashText
 */
/**
 * @typedef {import("../core/attempt-entries.js").RoutedRequest & import("../core/decide.js").Decided & {
 *   text: string, pair: string | null, policy: Policy, deadlineMs: number, since: number}} RoutedRequest
 * `since` is the time from which the deadline counts, in milliseconds of the clock.
 */
/**
 * @typedef {object} AttemptReport An attempt that has ended.
 * @property {LedgerEntry} entry The caller's entry.
 * @property {Exit[]} exits Confidences of the exits; of a server only the one that answered.
 * @property {boolean} reused True if it returns an earlier answer.
 * @property {string} problem Why there is no answer; empty if there is one.
 */
/** @typedef {{entry: LedgerEntry, started: number, waiting: boolean, closed: boolean}} OpenAttempt */

/** One request in flight. */
export class Runner {
  /** @type {AttemptReport[]} Attempts that have ended, in order. */
  reports = [];

  /**
   * @param {Model} model
   * @param {Recording} recording
   * @param {RoutedRequest} request
   * @param {() => number} now Milliseconds.
   */
  constructor(model, recording, request, now = () => performance.now()) {
    const { decision, deadlineMs, maxCostLambda, mode } = request;
    const { config, costModel, manifest, tierStats } = model;
    this._model = model;
    this._recording = recording;
    this.request = request;
    this._now = now;
    this.state = new RequestState({
      routedTier: decision.tier,
      deadlineMs,
      selector: new TierSelector({
        tierStats,
        costModel,
        layers: {
          mobile: decision.lastLayer ?? manifest.mobile_layers,
          edge: manifest.edge_layers,
          cloud: manifest.layers,
        },
        allowed: allowedTiers(mode),
        maxCostLambda,
      }),
      failOver: config.fail_over,
      retries: config.retries,
      jitter: Math.random,
    });
    this.alpha = decision.alpha ?? manifest.alpha;
  }

  /** Milliseconds since the request arrived. */
  get spentMs() {
    return this._now() - this.request.since;
  }

  /**
   * Make attempts until one answers; throws a `DimeeError` if none does.
   * @returns {Promise<TierAnswer>}
   */
  async run() {
    const preferred = this.request.decision.tier === "mobile" ? this.#preferredTier() : null;
    let action = this.state.handle({ kind: "started", preferred }, this.spentMs);
    let attempt = this.#prepare(action);
    if (attempt !== null) {
      await this._recording.record(attempt.entry);
      this.#start(attempt);
    }
    while (action.kind === "attempt" && attempt !== null) {
      const current = attempt;
      try {
        if (action.waitMs > 0) await sleep(action.waitMs);
        this.#start(current);
        [action, attempt] = await (action.tier === "mobile" ? this.#runLocally(action, current) : this.#callTier(action, current));
      } catch (error) {
        await this.#closeInterrupted(current, error);
        throw error;
      }
    }
    if (action.kind === "give-up") throw action.error;
    return /** @type {import("../core/request-state.js").Accept} */ (action).answer;
  }

  /**
   * Return the attempt that an action asks for, not yet recorded; null for other actions.
   * @param {Action} action
   * @returns {OpenAttempt | null}
   */
  #prepare(action) {
    if (action.kind !== "attempt") return null;
    const { tier, reason, ordinal } = action;
    const attemptId = newId({ of: this.request.requestId });
    const startedAt = Date.now() / 1e3;
    const entry = this._model.entries.open(this.request, { attemptId, ordinal, tier, reason, startedAt });
    return { entry, started: this._now(), waiting: action.waitMs > 0, closed: false };
  }

  /** Start the attempt's clock; a retry starts it after its wait. @param {OpenAttempt} attempt */
  #start(attempt) {
    if (attempt.waiting) {
      attempt.entry = { ...attempt.entry, started_at: Date.now() / 1e3 };
      attempt.waiting = false;
    }
    attempt.started = this._now();
  }

  /**
   * Answer with this device's own layers, or return an earlier answer again.
   * @param {MakeAttempt} action
   * @param {OpenAttempt} attempt
   * @returns {Promise<[Action, OpenAttempt | null]>}
   */
  async #runLocally(action, attempt) {
    const { costModel, entries, tierStats } = this._model;
    const reused = action.reuses !== null;
    /** @type {Exit[]} */
    let exits = [];
    let answer = action.reuses;
    if (answer === null) ({ answer, exits } = await this.#answerLocally());
    this.#checkDeadline();
    let costLambda = 0;
    /** @type {Tier | null} */
    let escalateTo = null;
    /** @type {Tier | null} */
    let preferred = null;
    if (!reused) {
      tierStats.recordDelay("mobile", answer.queueMs + answer.computeMs);
      costLambda = costModel.attempt("mobile", answer.exitLayer);
      escalateTo = this.#escalate("mobile", answer);
      if (escalateTo === null) preferred = this.#preferredTier(answer);
    }
    const totalMs = this._now() - attempt.started;
    const next = this.state.handle({ kind: "answered", tier: "mobile", answer, costLambda, escalateTo, preferred }, this.spentMs);
    const following = this.#prepare(next);
    const ends = entries.closeLocal(attempt.entry, answer, totalMs, { reused, ...this.#end(following) });
    await this.#writeEnd(attempt, ends, following);
    this.reports.push({ entry: ends[ends.length - 1], exits, reused, problem: "" });
    return [next, following];
  }

  /** Run the layers up to the first exit that reaches α. @returns {Promise<{answer: TierAnswer, exits: Exit[]}>} */
  async #answerLocally() {
    const { embeddings, layers, manifest } = this._model;
    const { decision, encoded } = this.request;
    const range = { first: 1, last: decision.lastLayer ?? manifest.mobile_layers, firstExit: decision.firstExit };
    const leftMs = Math.max(MIN_LEFT_MS, this.state.deadlineMs + GRACE_MS - this.spentMs);
    const late = new DeadlineExceeded(
      `the layers of this device gave no answer within ${Math.round(this.state.deadlineMs)} ms; it is busy, try again`,
    );
    const { answer, queueMs, computeMs } = await within(
      leftMs,
      layers.classify(embeddings.firstHidden(encoded), encoded.tokens, this.alpha, range),
      late,
    );
    const { exits, ...others } = answer;
    const meetsAlpha = meetsThreshold(answer.confidence, this.alpha);
    return { answer: { ...others, meetsAlpha, truncated: encoded.truncated, queueMs, computeMs }, exits };
  }

  /**
   * Make one exchange with the edge or the cloud.
   * @param {MakeAttempt} action
   * @param {OpenAttempt} attempt
   * @returns {Promise<[Action, OpenAttempt | null]>}
   */
  async #callTier(action, attempt) {
    const { entries } = this._model;
    let exchange = await this.#exchange(action, attempt);
    const spentMs = this.spentMs;
    const late = this.state.deadlineError(spentMs);
    if (late !== null) exchange = { ...exchange, answer: null, error: exchange.error ?? late };
    const tier = action.tier;
    const costLambda = entries.costLambda(tier, exchange);
    /** @type {Action} */
    let next;
    if (exchange.answer === null) {
      const error = exchange.error ?? new BundleError("an exchange has neither an answer nor an error");
      next = this.state.handle({ kind: "failed", tier, error, delivery: exchange.delivery, costLambda }, spentMs);
    } else {
      const answer = this.#tierAnswer(tier, exchange.answer);
      const escalateTo = this.#escalate(tier, answer);
      next = this.state.handle({ kind: "answered", tier, answer, costLambda, escalateTo }, spentMs);
    }
    const following = this.#prepare(next);
    const end = entries.closeExchange(attempt.entry, exchange, this.#end(following));
    await this.#writeEnd(attempt, [end], following);
    const exits = exchange.answer === null ? [] : [{ layer: exchange.answer.exit_layer, confidence: exchange.answer.confidence }];
    this.reports.push({ entry: end, exits, reused: false, problem: exchange.error?.message ?? "" });
    return [next, following];
  }

  /** @param {MakeAttempt} action @param {OpenAttempt} attempt @returns {Promise<Exchange>} */
  async #exchange(action, attempt) {
    const { clients, manifest, tierStats } = this._model;
    const tier = /** @type {"edge" | "cloud"} */ (action.tier);
    const token = tierStats.begin(tier);
    const leftMs = Math.max(MIN_LEFT_MS, this.state.deadlineMs - this.spentMs);
    const timeoutMs = leftMs * action.timeShare;
    const { request_id, attempt_id, ordinal } = attempt.entry;
    const { decision, text, pair } = this.request;
    /** @type {Record<string, unknown>} */
    const body = { request_id, attempt_id, ordinal, deadline_ms: timeoutMs, text, bundle_id: manifest.bundle_id };
    if (decision.alpha !== null) body.alpha = decision.alpha;
    if (pair !== null) body.pair = pair;
    try {
      const exchange = await clients[tier].infer(body, timeoutMs);
      tierStats.recordExchange(tier, exchange, token, timeoutMs);
      return exchange;
    } finally {
      tierStats.end(tier, token);
    }
  }

  /**
   * Return the tier that the policy escalates to in the present conditions, if any.
   * @param {Tier} tier
   * @param {TierAnswer} answer
   */
  #escalate(tier, answer) {
    const { policy, features, decision } = this.request;
    if (policy.usesConditions) this._model.tierStats.refresh(this.state.deadlineMs - this.spentMs);
    return policy.escalate(features, decision, this.#outcome(tier, answer), answer.meetsAlpha);
  }

  /**
   * Return the tier that the policy would choose now if every server were available; null if all are,
   * or if the policy does not consider availability.
   * @param {TierAnswer} [answer]
   * @returns {Tier | null}
   */
  #preferredTier(answer) {
    const { tierStats } = this._model;
    const { policy, features, decision } = this.request;
    if (!policy.usesConditions || tierStats.allUp) return null;
    return tierStats.assumeAllAvailable(() =>
      answer === undefined
        ? policy.route(features).tier
        : policy.escalate(features, decision, this.#outcome("mobile", answer), answer.meetsAlpha),
    );
  }

  /** @param {Tier} tier @param {TierAnswer} answer */
  #outcome(tier, answer) {
    const { confidence, exitLayer, labelIndex } = answer;
    return { tier, exitLayer, confidence, costLambda: this.state.spentLambda, label: labelIndex };
  }

  /** @param {Tier} tier @param {import("../core/exchange.js").InferResponse} answer @returns {TierAnswer} */
  #tierAnswer(tier, answer) {
    return {
      label: answer.label,
      labelIndex: this._model.manifest.labels.indexOf(answer.label),
      probabilities: answer.probabilities,
      confidence: answer.confidence,
      meetsAlpha: tier === "cloud" || meetsThreshold(answer.confidence, this.alpha),
      exitLayer: answer.exit_layer,
      truncated: answer.truncated || this.request.encoded.truncated,
      queueMs: 0,
      computeMs: 0,
    };
  }

  /** @param {OpenAttempt | null} following */
  #end(following) {
    return { final: following === null, withheldBecause: this.state.degradedBecause };
  }

  #checkDeadline() {
    const late = this.state.deadlineError(this.spentMs);
    if (late !== null) throw late;
  }

  /**
   * Record the end of an attempt and the start of the next one in one transaction.
   * @param {OpenAttempt} attempt
   * @param {LedgerEntry[]} ends The caller's entry is the last.
   * @param {OpenAttempt | null} following
   */
  async #writeEnd(attempt, ends, following) {
    attempt.closed = true;
    try {
      await this._recording.record(...ends, ...(following === null ? [] : [following.entry]));
    } catch (error) {
      // the next attempt is not made, so this one is the final one
      const last = { ...ends[ends.length - 1], final: true };
      await this._recording.recordOrBuffer(...ends.slice(0, -1), last);
      throw error;
    }
  }

  /** Record that the work of an attempt did not end as planned. @param {OpenAttempt} attempt @param {unknown} error */
  async #closeInterrupted(attempt, error) {
    if (attempt.closed) return;
    attempt.closed = true;
    const known = error instanceof DimeeError ? error : null;
    const time = { elapsedMs: this._now() - attempt.started, waiting: attempt.waiting };
    const end = this._model.entries.closeInterrupted(attempt.entry, known, time);
    await this._recording.recordOrBuffer(end);
    this.reports.push({ entry: end, exits: [], reused: false, problem: known?.message ?? "an error in this app" });
  }
}

/** @param {number} ms @returns {Promise<void>} */
function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Return the result of `work`; throw `late` if it takes longer than `ms`.
 * @template T
 * @param {number} ms
 * @param {Promise<T>} work
 * @param {Error} late
 * @returns {Promise<T>}
 */
async function within(ms, work, late) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const timeout = new Promise((/** @type {(value: never) => void} */ _, reject) => {
    timer = setTimeout(() => reject(late), ms);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

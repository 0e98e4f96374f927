// State machine of one request: turns each event into the next action, without I/O or a clock, as in
// mobile_client/dispatch/request_state.py. A browser has no hedges, replicas, hidden states to resume
// from, connections of its own or budgets, so the rows of the table for them are left out.

import {
  BundleError,
  BundleMismatch,
  DeadlineExceeded,
  NotReady,
  Overloaded,
  TierError,
  TierUnreachable,
} from "./errors.js";

/** @import { Delivery, Reason, Tier, TierAnswer } from "./domain.js" */
/** @import { DimeeError } from "./errors.js" */
/** @import { TierSelector } from "./tier-selector.js" */

/**
 * Row of the table of transitions that applied: see `Transition` in request_state.py.
 * @typedef {"TOO_LATE" | "ROUTE" | "REROUTE" | "SKIP" | "NO_CANDIDATE" | "REUSED" | "ESCALATE" | "ACCEPT" |
 *   "RETRY" | "FAIL_OVER" | "FALL_BACK" | "GIVE_UP"} Transition
 */

/**
 * The request was routed. `preferred` is the tier that the policy would have chosen instead of the
 * mobile if every server were available.
 * @typedef {{kind: "started", preferred?: Tier | null}} Started
 */
/**
 * An attempt ended with an answer. `escalateTo` is the tier that the policy escalates to.
 * @typedef {{kind: "answered", tier: Tier, answer: TierAnswer, costLambda: number,
 *   escalateTo?: Tier | null, preferred?: Tier | null}} Answered
 */
/**
 * An attempt ended without an answer.
 * @typedef {{kind: "failed", tier: Tier, error: DimeeError, delivery: Delivery, costLambda: number}} Failed
 */
/** @typedef {Started | Answered | Failed} Event */

/**
 * Make an attempt at `tier` after `waitMs`. `timeShare` is the share of the remaining time that it may
 * take. `reuses` is the earlier answer that the mobile returns without running its layers.
 * @typedef {{kind: "attempt", tier: Tier, reason: Reason, ordinal: number, waitMs: number,
 *   timeShare: number, reuses: TierAnswer | null}} MakeAttempt
 */
/** @typedef {{kind: "accept", answer: TierAnswer}} Accept */
/** @typedef {{kind: "give-up", error: DimeeError}} GiveUp */
/** @typedef {MakeAttempt | Accept | GiveUp} Action */

/** An answer is still returned if it comes at most this long after the deadline. */
export const GRACE_MS = 100;
/** Longest wait before the first retry; each further retry doubles it. */
export const FIRST_WAIT_MS = 50;
/** A retry whose wait takes more than this share of the remaining time is not made. */
export const MAX_WAIT_SHARE = 0.25;

/** A request in flight; only `handle` changes it. */
export class RequestState {
  /** @type {Transition | null} Row of the table that applied last. */
  transition = null;
  /** Remaining time at the last event, in milliseconds. */
  leftMs = 0;
  /** @type {Tier[]} Tiers to fail over to, in order. */
  candidates = [];
  /** @type {TierAnswer | null} Answer that was escalated; returned if no later attempt answers. */
  bestAnswer = null;
  /** @type {Set<Tier>} */
  failed = new Set();
  /** @type {DimeeError[]} */
  errors = [];
  /** @type {Map<Tier, DimeeError>} Tiers that were skipped because they failed before. */
  skipped = new Map();
  /** True if the cost ceiling excluded a tier. */
  costCapped = false;
  /** True if the tier that would have taken over was unavailable. */
  preferredUnavailable = false;
  /** @type {"offline" | "unavailable" | null} Set if the mobile answered in place of a server. */
  degradedBecause = null;
  /** Cost of all attempts that have ended, in λ. */
  spentLambda = 0;
  #attempts = 0;
  /** @type {Reason} */
  #reason = "route";
  /** @type {Map<Tier, number>} */
  #retried = new Map();

  /**
   * @param {object} options
   * @param {Tier} options.routedTier
   * @param {number} options.deadlineMs
   * @param {TierSelector} options.selector
   * @param {readonly Tier[]} [options.failOver] tiers that may replace a failed one, in order
   * @param {number} [options.retries] maximum number of retries at one tier
   * @param {() => number} [options.jitter] returns a random number in [0, 1)
   */
  constructor({ routedTier, deadlineMs, selector, failOver = [], retries = 0, jitter = () => 0.5 }) {
    this.routedTier = routedTier;
    this.deadlineMs = deadlineMs;
    this.selector = selector;
    this.failOver = failOver;
    this.retries = retries;
    this.jitter = jitter;
  }

  /**
   * Return the next action after `event`, `spentMs` after the request arrived.
   * @param {Event} event
   * @param {number} spentMs
   * @returns {Action}
   */
  handle(event, spentMs) {
    this.leftMs = this.deadlineMs - spentMs;
    if (event.kind === "started") return this.#started(event, spentMs);
    return event.kind === "answered" ? this.#answered(event) : this.#failed(event);
  }

  /**
   * Return an error if an answer now would come more than `GRACE_MS` after the deadline, else null.
   * @param {number} spentMs
   */
  deadlineError(spentMs) {
    if (spentMs <= this.deadlineMs + GRACE_MS) return null;
    return new DeadlineExceeded(
      `the deadline of ${this.deadlineMs.toFixed(0)} ms passed: ${spentMs.toFixed(0)} ms have gone by since the ` +
        "request arrived; the mobile is overloaded, try again later",
    );
  }

  /** @param {Started} event @param {number} spentMs @returns {Action} */
  #started(event, spentMs) {
    const late = this.deadlineError(spentMs);
    if (late !== null) return this.#giveUp("TOO_LATE", late);
    const routed = this.routedTier;
    // the mobile's own layers do not fail as a server does, so no other tier replaces them
    const substitutes = routed === "mobile" ? [] : this.failOver.filter((tier) => tier !== routed);
    const tiers = [routed, ...substitutes];
    let candidates = this.#select(tiers);
    const reroutedToMobile = candidates.length === 0 && this.costCapped;
    if (reroutedToMobile) candidates = this.#select(["mobile"]);
    if (candidates.length === 0) {
      const error = [...this.skipped.values()].at(-1) ?? this.selector.ceilingError([...tiers, "mobile"]);
      return this.#giveUp("NO_CANDIDATE", error);
    }
    const nothingFailed = reroutedToMobile || this.skipped.size === 0;
    this.#markPreferredUnavailable(event.preferred ?? null);
    this.candidates = candidates.slice(1);
    if (candidates[0] === routed) return this.#attempt("ROUTE", candidates[0], "route");
    if (nothingFailed) return this.#attempt("REROUTE", candidates[0], "route");
    return this.#attempt("SKIP", candidates[0], "fail_over");
  }

  /** @param {Answered} event @returns {Action} */
  #answered(event) {
    this.spentLambda += event.costLambda;
    this.candidates = [];
    if (this.bestAnswer === event.answer) return this.#accept("REUSED", event);
    const target = event.escalateTo ?? null;
    if (target === null && event.tier === "mobile") this.#markPreferredUnavailable(event.preferred ?? null);
    if (target === null || this.failed.has(target) || this.leftMs <= 0) return this.#accept("ACCEPT", event);
    // the mobile is no candidate: this answer is returned if no server gives a better one
    const excluded = new Set(["mobile", event.tier, target, ...this.failed]);
    const candidates = this.#select([target, ...this.failOver.filter((tier) => !excluded.has(tier))]);
    if (candidates.length === 0) {
      this.preferredUnavailable ||= this.skipped.has(target);
      return this.#accept("ACCEPT", event);
    }
    this.bestAnswer = event.answer;
    this.candidates = candidates.slice(1);
    const direct = candidates[0] === target || !this.skipped.has(target);
    return this.#attempt("ESCALATE", candidates[0], direct ? "escalate" : "fail_over");
  }

  /** @param {Failed} event @returns {Action} */
  #failed(event) {
    this.spentLambda += event.costLambda;
    const { tier, error } = event;
    this.errors.push(error);
    const waitMs = this.#retryWaitMs(event);
    if (waitMs !== null) {
      this.#retried.set(tier, this.#retriesAt(tier) + 1);
      return this.#attempt("RETRY", tier, "retry", waitMs);
    }
    this.failed.add(tier);
    const mayFailOver = isFailureOfTier(error) && this.leftMs > 0;
    this.candidates = mayFailOver ? this.#select(this.candidates) : [];
    const next = this.candidates.shift();
    if (next !== undefined) return this.#attempt("FAIL_OVER", next, "fail_over");
    if (this.bestAnswer !== null) return this.#attempt("FALL_BACK", "mobile", "fail_over");
    return this.#giveUp("GIVE_UP", combineErrors([...this.skipped.values(), ...this.errors]));
  }

  /**
   * Return the wait before a retry at the same tier; null: do not retry.
   * @param {Failed} event
   */
  #retryWaitMs(event) {
    const { tier } = event;
    const serverLeft = this.candidates.some((candidate) => candidate !== "mobile");
    if (serverLeft || this.bestAnswer !== null || !isSafeToRetry(event)) return null;
    const retried = this.#retriesAt(tier);
    if (retried >= this.retries) return null;
    const random = FIRST_WAIT_MS * 2 ** retried * this.jitter();
    const waitMs = Math.max(random, 1e3 * (event.error.retryAfterS ?? 0));
    return waitMs > MAX_WAIT_SHARE * this.leftMs || this.#select([tier]).length === 0 ? null : waitMs;
  }

  /** @param {Tier} tier */
  #retriesAt(tier) {
    return this.#retried.get(tier) ?? 0;
  }

  /**
   * Return the candidates among `tiers`; record why the others are excluded.
   * @param {Iterable<Tier>} tiers
   */
  #select(tiers) {
    const selection = this.selector.select(tiers, this.spentLambda);
    this.costCapped ||= selection.costCapped;
    for (const [tier, error] of selection.unavailable) this.#skip(tier, error);
    return selection.candidates;
  }

  /** @param {Tier} tier @param {DimeeError} error */
  #skip(tier, error) {
    if (!this.failed.has(tier) && !this.skipped.has(tier)) this.skipped.set(tier, error);
  }

  /** Record that the policy chose the mobile because `tier` is unavailable. @param {Tier | null} tier */
  #markPreferredUnavailable(tier) {
    const error = tier === null ? null : this.selector.unavailable(tier);
    if (tier !== null && error !== null) {
      this.#skip(tier, error);
      this.preferredUnavailable = true;
    }
  }

  /**
   * @param {Transition} transition
   * @param {Tier} tier
   * @param {Reason} reason
   * @param {number} [waitMs]
   * @returns {MakeAttempt}
   */
  #attempt(transition, tier, reason, waitMs = 0) {
    this.transition = transition;
    this.#reason = reason;
    this.#attempts += 1;
    return {
      kind: "attempt",
      tier,
      reason,
      ordinal: this.#attempts,
      waitMs,
      // a server that hangs leaves half of the time to the next one
      timeShare: this.candidates.length > 0 ? 0.5 : 1,
      reuses: tier === "mobile" ? this.bestAnswer : null,
    };
  }

  /** @param {Transition} transition @param {Answered} event @returns {Accept} */
  #accept(transition, event) {
    this.transition = transition;
    const standsIn = this.#reason === "fail_over" || this.preferredUnavailable;
    if (event.tier === "mobile" && standsIn) {
      const errors = [...this.skipped.values(), ...this.errors];
      this.degradedBecause = errors.every((error) => error instanceof TierUnreachable) ? "offline" : "unavailable";
    }
    return { kind: "accept", answer: event.answer };
  }

  /** @param {Transition} transition @param {DimeeError} error @returns {GiveUp} */
  #giveUp(transition, error) {
    this.transition = transition;
    return { kind: "give-up", error };
  }
}

/** Return true if a retry cannot do the work twice: nothing was sent, or it was refused. @param {Failed} event */
function isSafeToRetry(event) {
  return event.delivery === "not_sent" || event.error instanceof Overloaded || event.error instanceof NotReady;
}

/** Return true if another tier may do better; false if the input itself was refused. @param {DimeeError} error */
function isFailureOfTier(error) {
  return error instanceof TierError || error instanceof BundleMismatch || error instanceof BundleError;
}

/**
 * Return one error of the last error's class, with each different message once.
 * @param {DimeeError[]} errors
 * @returns {DimeeError}
 */
export function combineErrors(errors) {
  const last = errors[errors.length - 1];
  const messages = [...new Set(errors.map((error) => error.message))];
  if (messages.length === 1) return last;
  const kind = /** @type {new (message: string, facts: object) => DimeeError} */ (last.constructor);
  const { field, limit, retryAfterS } = last;
  return new kind(`no tier answered: ${messages.join("; ")}`, { field, limit, retryAfterS });
}

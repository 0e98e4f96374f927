// Entries of the mobile's attempts, from their start to their end, as
// mobile_client/dispatch/attempts.py records them. Pure: the caller stores what it returns.

import { decisionRecord } from "./decision-record.js";
import { DeadlineExceeded, NotAdmitted, NotReady, RateLimited } from "./errors.js";
import { withFacts } from "./ledger-entry.js";
import { mobileEnergyMj, usd } from "./price-book.js";

/** @import { CostModel } from "./cost-model.js" */
/** @import { Decision, Mode, Reason, State, Tier, TierAnswer } from "./domain.js" */
/** @import { DimeeError } from "./errors.js" */
/** @import { Exchange } from "./exchange.js" */
/** @import { LedgerEntry } from "./ledger-entry.js" */
/** @import { PriceBookFacts } from "./price-book.js" */

/** Writer of entries, by which the ledger tells a browser from the Python client. */
const WRITER = "web";
/** Fields that only the caller's entry has. @type {Partial<LedgerEntry>} */
const CALLER_ONLY = {
  reason: undefined,
  policy: undefined,
  difficulty: undefined,
  decision_ms: undefined,
  decision: undefined,
};

/**
 * One text and its routing decision, shared by all attempts of the request. `textHash` is salted.
 * @typedef {object} RoutedRequest
 * @property {string} requestId
 * @property {Decision} decision
 * @property {number} decisionMs
 * @property {number} tokens
 * @property {string} textHash
 * @property {number} textChars of text and pair together
 * @property {Mode} mode
 * @property {number | null} maxCostLambda
 */

/** Builds the entries of attempts at one bundle and with one set of prices. */
export class AttemptEntries {
  /**
   * @param {object} options
   * @param {CostModel} options.costModel
   * @param {PriceBookFacts} options.priceBook
   * @param {string} options.bundleId
   */
  constructor({ costModel, priceBook, bundleId }) {
    this.costModel = costModel;
    this.priceBook = priceBook;
    this.bundleId = bundleId;
  }

  /**
   * Return the caller's entry of an attempt that begins.
   * @param {RoutedRequest} request
   * @param {object} attempt
   * @param {string} attempt.attemptId of `newId({of: requestId})`
   * @param {number} attempt.ordinal
   * @param {Tier} attempt.tier
   * @param {Reason} attempt.reason
   * @param {number} attempt.startedAt seconds since 1970
   * @param {string | null} [attempt.replica] that the attempt goes to, if it is known
   * @returns {LedgerEntry}
   */
  open(request, { attemptId, ordinal, tier, reason, startedAt, replica = null }) {
    const { decision } = request;
    const first = ordinal === 1;
    const record = first ? decisionRecord(decision, request.mode, request.maxCostLambda) : null;
    /** @type {LedgerEntry} */
    const entry = {
      attempt_id: attemptId,
      side: "caller",
      request_id: request.requestId,
      ordinal,
      tier,
      state: "open",
      reason,
      policy: decision.policy,
      writer: WRITER,
      bundle_id: this.bundleId,
      started_at: startedAt,
      text_hash: request.textHash,
      text_chars: request.textChars,
      tokens: request.tokens,
    };
    return withFacts(entry, {
      replica: replica ?? undefined,
      difficulty: decision.difficulty ?? undefined,
      decision_ms: first ? request.decisionMs : undefined,
      decision: record ?? undefined,
    });
  }

  /**
   * Return both sides of an attempt on the mobile that has ended with an answer, the tier's first.
   *
   * If `reused`, the answer comes from an earlier attempt, which has the work and the cost.
   * @param {LedgerEntry} entry of `open`
   * @param {TierAnswer} answer
   * @param {number} totalMs
   * @param {{reused?: boolean, final: boolean, withheldBecause?: string | null}} end `final` if no
   *   attempt follows; `withheldBecause` is the reason for an answer other than the policy's choice
   * @returns {[LedgerEntry, LedgerEntry]}
   */
  closeLocal(entry, answer, totalMs, { reused = false, final, withheldBecause = null }) {
    /** @type {Partial<LedgerEntry>} */
    const facts = {
      state: "answered",
      label: answer.label,
      confidence: answer.confidence,
      exit_layer: answer.exitLayer,
      queue_ms: reused ? 0 : answer.queueMs,
      compute_ms: reused ? 0 : answer.computeMs,
      tier_ms: totalMs,
    };
    const tierSide = withFacts(entry, { ...facts, side: "tier", ...CALLER_ONLY });
    const costLambda = reused ? 0 : this.costModel.attempt("mobile", answer.exitLayer);
    const seen = { ...facts, delivery: /** @type {const} */ ("arrived"), round_trip_ms: totalMs, network_ms: 0 };
    return [tierSide, this.#ended(entry, seen, costLambda, final, withheldBecause)];
  }

  /**
   * Return the caller's entry of an attempt at another tier that has ended.
   * @param {LedgerEntry} entry of `open`
   * @param {Exchange} exchange
   * @param {{final: boolean, withheldBecause?: string | null}} end as in `closeLocal`
   * @returns {LedgerEntry}
   */
  closeExchange(entry, exchange, { final, withheldBecause = null }) {
    /** @type {Partial<LedgerEntry>} */
    const facts = {
      delivery: exchange.delivery,
      sent_bytes: exchange.sentBytes,
      received_bytes: exchange.receivedBytes,
      round_trip_ms: exchange.roundTripMs,
      replica: exchange.replica ?? undefined,
    };
    const { answer } = exchange;
    const outcome =
      answer === null
        ? { state: stateOf(exchange), error_code: exchange.error?.code }
        : {
            state: /** @type {const} */ ("answered"),
            label: answer.label,
            confidence: answer.confidence,
            exit_layer: answer.exit_layer,
            tokens: answer.tokens,
            queue_ms: answer.queue_ms,
            compute_ms: answer.compute_ms,
            tier_ms: answer.tier_ms,
            network_ms: Math.max(0, exchange.roundTripMs - answer.tier_ms),
          };
    return this.#ended(entry, { ...facts, ...outcome }, this.costLambda(entry.tier, exchange), final, withheldBecause);
  }

  /**
   * Return the caller's entry of an attempt whose work was cancelled or raised an error; it is the
   * request's final one. Without an error it is abandoned.
   * @param {LedgerEntry} entry of `open`
   * @param {DimeeError | null} error
   * @param {{elapsedMs: number, waiting: boolean}} time `waiting` if a retry had not begun
   * @returns {LedgerEntry}
   */
  closeInterrupted(entry, error, { elapsedMs, waiting }) {
    /** @type {State} */
    let state = "abandoned";
    if (error !== null) state = error instanceof DeadlineExceeded ? "timed_out" : "failed";
    /** @type {Partial<LedgerEntry>} */
    const facts = {
      state,
      error_code: error?.code,
      delivery: waiting ? "not_sent" : "unknown",
      round_trip_ms: waiting ? 0 : elapsedMs,
    };
    return this.#ended(entry, facts, this.costModel.wasted(entry.tier, !waiting), true, null);
  }

  /**
   * Return the cost in λ of an exchange with `tier`.
   * @param {Tier} tier
   * @param {Exchange} exchange
   */
  costLambda(tier, exchange) {
    if (exchange.answer === null) return this.costModel.wasted(tier, exchange.delivery !== "not_sent");
    return this.costModel.attempt(tier, exchange.answer.exit_layer);
  }

  /**
   * @param {LedgerEntry} entry
   * @param {Partial<LedgerEntry>} facts
   * @param {number} costLambda
   * @param {boolean} final
   * @param {string | null} withheldBecause
   */
  #ended(entry, facts, costLambda, final, withheldBecause) {
    const computeMs = facts.compute_ms ?? 0;
    const movedBytes = (facts.sent_bytes ?? 0) + (facts.received_bytes ?? 0);
    const withheld = final && withheldBecause !== null && facts.state === "answered";
    return withFacts(entry, {
      ...facts,
      ...(withheld ? { error_code: withheldBecause } : {}),
      final,
      cost_lambda: costLambda,
      cost_usd: usd(this.priceBook, entry.tier, computeMs, movedBytes),
      energy_mj: mobileEnergyMj(this.priceBook, entry.tier, computeMs, movedBytes),
      price_book: this.priceBook.version,
      all_cloud_lambda: final ? this.costModel.allCloud : undefined,
    });
  }
}

/** Return the state of an exchange without an answer. @param {Exchange} exchange @returns {State} */
function stateOf({ error, delivery }) {
  if (error instanceof DeadlineExceeded) return "timed_out";
  const refused = error instanceof NotAdmitted || error instanceof RateLimited || error instanceof NotReady;
  return refused || (delivery === "arrived" && error !== null && error.status !== 500) ? "refused" : "failed";
}

// Entries of attempts: what is recorded of bytes, money and energy, and of attempts without an end.

import assert from "node:assert/strict";
import { test } from "node:test";

import { AttemptEntries } from "../../mobile_client/web/static/js/core/attempt-entries.js";
import { CostModel } from "../../mobile_client/web/static/js/core/cost-model.js";
import { decisionRecord } from "../../mobile_client/web/static/js/core/decision-record.js";
import { decisionOf } from "../../mobile_client/web/static/js/core/domain.js";
import { BundleError, DeadlineExceeded, TierUnreachable } from "../../mobile_client/web/static/js/core/errors.js";
import { DEFAULT_PRICE_BOOK } from "../../mobile_client/web/static/js/core/price-book.js";

/** @import { Exchange } from "../../mobile_client/web/static/js/core/exchange.js" */

const PRICES = { mobile_layer: 3, edge_layer: 2, offload_edge: 2.5, offload_cloud: 3, cloud_fee: 15 };
const entries = new AttemptEntries({
  costModel: new CostModel(PRICES, 6),
  priceBook: DEFAULT_PRICE_BOOK,
  bundleId: "b",
});
const REQUEST = {
  requestId: "r",
  decision: decisionOf("edge", "dimee-fixed", { difficulty: "moderate", distances: [0.123456789, 2] }),
  decisionMs: 0.4,
  tokens: 12,
  textHash: "h",
  textChars: 40,
  mode: /** @type {const} */ ("auto"),
  maxCostLambda: null,
};
/** @type {Exchange} */
const EXCHANGE = {
  delivery: "arrived",
  sentBytes: 1_000,
  receivedBytes: 500,
  roundTripMs: 40,
  answer: {
    attempt_id: "a",
    tier: "edge",
    label: "positive",
    probabilities: { positive: 0.9, negative: 0.1 },
    confidence: 0.9,
    exit_layer: 3,
    tokens: 12,
    truncated: false,
    bundle_id: "b",
    queue_ms: 1,
    compute_ms: 36,
    tier_ms: 38,
  },
  error: null,
  replica: "edge-1",
};

/** @param {number} ordinal */
function open(ordinal) {
  return entries.open(REQUEST, { attemptId: `a${ordinal}`, ordinal, tier: "edge", reason: "route", startedAt: 5 });
}

test("only the first attempt has the decision and its time", () => {
  assert.deepEqual([open(1).decision, open(1).decision_ms], ['{"distances":[0.123457,2]}', 0.4]);
  assert.deepEqual([open(2).decision, open(2).decision_ms], [undefined, undefined]);
  assert.equal(open(2).difficulty, "moderate");
});

test("a mode and a ceiling are part of the record, and a decision without inputs has none", () => {
  const decision = decisionOf("cloud", "cloud");
  assert.equal(decisionRecord(decision, "auto", null), null);
  assert.equal(decisionRecord(decision, "edge-max", 3.5), '{"mode":"edge-max","max_cost_lambda":3.5}');
});

test("an exchange is priced by its layers, time and bytes", () => {
  const entry = entries.closeExchange(open(1), EXCHANGE, { final: true });
  assert.equal(entry.cost_lambda, 2.5 + 2 * 3);
  assert.equal(entry.all_cloud_lambda, 18);
  assert.equal(entry.cost_usd, (0.05 * 36) / 3.6e6 + (2 * 1_500) / 1e9);
  assert.equal(entry.energy_mj, (500 * 1_500) / 1e6);
  assert.deepEqual([entry.network_ms, entry.replica, entry.price_book], [2, "edge-1", "2026-11-defaults"]);
});

test("a failed attempt costs its offload only if something was sent", () => {
  const failed = { ...EXCHANGE, answer: null, error: new TierUnreachable("gone"), replica: null };
  const lost = entries.closeExchange(open(1), { ...failed, delivery: "unknown" }, { final: false });
  const unsent = entries.closeExchange(open(1), { ...failed, delivery: "not_sent", sentBytes: 0 }, { final: false });
  assert.deepEqual([lost.state, lost.cost_lambda, lost.all_cloud_lambda], ["failed", 2.5, undefined]);
  assert.deepEqual([unsent.cost_lambda, unsent.error_code, unsent.final], [0, "tier_unreachable", false]);
});

test("both sides of a local answer have the work, and the caller's has the cost", () => {
  const probabilities = { positive: 0.9, negative: 0.1 };
  const answer = { label: "positive", labelIndex: 1, probabilities, confidence: 0.9, meetsAlpha: true, exitLayer: 2 };
  const timed = { ...answer, truncated: false, queueMs: 1, computeMs: 4 };
  const start = { ...open(1), tier: /** @type {const} */ ("mobile") };
  const [tierSide, callerSide] = entries.closeLocal(start, timed, 6, { final: true });
  assert.deepEqual([tierSide.side, tierSide.tier_ms, tierSide.cost_lambda, tierSide.policy], ["tier", 6, undefined, undefined]);
  assert.deepEqual([callerSide.cost_lambda, callerSide.energy_mj, callerSide.delivery], [6, 10, "arrived"]);
  const [, reused] = entries.closeLocal(start, timed, 1, { reused: true, final: true, withheldBecause: "offline" });
  assert.deepEqual([reused.cost_lambda, reused.compute_ms, reused.error_code], [0, 0, "offline"]);
});

test("an interrupted attempt is abandoned, timed out or failed, and ends its request", () => {
  const running = { elapsedMs: 30, waiting: false };
  for (const [error, state, code] of /** @type {const} */ ([
    [null, "abandoned", undefined],
    [new DeadlineExceeded("late"), "timed_out", "deadline_exceeded"],
    [new BundleError("damaged"), "failed", "bundle_invalid"],
  ])) {
    const entry = entries.closeInterrupted(open(1), error, running);
    assert.deepEqual([entry.state, entry.error_code, entry.final, entry.delivery], [state, code, true, "unknown"]);
    assert.deepEqual([entry.cost_lambda, entry.round_trip_ms], [2.5, 30]);
  }
  const waiting = entries.closeInterrupted(open(1), null, { elapsedMs: 30, waiting: true });
  assert.deepEqual([waiting.delivery, waiting.cost_lambda, waiting.round_trip_ms], ["not_sent", 0, 0]);
});

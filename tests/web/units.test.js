// The core's modules alone: what they refuse, and what they keep.

import assert from "node:assert/strict";
import { test } from "node:test";

import { checkParts } from "../../mobile_client/web/static/js/core/bundle-check.js";
import { CircuitBreaker } from "../../mobile_client/web/static/js/core/circuit-breaker.js";
import { CostModel } from "../../mobile_client/web/static/js/core/cost-model.js";
import * as errors from "../../mobile_client/web/static/js/core/errors.js";
import { newId } from "../../mobile_client/web/static/js/core/ids.js";
import { endsOfOpenAttempts, problemOf, withFacts } from "../../mobile_client/web/static/js/core/ledger-entry.js";
import { checkOptions } from "../../mobile_client/web/static/js/core/options.js";
import { makePolicy } from "../../mobile_client/web/static/js/core/policies.js";
import { readRouter } from "../../mobile_client/web/static/js/core/router.js";
import { readSafetensors } from "../../mobile_client/web/static/js/core/safetensors.js";
import { charsOf, checkInput } from "../../mobile_client/web/static/js/core/text-checks.js";
import { createTextEncoder, keptLengths } from "../../mobile_client/web/static/js/core/text-encoder.js";

/** @import { LedgerEntry } from "../../mobile_client/web/static/js/core/ledger-entry.js" */
/** @import { PolicyFacts } from "../../mobile_client/web/static/js/core/policies.js" */

const PRICES = { mobile_layer: 3, edge_layer: 2, offload_edge: 2.5, offload_cloud: 3, cloud_fee: 15 };

/** @type {PolicyFacts} */
const FACTS = {
  centroids: [Float32Array.of(0, 0), Float32Array.of(1, 1), Float32Array.of(NaN, NaN)],
  counts: [4, 2, 0],
  alpha: 0.8,
  mu: 0.1,
  classes: 2,
  mobileLayers: 2,
  costModel: new CostModel(PRICES, 6),
  heads: null,
};

/** @type {LedgerEntry} */
const ENTRY = {
  attempt_id: "a",
  side: "caller",
  request_id: "r",
  ordinal: 1,
  tier: "edge",
  state: "open",
  writer: "mobile",
  bundle_id: "b",
  started_at: 1.5,
};

/** @param {number} first @param {number} second */
function features(first, second) {
  return { embedding: Float32Array.of(first, second), tokens: 5, rarePieces: 0, pair: null };
}

test("an identifier begins with the time of its request", () => {
  const request = newId({ nowMs: 1_800_000_000_000 });
  assert.match(request, /^01a3185c5000[0-9a-f]{20}$/);
  assert.match(request, /^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  assert.equal(newId({ of: request, nowMs: 5 }).slice(0, 12), request.slice(0, 12));
  assert.notEqual(newId({ of: request }), newId({ of: request }));
});

test("a policy that learns continues from its state, and refuses another one", () => {
  for (const name of ["dimee-adaptive", "adaee"]) {
    const first = makePolicy(name, FACTS);
    const outcome = { tier: /** @type {const} */ ("mobile"), exitLayer: 2, confidence: 0.9, costLambda: 6, label: 0 };
    for (let i = 0; i < 30; i += 1) first.learn(first.route(features(0.3, i / 30)), outcome);
    const second = makePolicy(name, FACTS);
    assert.ok(second.restore(JSON.parse(JSON.stringify(first.state()))));
    assert.deepEqual(second.state(), first.state());
    assert.deepEqual(second.route(features(0.6, 0.6)), first.route(features(0.6, 0.6)));
    const before = second.state();
    for (const other of [null, 3, {}, { centroids: [[1]], counts: [1, 2, 3] }, { plays: [1], means: [1] }]) {
      assert.equal(second.restore(other), false);
    }
    assert.deepEqual(second.state(), before);
  }
});

test("policies that cannot run here are refused with the reason", () => {
  for (const [name, reason] of [
    ["bert", /needs all layers/],
    ["i-splitee", /needs all layers/],
    ["random", /random number generator/],
    ["toString", /is not known/],
  ]) {
    assert.throws(() => makePolicy(String(name), FACTS), { name: "InvalidInput", message: reason });
  }
});

test("a text that Python refuses is refused", () => {
  const single = { pairs: false, task: "sst2" };
  checkInput("a film", null, single);
  checkInput("x".repeat(20_000), null, single);
  assert.equal(charsOf("a👍🏽"), 3);
  for (const text of ["", " \t\u3000", "\x1c", "a\0b", "a\ud800b"]) {
    assert.throws(() => checkInput(text, null, single), errors.InvalidInput);
  }
  assert.throws(() => checkInput("a\ud800", null, single), /lone surrogate at character 2/);
  assert.throws(() => checkInput("x".repeat(20_001), null, single), errors.TooLarge);
  assert.throws(() => checkInput("a", "b", single), /uses none/);
  assert.throws(() => checkInput("a", null, { pairs: true, task: "mrpc" }), /second text/);
  assert.throws(() => checkInput("a", " ", { pairs: true, task: "mrpc" }), { field: "pair" });
});

test("options out of bounds are refused", () => {
  const sound = { mode: "auto", deadlineMs: 100, maxCostLambda: null };
  checkOptions(sound);
  for (const wrong of [{ mode: "fast" }, { deadlineMs: 0.5 }, { deadlineMs: NaN }, { maxCostLambda: 0 }]) {
    assert.throws(() => checkOptions({ ...sound, ...wrong }), errors.InvalidInput);
  }
});

test("an entry that the ledger would refuse is refused", () => {
  assert.equal(problemOf({ ...ENTRY }), null);
  const answered = withFacts(ENTRY, { state: "answered", label: "x", exit_layer: 2, confidence: 0.5 });
  assert.equal(answered.state, "answered");
  for (const [facts, problem] of /** @type {[object, RegExp][]} */ ([
    [{ confidence: NaN }, /confidence/],
    [{ state: "answered" }, /needs exit_layer and label/],
    [{ side: "tier", delivery: "arrived" }, /recorded by the caller only/],
    [{ sent_bytes: 1.5 }, /sent_bytes/],
    [{ policy: "x".repeat(65) }, /policy/],
    [{ text: "secret" }, /text: is not a known field/],
    [{ attempt_id: undefined }, /attempt_id: field required/],
  ])) {
    assert.throws(() => withFacts(ENTRY, facts), { name: "TierFailed", message: problem });
  }
});

test("open attempts of a closed page are abandoned, and the first of a request is its last", () => {
  const open = [
    { ...ENTRY, attempt_id: "a2", ordinal: 2 },
    { ...ENTRY, attempt_id: "a1" },
    { ...ENTRY, attempt_id: "b1", request_id: "r2" },
  ];
  const ends = endsOfOpenAttempts(open);
  assert.deepEqual(
    ends.map((entry) => [entry.attempt_id, entry.final, entry.state, entry.error_code, entry.delivery]),
    [
      ["a2", false, "abandoned", "process_died", "unknown"],
      ["a1", true, "abandoned", "process_died", "unknown"],
      ["b1", true, "abandoned", "process_died", "unknown"],
    ],
  );
});

test("a server's error is read as its class, and another server's is none of ours", () => {
  const body = { error: { code: "overloaded", message: "full\u0007", retry_after_s: 2, limit: "x" } };
  const error = errors.fromPayload(body, 429);
  assert.ok(error instanceof errors.Overloaded);
  assert.deepEqual([error.message, error.retryAfterS, error.limit], ["full?", 2, null]);
  assert.ok(errors.isErrorDocument(body, 429));
  assert.ok(!errors.isErrorDocument(body, 503));
  assert.ok(errors.isErrorDocument({ error: { code: "internal", message: "x" } }, 500));
  for (const other of [null, [], {}, { error: "x" }, { error: { code: "x", message: "y" } }, { ...body, a: 1 }]) {
    assert.ok(!errors.isErrorDocument(other, 429));
    assert.ok(errors.fromPayload(other, 502) instanceof errors.DimeeError);
  }
});

test("a breaker opens after three failures, allows one trial, and closes by a ready tier", () => {
  let now = 100;
  const breaker = new CircuitBreaker(() => now);
  for (let i = 0; i < 3; i += 1) breaker.recordFailure(breaker.beginAttempt(), { unreachable: true });
  assert.deepEqual([breaker.state, breaker.allowsAttempt(), breaker.leftS], ["open", false, 5]);
  now += 5;
  const trial = breaker.beginAttempt();
  assert.deepEqual([breaker.state, breaker.allowsAttempt()], ["half-open", false]);
  breaker.recordFailure(trial, { unreachable: true });
  assert.equal(breaker.leftS, 10);
  breaker.recordReady();
  assert.deepEqual([breaker.state, breaker.available, breaker.readiness], ["closed", true, "ready"]);
});

test("a broken connection leaves what was known of a tier, and asks for a probe", () => {
  const breaker = new CircuitBreaker(() => 100);
  breaker.recordFailure(null, { unreachable: true });
  breaker.recordFailure(null);
  assert.deepEqual([breaker.readiness, breaker.lastUnreachable, breaker.needsProbe], ["unreachable", true, true]);
  breaker.recordNotReady(false);
  breaker.recordFailure(null);
  assert.deepEqual([breaker.readiness, breaker.lastUnreachable, breaker.needsProbe], ["not ready", false, true]);
  breaker.recordReady();
  breaker.recordFailure(null);
  assert.deepEqual([breaker.readiness, breaker.lastUnreachable, breaker.needsProbe], ["ready", false, false]);
});

test("the longest text is cut first", () => {
  assert.deepEqual(keptLengths([5, 9], 20), [5, 9]);
  assert.deepEqual(keptLengths([3, 20], 10), [3, 7]);
  assert.deepEqual(keptLengths([20, 3], 10), [7, 3]);
  assert.deepEqual(keptLengths([9, 9], 11), [5, 6]);
  assert.deepEqual(keptLengths([20, 30], 5), [2, 3]);
  assert.deepEqual(keptLengths([30, 20], 5), [3, 2]);
});

test("damaged files of a bundle are refused with a sentence", () => {
  const centroids = { dtype: "float32", shape: [3, 1], values: [1, 2, 3] };
  const counts = { dtype: "int64", shape: [3], values: [1, 1, 1] };
  const router = { format_version: 1, arrays: { centroids, counts } };
  assert.equal(readRouter(router, 2).heads, null);
  for (const wrong of [
    null,
    { ...router, format_version: 2 },
    { ...router, arrays: { counts } },
    { ...router, arrays: { centroids: { ...centroids, values: [1, 2] }, counts } },
    { ...router, arrays: { centroids: { ...centroids, values: [1, null, 3] }, counts } },
    { ...router, arrays: { centroids, counts: { ...counts, values: [0, 0, 0] } } },
    { ...router, arrays: { centroids, counts, heads_bias_K: { dtype: "float64", shape: [1], values: [1] } } },
  ]) {
    assert.throws(() => readRouter(wrong, 2), { name: "BundleError", message: /router\.json cannot be used/ });
  }
  for (const size of [0, 8, 40]) {
    assert.throws(() => readSafetensors(new Uint8Array(size).fill(255).buffer), errors.BundleError);
  }
  for (const tokenizer of [null, {}, { normalizer: null, model: { type: "Unigram" } }]) {
    assert.throws(() => createTextEncoder(tokenizer, 16), errors.BundleError);
  }
});

test("parts that do not fit together are refused", () => {
  const manifest = /** @type {any} */ ({ hidden_size: 4, max_tokens: 16 });
  const encoder = { vocabulary: 10 };
  const embeddings = { size: 2, hiddenSize: 4, vocabulary: 10, maxTokens: 16 };
  checkParts(manifest, encoder, embeddings, FACTS);
  for (const wrong of [{ hiddenSize: 2 }, { maxTokens: 15 }, { vocabulary: 9 }, { size: 3 }]) {
    assert.throws(() => checkParts(manifest, encoder, { ...embeddings, ...wrong }, FACTS), errors.BundleError);
  }
});

// Evaluates the shared cases in JavaScript and compares results with those of Python; as evaluate.py.

import { Conditions } from "../../mobile_client/web/static/js/core/conditions.js";
import { CostModel } from "../../mobile_client/web/static/js/core/cost-model.js";
import { prepare } from "../../mobile_client/web/static/js/core/decide.js";
import { DimeeError } from "../../mobile_client/web/static/js/core/errors.js";
import { meetsThreshold } from "../../mobile_client/web/static/js/core/layers.js";
import { factsOf, makePolicy } from "../../mobile_client/web/static/js/core/policies.js";
import { mobileEnergyMj, usd } from "../../mobile_client/web/static/js/core/price-book.js";
import { readRouter } from "../../mobile_client/web/static/js/core/router.js";
import { runSession } from "./session.js";

/** @import { Decision, Outcome } from "../../mobile_client/web/static/js/core/domain.js" */
/** @import { Model } from "./model.js" */

/**
 * @typedef {{name: string, kind: string, input: any, expected: any}} Case
 * @typedef {{bounds: Record<string, Record<string, number>>, routers: Record<string, unknown>, cases: Case[]}} CaseFile
 */

const SHOWN = 8;

/**
 * Return the differences of all cases of a kind, each with the case's name.
 * @param {CaseFile} file
 * @param {Model} model
 * @param {string} kind
 */
export async function differences(file, model, kind) {
  const found = [];
  let run = 0;
  for (const one of file.cases.filter((candidate) => candidate.kind === kind)) {
    const result = await evaluate(one, file, model);
    // what JSON has no form for is compared as JSON has it
    const place = difference(JSON.parse(JSON.stringify(result)), one.expected, file.bounds[kind]);
    if (place !== null) found.push(`${one.name}${place}`);
    run += 1;
  }
  return { run, found };
}

/**
 * Return the result of a case.
 * @param {Case} one
 * @param {CaseFile} file
 * @param {Model} model
 * @returns {Promise<unknown>}
 */
async function evaluate({ kind, input }, file, model) {
  switch (kind) {
    case "encode":
      return refused(() => encode(input, model));
    case "features":
      return features(input, model);
    case "decide":
      return refused(() => decide(input, file, model));
    case "classify":
      return classify(input, model);
    case "prices":
      return prices(input);
    default:
      return runSession(input, model);
  }
}

/** @param {any} input @param {Model} model */
function encode(input, model) {
  const encoded = model.encoderOf(input.max_tokens).encode(input.text, input.pair);
  return {
    ids: encoded.ids,
    type_ids: encoded.typeIds.join(""),
    content: bits(encoded.content),
    second: encoded.second === null ? null : bits(encoded.second),
    truncated: encoded.truncated,
    rare_pieces: encoded.rarePieces,
  };
}

/** @param {any} input @param {Model} model */
function features(input, model) {
  const { encoded, features: found } = prepare(model.encoder, model.embeddings, input.text, input.pair);
  const hidden = model.embeddings.firstHidden(encoded);
  return {
    tokens: encoded.tokens,
    embedding: vector(found.embedding),
    pair: found.pair === null ? null : Array.from(found.pair),
    last_hidden: vector(hidden.subarray(-model.manifest.hidden_size)),
  };
}

/** @param {any} input @param {Model} model */
async function classify(input, model) {
  const encoded = model.encoder.encode(input.text);
  const hidden = model.embeddings.firstHidden(encoded);
  const range = { last: input.last, firstExit: input.first_exit };
  const answer = await model.layers.classify(hidden, encoded.tokens, input.alpha, range);
  return {
    label: answer.labelIndex,
    exit_layer: answer.exitLayer,
    probabilities: model.manifest.labels.map((label) => answer.probabilities[label]),
    exits: answer.exits.map(({ confidence }) => confidence),
  };
}

/** @param {any} input @param {CaseFile} file @param {Model} model */
function decide(input, file, model) {
  const router = input.router === "bundle" ? null : readRouter(file.routers[input.router], model.manifest.labels.length);
  const policy = makePolicy(input.policy, router === null ? model.facts : factsOf(model.manifest, router));
  policy.useConditions(conditionsOf(input.conditions));
  const decisions = [];
  for (const text of input.texts) {
    const found = prepare(model.encoder, model.embeddings, text.text, text.pair).features;
    const decision = policy.route(found);
    const alpha = decision.alpha ?? model.manifest.alpha;
    const escalations = text.answers.map((/** @type {any} */ answer) => {
      const outcome = outcomeOf(answer);
      const reaches = outcome.tier === "cloud" || meetsThreshold(outcome.confidence, alpha);
      return policy.escalate(found, decision, outcome, reaches);
    });
    decisions.push({ ...decisionFacts(decision), escalations });
    if (text.reward !== null) policy.learn(decision, outcomeOf(text.reward));
  }
  return { decisions };
}

/** @param {any} given */
function conditionsOf(given) {
  const conditions = new Conditions(new CostModel(given.cost_model, 6));
  conditions.delayMs = given.delay_ms;
  conditions.up = given.up;
  conditions.latencyPriceLambda = given.latency_price_lambda;
  conditions.leftMs = given.left_ms;
  return conditions;
}

/** @param {any} given @returns {Outcome} */
function outcomeOf(given) {
  return {
    tier: given.tier,
    exitLayer: given.exit_layer,
    confidence: given.confidence,
    costLambda: given.cost_lambda,
    label: given.label,
  };
}

/** @param {Decision} decision */
function decisionFacts(decision) {
  return {
    tier: decision.tier,
    policy: decision.policy,
    difficulty: decision.difficulty,
    alpha: decision.alpha,
    escalate_to: decision.escalateTo,
    distances: decision.distances,
    expected_values: decision.expectedValues,
    expectation: decision.expectation,
  };
}

/** @param {any} input */
function prices(input) {
  const model = new CostModel(input.cost_model, 6);
  const measured = /** @type {const} */ ([input.tier, input.compute_ms, input.moved_bytes]);
  return {
    attempt: model.attempt(input.tier, input.exit_layer),
    sent: model.wasted(input.tier, true),
    not_sent: model.wasted(input.tier, false),
    all_cloud: model.allCloud,
    usd: usd(input.price_book, ...measured),
    energy_mj: mobileEnergyMj(input.price_book, ...measured),
  };
}

/** @param {() => unknown} work */
function refused(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof DimeeError)) throw error;
    return { error: error.code, field: error.field };
  }
}

/** @param {boolean[]} values */
function bits(values) {
  return values.map(Number).join("");
}

/** @param {Float32Array} values */
function vector(values) {
  return {
    first: Array.from(values.subarray(0, SHOWN)),
    sum: values.reduce((sum, x) => sum + x, 0),
    norm: Math.sqrt(values.reduce((sum, x) => sum + x * x, 0)),
  };
}

/**
 * Return the first difference of two JSON values, with its place; null if there is none. A bound of a
 * field holds for all below it.
 * @param {any} found
 * @param {any} expected
 * @param {Record<string, number>} bounds
 * @param {number} [bound]
 * @param {string} [path]
 * @returns {string | null}
 */
export function difference(found, expected, bounds, bound = bounds[""], path = "") {
  const kind = kindOf(expected);
  if (kind !== kindOf(found)) return `${path}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`;
  if (kind === "number") return Math.abs(found - expected) <= bound ? null : `${path}: ${found}, not ${expected}`;
  if (kind !== "object" && kind !== "array") return found === expected ? null : `${path}: ${found}, not ${expected}`;
  const keys = Object.keys(expected);
  if (keys.toSorted().join() !== Object.keys(found).toSorted().join()) {
    return `${path}: has ${Object.keys(found)} instead of ${keys}`;
  }
  for (const key of keys) {
    const place = difference(found[key], expected[key], bounds, bounds[key] ?? bound, `${path}.${key}`);
    if (place !== null) return place;
  }
  return null;
}

/** @param {unknown} value */
function kindOf(value) {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}

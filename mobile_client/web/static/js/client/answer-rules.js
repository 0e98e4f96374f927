// Checks that a tier's answer is a valid answer to the attempt that asked for it.

/** Largest body of an answer; 1,000 labels of 256 characters fit in. */
export const MAX_ANSWER_BYTES = 1024 * 1024;
/** Largest difference of a confidence from its label's probability, and of a sum from 1. */
const TOLERANCE = 1e-3;
/** A tier's times may exceed the caller's round trip by this much and a tenth: two clocks differ. */
const CLOCK_SLACK_MS = 100;
const MAX_MS = 1e12;
const MAX_LAYERS = 1000;

/** @import { Tier } from "../core/domain.js" */
/** @import { InferResponse } from "../core/exchange.js" */
/**
 * @typedef {object} AnswerRules Values that every answer of one tier must have.
 * @property {Tier} tier
 * @property {string} bundleId
 * @property {string[]} labels
 * @property {number} firstExit First layer at which the tier answers.
 * @property {number} lastExit
 * @property {number} maxTokens
 */

/**
 * Return whether a JSON value has the fields of `InferResponse` and no others.
 * @param {any} body
 * @returns {body is InferResponse}
 */
export function isInferResponse(body) {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return false;
  const { resumed_after: resumedAfter = null, ...given } = body;
  const names = Object.keys(FIELDS);
  return (
    resumedAfter === null &&
    Object.keys(given).length === names.length &&
    names.every((name) => Object.hasOwn(given, name) && FIELDS[name](given[name]))
  );
}

/**
 * Return why the answer is not valid, with what to do; null if it is valid.
 * @param {AnswerRules} rules
 * @param {InferResponse} answer
 * @param {string} attemptId
 * @param {number} roundTripMs
 * @returns {string | null}
 */
export function problemOf(rules, answer, attemptId, roundTripMs) {
  if (answer.attempt_id !== attemptId) {
    return "with the answer to another attempt; send its requests to one server only";
  }
  if (answer.tier !== rules.tier) return `as the ${answer.tier}; correct its address`;
  if (answer.bundle_id !== rules.bundleId) {
    return `from the bundle '${answer.bundle_id.slice(0, 64)}'; start both with ${rules.bundleId}`;
  }
  if (!(rules.firstExit <= answer.exit_layer && answer.exit_layer <= rules.lastExit)) {
    return (
      `at layer ${answer.exit_layer}, and it has exits from ${rules.firstExit} to ` +
      `${rules.lastExit}; start all tiers with the same DIMEE_EDGE_LAYERS`
    );
  }
  const wrong = wrongField(rules, answer, roundTripMs);
  return wrong === null ? null : `with a wrong ${wrong}; run the same version of dimee everywhere`;
}

/**
 * Return whether the JSON value of `/readyz` is this tier's own, with the same bundle.
 * @param {AnswerRules} rules
 * @param {any} body
 * @returns {boolean}
 */
export function saysReady(rules, body) {
  return body?.status === "ready" && body.tier === rules.tier && body.bundle_id === rules.bundleId;
}

/** @param {AnswerRules} rules @param {InferResponse} answer @param {number} roundTripMs */
function wrongField(rules, answer, roundTripMs) {
  const { probabilities, label, confidence } = answer;
  if (!(1 <= answer.tokens && answer.tokens <= rules.maxTokens)) return "number of tokens";
  const known = rules.labels.every((name) => Object.hasOwn(probabilities, name));
  if (!known || Object.keys(probabilities).length !== rules.labels.length || !rules.labels.includes(label)) {
    return "label";
  }
  const values = Object.values(probabilities);
  const sum = values.reduce((total, value) => total + value, 0);
  if (!(Math.abs(sum - 1) <= TOLERANCE)) return "probability";
  const own = probabilities[label];
  if (!(own >= Math.max(...values) - TOLERANCE && Math.abs(own - confidence) <= TOLERANCE)) {
    return "confidence";
  }
  const longestMs = roundTripMs * 1.1 + CLOCK_SLACK_MS;
  const times = [answer.tier_ms, answer.compute_ms, answer.queue_ms];
  return times.every((ms) => ms <= longestMs) ? null : "time";
}

/** @type {(value: unknown, most: number) => value is number} */
const isNumber = (value, most) => typeof value === "number" && value >= 0 && value <= most;
/** @param {unknown} value */
const isShare = (value) => isNumber(value, 1);
/** @param {unknown} value */
const isDuration = (value) => isNumber(value, MAX_MS);
/** @param {unknown} value @param {number} most */
const isText = (value, most) =>
  typeof value === "string" && value.length >= 1 && value.length <= most && !value.includes("\0");

/** @type {Record<string, (value: any) => boolean>} */
const FIELDS = {
  attempt_id: (value) => isText(value, 64),
  tier: (value) => value === "mobile" || value === "edge" || value === "cloud",
  label: (value) => isText(value, 256),
  probabilities: (value) =>
    typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(isShare),
  confidence: isShare,
  exit_layer: (value) => Number.isInteger(value) && value >= 1 && value <= MAX_LAYERS,
  tokens: (value) => Number.isSafeInteger(value) && value >= 0,
  truncated: (value) => typeof value === "boolean",
  bundle_id: (value) => isText(value, 64),
  queue_ms: isDuration,
  compute_ms: isDuration,
  tier_ms: isDuration,
};

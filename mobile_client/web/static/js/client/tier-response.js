// Reads a tier's response: its answer, its error, or what another server has sent in its place.

import {
  AttemptRepeated,
  BundleMismatch,
  DeadlineExceeded,
  Forbidden,
  NotAdmitted,
  NotReady,
  Overloaded,
  RateLimited,
  TierFailed,
  TierUnreachable,
  Unauthorised,
  fromPayload,
  isErrorDocument,
} from "../core/errors.js";
import { isInferResponse, problemOf } from "./answer-rules.js";

const MAX_ERROR_CHARS = 64 * 1024;
/** Errors that a tier answers to a text that the mobile has already checked. */
const TIER_ERRORS = [AttemptRepeated, BundleMismatch, Overloaded, NotReady, DeadlineExceeded, TierFailed];
/** Errors of the gateway's relay, which is between this page and the tier. */
const RELAY_ERRORS = [...TIER_ERRORS, TierUnreachable, NotAdmitted];

/** @import { Delivery } from "../core/domain.js" */
/** @import { DimeeError } from "../core/errors.js" */
/** @import { InferResponse } from "../core/exchange.js" */
/** @import { AnswerRules } from "./answer-rules.js" */
/** The gateway or a tier refuses this device's token, or wants one. */
export class SignInNeeded extends NotAdmitted {}

/**
 * @typedef {object} Content Content of a response, and whether the tier has got the attempt.
 * @property {Delivery} delivery
 * @property {InferResponse | null} answer
 * @property {DimeeError | null} error
 */

/**
 * Read the response to an attempt.
 *
 * Only a valid answer, or an error in the form of this project, proves that the tier has got an
 * attempt: a load balancer answers in its own form. `relayDelivery` is the header `dimee-delivery`
 * of the gateway's relay, which knows more than the page: it is there if the tier may have no entry.
 * @param {AnswerRules} rules
 * @param {number} status
 * @param {string} body
 * @param {string} attemptId
 * @param {number} roundTripMs
 * @param {string | null} relayDelivery
 * @returns {Content}
 */
export function readResponse(rules, status, body, attemptId, roundTripMs, relayDelivery) {
  const known = relayDelivery === "not_sent" || relayDelivery === "unknown" ? relayDelivery : null;
  if (status !== 200) return readError(rules, status, body, known);
  const document = parsed(body);
  const problem = isInferResponse(document)
    ? problemOf(rules, document, attemptId, roundTripMs)
    : "in an unknown format; run the same version of dimee everywhere";
  if (problem === null) return { delivery: "arrived", answer: /** @type {InferResponse} */ (document), error: null };
  // another server may have answered, and this tier then has no entry
  return failed(known ?? "unknown", invalidAnswer(rules.tier, problem));
}

/**
 * Return the error for a response that is none of the tier's.
 * @param {string} tier
 * @param {string} problem
 */
export function invalidAnswer(tier, problem) {
  return new TierFailed(`the ${tier} answered ${problem}`);
}

/**
 * @param {AnswerRules} rules
 * @param {number} status
 * @param {string} body
 * @param {"not_sent" | "unknown" | null} relayDelivery
 * @returns {Content}
 */
function readError(rules, status, body, relayDelivery) {
  const payload = body.length <= MAX_ERROR_CHARS ? parsed(body) : null;
  const error = fromPayload(payload, status);
  if (error instanceof Unauthorised || error instanceof Forbidden) {
    const refusal = new SignInNeeded(
      `the ${rules.tier} does not admit this device (${error.code}); sign in with a token that has ` +
        "the scope classify",
    );
    return failed("unknown", refusal);
  }
  const expected = relayDelivery === null ? TIER_ERRORS : RELAY_ERRORS;
  if (isErrorDocument(payload, status) && expected.some((kind) => error instanceof kind)) {
    const unrecorded = [RateLimited, AttemptRepeated, NotReady].some((kind) => error instanceof kind);
    return failed(relayDelivery ?? (unrecorded ? "unknown" : "arrived"), error);
  }
  const invalid = invalidAnswer(
    rules.tier,
    `with status ${status}, which is not an answer of a tier to a valid text; correct its address, ` +
      "or run the same version of dimee everywhere",
  );
  return failed(relayDelivery ?? "unknown", invalid);
}

/** @param {Delivery} delivery @param {DimeeError} error @returns {Content} */
function failed(delivery, error) {
  return { delivery, answer: null, error };
}

/** @param {string} body */
function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

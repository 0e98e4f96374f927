// From a text to its routing decision, as mobile_client/local/runtime.py does.

import { applyMode } from "./options.js";

/** @import { Decision, EncodedText, Mode, TextFeatures } from "./domain.js" */
/** @import { Embeddings } from "./embeddings.js" */
/** @import { Policy } from "./policies.js" */
/** @import { TextEncoder } from "./text-encoder.js" */
/** @import { TierStats } from "./tier-stats.js" */

/** A tokenized text and its features. @typedef {{encoded: EncodedText, features: TextFeatures}} Prepared */
/** A text with its decision. @typedef {Prepared & {decision: Decision, decisionMs: number}} Decided */

/**
 * Tokenize a text and compute its features; throws `InvalidInput` if it has no tokens.
 * @param {TextEncoder} encoder
 * @param {Embeddings} embeddings
 * @param {string} text
 * @param {string | null} [pair]
 * @returns {Prepared}
 */
export function prepare(encoder, embeddings, text, pair = null) {
  const encoded = encoder.encode(text, pair);
  return {
    encoded,
    features: {
      embedding: embeddings.meanWordEmbedding(encoded),
      tokens: encoded.tokens,
      rarePieces: encoded.rarePieces,
      pair: embeddings.pairFeatures(encoded),
    },
  };
}

/**
 * Return the text with the decision of the policy, or of the mode if it does not allow that.
 *
 * `decisionMs` is the time to tokenize, to compute the features and to decide.
 * @param {object} options
 * @param {TextEncoder} options.encoder
 * @param {Embeddings} options.embeddings
 * @param {TierStats} options.tierStats brought up to date here
 * @param {Policy} options.policy
 * @param {string} options.text checked by `checkInput`
 * @param {string | null} [options.pair]
 * @param {number} options.deadlineMs
 * @param {Mode} [options.mode]
 * @param {() => number} [options.nowMs] clock in milliseconds
 * @returns {Decided}
 */
export function decide({
  encoder,
  embeddings,
  tierStats,
  policy,
  text,
  pair = null,
  deadlineMs,
  mode = "auto",
  nowMs = () => performance.now(),
}) {
  const started = nowMs();
  const prepared = prepare(encoder, embeddings, text, pair);
  tierStats.refresh(deadlineMs);
  const chosen = policy.route(prepared.features);
  return { ...prepared, decision: applyMode(chosen, mode), decisionMs: nowMs() - started };
}

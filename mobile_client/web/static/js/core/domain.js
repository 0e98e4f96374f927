// Domain types that all modules share, as in shared/domain.py. This module imports nothing.

/** @typedef {"mobile" | "edge" | "cloud"} Tier Place of execution. */
/** @typedef {"easy" | "moderate" | "hard"} Difficulty The paper's difficulty classes. */
/** @typedef {"caller" | "tier"} Side Writer of an entry: the caller of a tier, or the tier. */
/** @typedef {"open" | "answered" | "refused" | "failed" | "timed_out" | "abandoned"} State */
/** @typedef {"route" | "escalate" | "fail_over" | "retry"} Reason Reason for an attempt. */
/**
 * @typedef {"arrived" | "not_sent" | "unknown"} Delivery
 * The caller's knowledge of whether an attempt reached the tier.
 */
/** @typedef {"auto" | "only-on-device" | "edge-max" | "prefer-cloud"} Mode */

/**
 * Token ids of one text or pair, special tokens included (shared/inference/tokenizer.py).
 *
 * `typeIds` is 1 for the second text and the separator after it. `content` marks the tokens that
 * are not special. `second` marks the second text's own tokens; null for a single text.
 * `rarePieces` counts the word pieces after the first one of a word.
 * @typedef {object} EncodedText
 * @property {number[]} ids
 * @property {number[]} typeIds
 * @property {boolean[]} content
 * @property {boolean[] | null} second
 * @property {number} tokens
 * @property {boolean} truncated
 * @property {number} rarePieces
 */

/**
 * Features of a text, computed without running a layer.
 * @typedef {object} TextFeatures
 * @property {Float32Array} embedding mean word embedding
 * @property {number} tokens number of tokens, special ones included
 * @property {number} rarePieces number of tokens that continue a word
 * @property {Float64Array | null} pair features of a pair of texts; null for a single text
 */

/**
 * Prediction of the correctness heads for a text, before a layer runs.
 * @typedef {object} Expectation
 * @property {number[]} expected for each tier "its answer is right", then for mobile and edge "its
 *   answer is confident"
 * @property {number[]} lead P(tier is right) − P(cloud is right) for each tier
 * @property {number} margin of the embedding classifier
 * @property {number} length logarithm of the number of tokens
 * @property {number} label index of the embedding classifier's label
 */

/**
 * First tier of a request, how it answers, and the inputs of the decision.
 *
 * A null `alpha` means the bundle's, and a null `lastLayer` the bundle's m.
 * @typedef {object} Decision
 * @property {Tier} tier
 * @property {string} policy
 * @property {Difficulty | null} difficulty
 * @property {number[] | null} distances distance to each centroid
 * @property {number | null} alpha threshold of the exits, also at the edge
 * @property {number} firstExit first exit to use on the mobile
 * @property {number | null} lastLayer last layer to run on the mobile
 * @property {Tier | null} escalateTo tier that takes over an answer below the threshold
 * @property {(number | null)[] | null} expectedValues of cascade-routing, by tier
 * @property {Expectation | null} expectation
 * @property {(number | null)[] | null} delayMs delay of each tier that cascade-routing used
 * @property {number | null} latencyPriceLambda price of waiting a millisecond that it used
 */

/**
 * Outcome of a decision: tier, exit layer and confidence of the answer, and the cost so far in λ.
 * @typedef {object} Outcome
 * @property {Tier} tier
 * @property {number} exitLayer
 * @property {number} confidence
 * @property {number} costLambda of all attempts of the request so far
 * @property {number} label index of the answer's label
 */

/**
 * A tier's answer to one text.
 *
 * `queueMs` and `computeMs` are set for answers of the mobile and 0 for others.
 * @typedef {object} TierAnswer
 * @property {string} label
 * @property {number} labelIndex
 * @property {Record<string, number>} probabilities
 * @property {number} confidence
 * @property {boolean} meetsAlpha true if the confidence reaches the decision's α
 * @property {number} exitLayer
 * @property {boolean} truncated
 * @property {number} queueMs
 * @property {number} computeMs
 */

/**
 * The part of the mobile bundle's manifest.json that this folder reads.
 * @typedef {object} Manifest
 * @property {number} format_version
 * @property {string} bundle_id
 * @property {string} task
 * @property {string[]} labels
 * @property {boolean} pairs
 * @property {number} layers
 * @property {number} mobile_layers
 * @property {number} edge_layers
 * @property {number} hidden_size
 * @property {number} max_tokens
 * @property {number} alpha
 * @property {number} mu
 * @property {CostPrices} cost_model
 * @property {Record<string, {bytes: number, sha256: string}>} files
 */

/**
 * Prices of the cost model in λ.
 * @typedef {object} CostPrices
 * @property {number} mobile_layer
 * @property {number} edge_layer
 * @property {number} offload_edge
 * @property {number} offload_cloud
 * @property {number} cloud_fee
 */

/** @type {readonly Tier[]} */
export const TIERS = ["mobile", "edge", "cloud"];

/** @type {readonly Difficulty[]} Each class has the tier of the same position. */
export const DIFFICULTIES = ["easy", "moderate", "hard"];

/**
 * Return a decision with the paper's defaults in place of what is left out.
 * @param {Tier} tier
 * @param {string} policy
 * @param {Partial<Decision>} [others]
 * @returns {Decision}
 */
export function decisionOf(tier, policy, others = {}) {
  return {
    tier,
    policy,
    difficulty: null,
    distances: null,
    alpha: null,
    firstExit: 1,
    lastLayer: null,
    escalateTo: null,
    expectedValues: null,
    expectation: null,
    delayMs: null,
    latencyPriceLambda: null,
    ...others,
  };
}

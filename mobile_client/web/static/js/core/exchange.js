// Types of an HTTP exchange with a tier, as in shared/tier_client.py and shared/wire.py.

/** @import { Delivery, Tier } from "./domain.js" */
/** @import { DimeeError } from "./errors.js" */

/**
 * A tier's answer: the body of its /v1/infer.
 * @typedef {object} InferResponse
 * @property {string} attempt_id
 * @property {Tier} tier
 * @property {string} label
 * @property {Record<string, number>} probabilities
 * @property {number} confidence
 * @property {number} exit_layer
 * @property {number | null} [resumed_after]
 * @property {number} tokens
 * @property {boolean} truncated
 * @property {string} bundle_id
 * @property {number} queue_ms
 * @property {number} compute_ms
 * @property {number} tier_ms
 */

/**
 * One HTTP exchange from the caller's side; exactly one of `answer` and `error` is set.
 *
 * `replica` is the replica of the tier that gave the response, by its header; null if unknown.
 * @typedef {object} Exchange
 * @property {Delivery} delivery
 * @property {number} sentBytes
 * @property {number} receivedBytes
 * @property {number} roundTripMs
 * @property {InferResponse | null} answer
 * @property {DimeeError | null} error
 * @property {string | null} replica
 */

export {};

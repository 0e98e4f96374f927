// The ledger's entry: one side's record of one attempt, as in shared/ledger/entry.py.

import { TierFailed } from "./errors.js";

/** @import { Delivery, Difficulty, Reason, Side, State, Tier } from "./domain.js" */

/**
 * One side's record of one attempt; the key is (`attempt_id`, `side`). Fields that are left out are
 * unknown. Durations are in milliseconds; `started_at` is in seconds since 1970.
 * @typedef {object} LedgerEntry
 * @property {string} attempt_id
 * @property {Side} side
 * @property {string} request_id
 * @property {number} ordinal
 * @property {Tier} tier
 * @property {State} state
 * @property {string} writer
 * @property {string} bundle_id
 * @property {number} started_at
 * @property {string} [replica]
 * @property {Reason} [reason]
 * @property {string} [policy]
 * @property {Difficulty} [difficulty]
 * @property {Delivery} [delivery]
 * @property {string} [error_code]
 * @property {string} [text_hash]
 * @property {number} [text_chars]
 * @property {number} [tokens]
 * @property {string} [label]
 * @property {number} [confidence]
 * @property {number} [exit_layer]
 * @property {number} [decision_ms]
 * @property {number} [queue_ms]
 * @property {number} [compute_ms]
 * @property {number} [tier_ms]
 * @property {number} [round_trip_ms]
 * @property {number} [network_ms]
 * @property {number} [sent_bytes]
 * @property {number} [received_bytes]
 * @property {number} [cost_lambda]
 * @property {number} [all_cloud_lambda]
 * @property {number} [cost_usd]
 * @property {number} [energy_mj]
 * @property {string} [price_book]
 * @property {boolean} [final]
 * @property {string} [decision]
 */

/** Error code of an attempt whose page was closed: a later page ended it, as abandoned. */
export const PROCESS_DIED = "process_died";

const COUNT = 2 ** 53;
const DURATION = 1e12;
const AMOUNT = 1e20;

/** @typedef {(value: unknown) => string | null} Check Returns what is wrong with a value, or null. */

/** @param {number} most @param {number} [least] @returns {Check} */
function text(most, least = 0) {
  return (value) => {
    if (typeof value !== "string") return "must be a string";
    const chars = Array.from(value).length;
    if (chars < least || chars > most) return `must have ${least} to ${most} characters`;
    return /\0|\p{Surrogate}/u.test(value) ? "holds a character that no text may hold" : null;
  };
}

/** @param {RegExp} pattern @returns {Check} */
function like(pattern) {
  return (value) => (typeof value === "string" && pattern.test(value) ? null : `must match ${pattern.source}`);
}

/** @param {number} least @param {number} most @param {boolean} [whole] @returns {Check} */
function number(least, most, whole = false) {
  return (value) => {
    const fits = typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
    return fits ? null : `must be a ${whole ? "whole " : ""}number between ${least} and ${most}`;
  };
}

/** @param {...string} words @returns {Check} */
function oneOf(...words) {
  return (value) => (words.includes(String(value)) ? null : `must be one of ${words.join(", ")}`);
}

const identifier = like(/^[A-Za-z0-9_.:-]{1,64}$/);
const word = text(64);
const count = number(0, COUNT, true);
const duration = number(0, DURATION);
const amount = number(0, AMOUNT);

/** @type {Record<string, Check>} Field types of shared/field_types.py, by field. */
const CHECKS = {
  attempt_id: identifier,
  side: oneOf("caller", "tier"),
  request_id: identifier,
  ordinal: number(1, 1000, true),
  tier: oneOf("mobile", "edge", "cloud"),
  replica: like(/^[A-Za-z0-9_.-]{1,64}$/),
  state: oneOf("open", "answered", "refused", "failed", "timed_out", "abandoned"),
  reason: oneOf("route", "escalate", "fail_over", "retry"),
  policy: word,
  difficulty: oneOf("easy", "moderate", "hard"),
  writer: word,
  bundle_id: word,
  started_at: number(0, 253_402_300_799),
  delivery: oneOf("arrived", "not_sent", "unknown"),
  error_code: word,
  text_hash: word,
  text_chars: count,
  tokens: count,
  label: text(256, 1),
  confidence: number(0, 1),
  exit_layer: number(1, 1000, true),
  decision_ms: duration,
  queue_ms: duration,
  compute_ms: duration,
  tier_ms: duration,
  round_trip_ms: duration,
  network_ms: duration,
  sent_bytes: count,
  received_bytes: count,
  cost_lambda: amount,
  all_cloud_lambda: amount,
  cost_usd: amount,
  energy_mj: amount,
  price_book: word,
  final: (value) => (typeof value === "boolean" ? null : "must be true or false"),
  decision: text(2_000),
};
const REQUIRED = ["attempt_id", "side", "request_id", "tier", "state", "started_at"];

/**
 * Return what is wrong with an entry, as "field: problem"; null if the ledger accepts it.
 * @param {Record<string, unknown>} entry
 * @returns {string | null}
 */
export function problemOf(entry) {
  for (const name of REQUIRED) if (entry[name] === undefined) return `${name}: field required`;
  for (const [name, value] of Object.entries(entry)) {
    if (value === undefined || value === null) continue;
    const problem = Object.hasOwn(CHECKS, name) ? CHECKS[name](value) : "is not a known field";
    if (problem !== null) return `${name}: ${problem}`;
  }
  if (entry.state === "answered" && (entry.exit_layer === undefined || entry.label === undefined)) {
    return "entry: an answered attempt needs exit_layer and label";
  }
  return entry.side === "tier" && entry.delivery !== undefined
    ? "entry: delivery is recorded by the caller only; leave it out on the tier's side"
    : null;
}

/**
 * Return a copy of an entry with other values; undefined removes a field.
 *
 * Throws `TierFailed` for a value that the ledger would refuse, such as a confidence of NaN.
 * @param {LedgerEntry} entry
 * @param {Partial<LedgerEntry>} facts
 * @returns {LedgerEntry}
 */
export function withFacts(entry, facts) {
  const changed = { ...entry, ...facts };
  const known = /** @type {LedgerEntry} */ (
    Object.fromEntries(Object.entries(changed).filter(([, value]) => value !== undefined))
  );
  const problem = problemOf(/** @type {Record<string, unknown>} */ (/** @type {unknown} */ (known)));
  if (problem === null) return known;
  throw new TierFailed(
    `the attempt has no valid result (${problem}); check the bundle of the ${entry.tier} with: dimee classify`,
  );
}

/** Return whether the attempt has ended for this side. @param {LedgerEntry} entry */
export function isTerminal(entry) {
  return entry.state !== "open";
}

/**
 * Return the ends of attempts that a closed page left open, as shared/ledger/abandoned.py: abandoned,
 * and the first open one of each request is its final attempt.
 * @param {LedgerEntry[]} open
 * @returns {LedgerEntry[]}
 */
export function endsOfOpenAttempts(open) {
  /** @type {Map<string, LedgerEntry>} */
  const first = new Map();
  for (const entry of open) {
    const other = first.get(entry.request_id);
    if (entry.side === "caller" && (other === undefined || entry.ordinal < other.ordinal)) {
      first.set(entry.request_id, entry);
    }
  }
  return open.map((entry) => ({
    ...entry,
    state: "abandoned",
    error_code: PROCESS_DIED,
    ...(entry.side === "caller"
      ? { delivery: "unknown", final: first.get(entry.request_id) === entry }
      : {}),
  }));
}

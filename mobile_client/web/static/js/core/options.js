// Modes of a request and the tiers that each allows, as in mobile_client/options.py.

import { decisionOf } from "./domain.js";
import { InvalidInput } from "./errors.js";

/** @import { Decision, Mode, Tier } from "./domain.js" */

/** @type {Readonly<Record<Mode, readonly Tier[]>>} */
const ALLOWED_TIERS = {
  auto: ["mobile", "edge", "cloud"],
  "only-on-device": ["mobile"],
  "edge-max": ["mobile", "edge"],
  "prefer-cloud": ["mobile", "edge", "cloud"],
};

export const MODES = /** @type {Mode[]} */ (Object.keys(ALLOWED_TIERS));
export const MIN_DEADLINE_MS = 1;
export const MAX_DEADLINE_MS = 60_000;
export const MAX_COST_LAMBDA = 1e6;

/**
 * Return the tiers that `mode` allows.
 * @param {Mode} mode
 * @returns {ReadonlySet<Tier>}
 */
export function allowedTiers(mode) {
  return new Set(ALLOWED_TIERS[mode]);
}

/**
 * Return the policy's decision, or another one if `mode` does not allow it.
 *
 * The new decision names the policy that always chooses its tier.
 * @param {Decision} decision
 * @param {Mode} mode
 * @returns {Decision}
 */
export function applyMode(decision, mode) {
  const allowed = allowedTiers(mode);
  /** @type {Tier} */
  let tier;
  if (mode === "prefer-cloud") tier = "cloud";
  else if (!allowed.has(decision.tier)) tier = allowed.has("edge") ? "edge" : "mobile";
  else return decision;
  return tier === decision.tier ? decision : decisionOf(tier, tier);
}

/**
 * Check the options of a request; throws `InvalidInput`, which names the wrong one.
 * @param {{mode: string, deadlineMs: number, maxCostLambda: number | null}} options
 */
export function checkOptions({ mode, deadlineMs, maxCostLambda }) {
  if (!MODES.includes(/** @type {Mode} */ (mode))) {
    const name = Array.from(mode).slice(0, 40).join("");
    throw new InvalidInput(`mode: '${name}' is not known; choose ${MODES.join(", ")}`, { field: "mode" });
  }
  if (!(deadlineMs >= MIN_DEADLINE_MS && deadlineMs <= MAX_DEADLINE_MS)) {
    throw new InvalidInput(`deadline_ms: must be between ${MIN_DEADLINE_MS} and ${MAX_DEADLINE_MS} ms`, {
      field: "deadline_ms",
    });
  }
  if (maxCostLambda !== null && !(maxCostLambda > 0 && maxCostLambda <= MAX_COST_LAMBDA)) {
    throw new InvalidInput(`max_cost_lambda: must be above 0 and at most ${MAX_COST_LAMBDA} λ`, {
      field: "max_cost_lambda",
    });
  }
}

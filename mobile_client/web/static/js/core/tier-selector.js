// Selects what a request may try next, by mode, cost ceiling and circuit breakers, as in
// mobile_client/dispatch/tier_selector.py.

import { InvalidInput, NotReady, TierUnreachable } from "./errors.js";

/** @import { CostModel } from "./cost-model.js" */
/** @import { Tier } from "./domain.js" */
/** @import { TierError } from "./errors.js" */
/** @import { TierStats } from "./tier-stats.js" */

/** Tolerance of the cost ceiling for rounding errors in sums of floats. */
const ROUNDING_LAMBDA = 1e-9;

/**
 * Candidates in the requested order, and the reasons why other tiers are excluded: an error for each
 * tier that its circuit breaker excludes, and whether the cost ceiling excludes one.
 * @typedef {{candidates: Tier[], unavailable: Map<Tier, TierError>, costCapped: boolean}} Selection
 */

/** Chooses candidates for the attempts of one request. */
export class TierSelector {
  /**
   * @param {object} options
   * @param {TierStats} options.tierStats
   * @param {CostModel} options.costModel
   * @param {Record<Tier, number>} options.layers number of layers that each tier runs at most
   * @param {ReadonlySet<Tier>} options.allowed tiers that the request's mode allows
   * @param {number | null} [options.maxCostLambda]
   */
  constructor({ tierStats, costModel, layers, allowed, maxCostLambda = null }) {
    this.tierStats = tierStats;
    this.costModel = costModel;
    this.layers = layers;
    this.allowed = allowed;
    this.maxCostLambda = maxCostLambda;
  }

  /**
   * Return the candidates among `tiers` for a request that has cost `spentLambda`.
   * @param {Iterable<Tier>} tiers
   * @param {number} spentLambda
   * @returns {Selection}
   */
  select(tiers, spentLambda) {
    /** @type {Selection} */
    const selection = { candidates: [], unavailable: new Map(), costCapped: false };
    for (const tier of tiers) {
      if (!this.allowed.has(tier)) continue;
      const ceiling = this.maxCostLambda;
      if (ceiling !== null && spentLambda + this.maxAttemptLambda(tier) > ceiling + ROUNDING_LAMBDA) {
        selection.costCapped = true;
      } else if (tier === "mobile" || this.tierStats.servers[tier].breaker.allowsAttempt()) {
        selection.candidates.push(tier);
      } else {
        selection.unavailable.set(tier, this.#skipError(tier));
      }
    }
    return selection;
  }

  /**
   * Return an error if a policy should not plan with `tier` because it has failed; null if the tier is
   * available, or if the mode excludes it anyway.
   * @param {Tier} tier
   * @returns {TierError | null}
   */
  unavailable(tier) {
    if (tier === "mobile" || !this.allowed.has(tier) || this.tierStats.available(tier)) return null;
    return this.#skipError(tier);
  }

  /** Return the λ of an attempt that runs all layers of `tier`. @param {Tier} tier */
  maxAttemptLambda(tier) {
    return this.costModel.attempt(tier, this.layers[tier]);
  }

  /**
   * Return the error for a cost ceiling below the price of an attempt at each of `tiers`.
   * @param {Tier[]} tiers that the request may use by its policy and fail-over
   * @returns {InvalidInput}
   */
  ceilingError(tiers) {
    const allowed = tiers.filter((tier) => this.allowed.has(tier));
    const least = Math.min(...allowed.map((tier) => this.maxAttemptLambda(tier)));
    const cheapest = allowed.filter((tier) => this.maxAttemptLambda(tier) === least).sort()[0];
    return new InvalidInput(
      `max_cost_lambda: ${this.maxCostLambda} λ pays for no attempt; give at least ${minimumText(least)}, the ` +
        `price of all layers of the ${cheapest}, the cheapest tier for this request`,
      { field: "max_cost_lambda", limit: least },
    );
  }

  /** @param {"edge" | "cloud"} tier @returns {TierError} */
  #skipError(tier) {
    const { breaker } = this.tierStats.servers[tier];
    const times = breaker.failures > 1 ? `${breaker.failures} times in a row` : "just now";
    const message = `the ${tier} has failed ${times} and gets no requests for a while`;
    return breaker.lastUnreachable ? new TierUnreachable(message) : new NotReady(message);
  }
}

/** Return a number with at most six significant digits, rounded up. @param {number} value */
function minimumText(value) {
  const shown = Number(value.toPrecision(6));
  if (shown >= value) return String(shown);
  const step = 10 ** (Math.floor(Math.log10(value)) - 5);
  return String(Number((shown + step).toPrecision(6)));
}

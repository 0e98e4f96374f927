// Current conditions of a decision: prices, delays, available tiers and remaining time, as in
// shared/policies/conditions.py.

/** @import { Tier } from "./domain.js" */
/** @import { CostModel } from "./cost-model.js" */

/** Prices, and the mobile's knowledge of each tier. */
export class Conditions {
  /** @param {CostModel} costModel */
  constructor(costModel) {
    this.costModel = costModel;
    /** @type {Partial<Record<Tier, number>>} Expected delay by tier; left out if unknown. */
    this.delayMs = {};
    /** @type {Partial<Record<Tier, boolean>>} Whether a tier is available; left out if it is. */
    this.up = {};
    /** Price of waiting one millisecond, in λ. */
    this.latencyPriceLambda = 0;
    /** @type {number | null} Time until the deadline. */
    this.leftMs = null;
  }

  /**
   * Return whether the tier is available and can answer before the deadline.
   * @param {Tier} tier
   */
  canAnswer(tier) {
    if (this.up[tier] === false) return false;
    return this.leftMs === null || (this.delayMs[tier] ?? 0) <= this.leftMs;
  }

  /**
   * Return the λ of an answer of `tier` after `layer` layers, waiting included.
   * @param {Tier} tier
   * @param {number} layer may be a mean number of layers
   */
  costLambda(tier, layer) {
    return this.costModel.attempt(tier, layer) + this.waitingLambda(tier);
  }

  /**
   * Return the λ of waiting for an answer of `tier`; 0 if its delay is unknown.
   * @param {Tier} tier
   */
  waitingLambda(tier) {
    return this.latencyPriceLambda * (this.delayMs[tier] ?? 0);
  }
}

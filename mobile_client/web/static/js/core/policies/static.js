// Policies that do not depend on the text, as in shared/policies/static.py.

import { decisionOf } from "../domain.js";

/** @import { Decision, Outcome, TextFeatures, Tier } from "../domain.js" */
/** @import { Conditions } from "../conditions.js" */

/** Base of policies that learn nothing and escalate answers of the mobile below the threshold. */
export class StatelessPolicy {
  learns = false;
  usesConditions = false;

  /** Ignore the conditions. @param {Conditions} _conditions */
  useConditions(_conditions) {}

  /**
   * Return `decision.escalateTo` for an answer of the mobile below the threshold.
   * @param {TextFeatures} _features
   * @param {Decision} decision
   * @param {Outcome} outcome
   * @param {boolean} meetsThreshold
   * @returns {Tier | null}
   */
  escalate(_features, decision, outcome, meetsThreshold) {
    return meetsThreshold || outcome.tier !== "mobile" ? null : decision.escalateTo;
  }

  /**
   * Ignore the outcome.
   * @param {Decision} _decision
   * @param {Outcome} _outcome
   */
  learn(_decision, _outcome) {}

  /** @returns {unknown} */
  state() {
    return null;
  }

  /** @param {unknown} state @returns {boolean} */
  restore(state) {
    return state === null;
  }
}

/** Send every text to one tier; the policy's name is the tier's. */
export class SingleTier extends StatelessPolicy {
  /** @param {Tier} tier */
  constructor(tier) {
    super();
    this.name = tier;
  }

  /**
   * Return the decision for the fixed tier.
   * @param {TextFeatures} _features
   * @returns {Decision}
   */
  route(_features) {
    return decisionOf(this.name, this.name);
  }
}

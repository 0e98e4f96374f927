// Cascade routing: chooses the tier with the highest expected value, and again after each answer, as in
// shared/policies/cascade_routing.py, where the arithmetic is explained.

import { Conditions } from "../conditions.js";
import { QUANTILES, answerFacts } from "../correctness-heads.js";
import { TIERS, decisionOf } from "../domain.js";
import { InvalidInput } from "../errors.js";
import { StatelessPolicy } from "./static.js";

/** @import { CostModel } from "../cost-model.js" */
/** @import { CorrectnessHeads } from "../correctness-heads.js" */
/** @import { Decision, Expectation, Outcome, TextFeatures, Tier } from "../domain.js" */

const CLOUD = TIERS.length - 1;
/** Answers are confident (0; their confidence reaches α) or not (1). */
const STATES = [0, 1];

/** Routing policy that routes and escalates by expected value: P(right) − Λ · cost. */
export class CascadeRouting extends StatelessPolicy {
  name = "cascade-routing";
  usesConditions = true;

  /**
   * @param {CorrectnessHeads | null} heads
   * @param {CostModel} costModel
   */
  constructor(heads, costModel) {
    super();
    if (heads === null) {
      throw new InvalidInput(
        "policy: cascade-routing cannot run, because this bundle has no correctness heads; use another " +
          "policy, such as dimee-fixed",
        { field: "policy" },
      );
    }
    this.heads = heads;
    this.conditions = new Conditions(costModel);
    const { layers_T2: layers, right_T2: right, next_TT2: next } = heads.arrays;
    /** Mean exit layer of confident and of other answers, by tier. */
    this.layers = TIERS.map((_, tier) => [layers[2 * tier], layers[2 * tier + 1]]);
    /** @param {number} tier @param {number} other @param {number} state */
    const rightNext = (tier, other, state) => next[(tier * TIERS.length + other) * 2 + state];
    this.confidentLoss = TIERS.map((_, tier) => Math.min(0, right[2 * tier] - rightNext(tier, CLOUD, 0)));
    this.escalatedLoss = TIERS.map((_, tier) =>
      TIERS.map((__, other) => Math.min(0, rightNext(tier, other, 1) - rightNext(tier, CLOUD, 1))),
    );
    this.typicalGains = TIERS.map((_, tier) =>
      STATES.map((state) => TIERS.map((__, target) => heads.typicalGains(tier, state, target))),
    );
  }

  /** Decide by `conditions` from now on. @param {Conditions} conditions */
  useConditions(conditions) {
    this.conditions = conditions;
  }

  /**
   * Return the tier with the highest expected value; the mobile if no tier can answer.
   * @param {TextFeatures} features
   * @returns {Decision}
   */
  route(features) {
    return this.plan(this.expect(features));
  }

  /**
   * Return the correctness heads' prediction for a text.
   * @param {TextFeatures} features
   * @returns {Expectation}
   */
  expect(features) {
    const raw = this.heads.rawFeatures(features);
    return { ...this.heads.expect(raw), margin: raw.margin, length: raw.length, label: raw.label };
  }

  /**
   * Return the decision in the current conditions.
   * @param {Expectation} expectation
   * @returns {Decision}
   */
  plan(expectation) {
    const confident = [...expectation.expected.slice(TIERS.length), 1];
    const values = TIERS.map((_, tier) => this.expectedValue(tier, confident[tier], expectation.lead[tier]));
    // in a tie take the higher tier, which is right more often
    let best = values.lastIndexOf(Math.max(...values));
    if (!Number.isFinite(values[best])) best = 0;
    return decisionOf(TIERS[best], this.name, {
      alpha: this.heads.alpha,
      expectedValues: values.map((value) => (Number.isFinite(value) ? value : null)),
      expectation,
      delayMs: TIERS.map((tier) => this.conditions.delayMs[tier] ?? null),
      latencyPriceLambda: this.conditions.latencyPriceLambda,
    });
  }

  /**
   * Return the tier whose gain exceeds its cost by most; null if no gain does.
   * @param {TextFeatures} features
   * @param {Decision} decision
   * @param {Outcome} outcome
   * @param {boolean} _meetsThreshold
   * @returns {Tier | null}
   */
  escalate(features, decision, outcome, _meetsThreshold) {
    const expectation = decision.expectation ?? this.expect(features);
    const tier = TIERS.indexOf(outcome.tier);
    const agrees = outcome.label === expectation.label;
    const facts = answerFacts(outcome.confidence, agrees, expectation.margin, expectation.length);
    /** @type {Tier | null} */
    let best = null;
    let bestValue = 0;
    for (const target of this.targets(tier)) {
      const value = this.heads.gain(tier, target, facts) - this.weightedCost(target);
      if (value > bestValue) [best, bestValue] = [TIERS[target], value];
    }
    return best;
  }

  /**
   * Return the expected value of starting at `tier`, relative to a free cloud answer.
   *
   * The value is that of the better of two plans: decide after the answer whether to escalate, or
   * escalate every answer that is not confident.
   * @param {number} tier
   * @param {number} confident probability that the tier's answer reaches α
   * @param {number} lead difference of its and the cloud's probability of being right
   */
  expectedValue(tier, confident, lead) {
    const place = TIERS[tier];
    if (!this.conditions.canAnswer(place)) return -Infinity;
    const weight = this.heads.costWeight;
    const [costConfident, costNot] = this.layers[tier].map((layer) => this.conditions.costLambda(place, layer));
    if (tier === CLOUD) return -weight * costConfident;
    const cost = weight * (confident * costConfident + (1 - confident) * costNot);
    // a positive lead over the cloud is usually noise, so it must not attract texts
    const stays = Math.min(0, lead);
    return Math.max(...this.plans(tier, confident, stays)) - cost;
  }

  /**
   * Return the value of each plan, without the cost of the first answer.
   * @param {number} tier
   * @param {number} confident
   * @param {number} stays
   */
  plans(tier, confident, stays) {
    const [gainConfident, gainNot] = STATES.map((state) => this.meanBestGain(tier, state));
    const decideLater = Math.min(0, stays + confident * gainConfident + (1 - confident) * gainNot);
    const lossConfident = confident * this.confidentLoss[tier];
    const escalating = this.targets(tier).map((target) => {
      const value = this.escalatedLoss[tier][target] - this.weightedCost(target);
      return lossConfident + (1 - confident) * value;
    });
    return [decideLater, ...escalating];
  }

  /**
   * Return the mean net gain of the best escalation of typical answers; 0 where none gains.
   * @param {number} tier
   * @param {number} state
   */
  meanBestGain(tier, state) {
    const targets = this.targets(tier);
    let total = 0;
    for (let q = 0; q < QUANTILES; q += 1) {
      let best = 0;
      for (const target of targets) {
        best = Math.max(best, this.typicalGains[tier][state][target][q] - this.weightedCost(target));
      }
      total += best;
    }
    return total / QUANTILES;
  }

  /** Return the tiers above `tier` that can answer. @param {number} tier */
  targets(tier) {
    return [0, 1, 2].filter((target) => target > tier && this.conditions.canAnswer(TIERS[target]));
  }

  /** Return Λ times the cost of escalating to `target`, in probability. @param {number} target */
  weightedCost(target) {
    return this.heads.costWeight * this.conditions.costLambda(TIERS[target], this.layers[target][1]);
  }
}

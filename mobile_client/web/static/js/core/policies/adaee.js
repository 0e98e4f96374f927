// The bandit AdaEE, which learns the threshold α, as in shared/policies/bandits.py.

import { decisionOf } from "../domain.js";
import { StatelessPolicy } from "./static.js";

/** @import { CostModel } from "../cost-model.js" */
/** @import { Decision, Outcome, TextFeatures } from "../domain.js" */

const THRESHOLDS = 10;

/** The UCB1 bandit: plays each arm once, then the arm with the highest mean + √(2 ln t / n). */
export class Ucb1 {
  /** @param {number} arms */
  constructor(arms) {
    /** @type {number[]} */
    this.plays = new Array(arms).fill(0);
    /** @type {number[]} */
    this.means = new Array(arms).fill(0);
  }

  /** Return the arm to play next; in a tie the first one. */
  choose() {
    const unplayed = this.plays.indexOf(0);
    if (unplayed >= 0) return unplayed;
    const bonus = 2 * Math.log(this.plays.reduce((sum, plays) => sum + plays, 0));
    const values = this.means.map((mean, arm) => mean + Math.sqrt(bonus / this.plays[arm]));
    return values.indexOf(Math.max(...values));
  }

  /**
   * Add the reward of one play.
   * @param {number} arm
   * @param {number} reward
   */
  update(arm, reward) {
    this.plays[arm] += 1;
    this.means[arm] += (reward - this.means[arm]) / this.plays[arm];
  }
}

/**
 * Return the paper's set S: ten equidistant values of α in [1/C, 1].
 * @param {number} classes
 */
export function thresholds(classes) {
  const first = 1 / classes;
  const step = (1 - first) / (THRESHOLDS - 1);
  // the last one is exactly 1, as numpy.linspace has it
  return Array.from({ length: THRESHOLDS }, (_, i) => (i === THRESHOLDS - 1 ? 1 : i * step + first));
}

/**
 * Learn the threshold α: texts below it at all of the mobile's exits go to the cloud.
 *
 * The reward is that of eq. 2, r = C − μ · cost / all-cloud cost.
 */
export class AdaEE extends StatelessPolicy {
  name = "adaee";
  learns = true;

  /**
   * @param {number} classes
   * @param {CostModel} costModel
   * @param {number} mu
   */
  constructor(classes, costModel, mu) {
    super();
    this.thresholds = thresholds(classes);
    this.bandit = new Ucb1(THRESHOLDS);
    this.allCloud = costModel.allCloud;
    this.mu = mu;
  }

  /**
   * Return the decision with the highest upper confidence bound.
   * @param {TextFeatures} _features
   * @returns {Decision}
   */
  route(_features) {
    const alpha = this.thresholds[this.bandit.choose()];
    return decisionOf("mobile", this.name, { alpha, escalateTo: "cloud" });
  }

  /**
   * Update the arm of `decision` with the reward of `outcome`; other decisions have no arm.
   * @param {Decision} decision
   * @param {Outcome} outcome
   */
  learn(decision, outcome) {
    const arm = decision.alpha === null ? -1 : this.thresholds.indexOf(decision.alpha);
    if (arm < 0) return;
    this.bandit.update(arm, outcome.confidence - this.mu * (outcome.costLambda / this.allCloud));
  }

  /** Return the plays and mean rewards. @returns {{plays: number[], means: number[]}} */
  state() {
    return { plays: [...this.bandit.plays], means: [...this.bandit.means] };
  }

  /**
   * Continue from a state of `state`; return false if it does not fit.
   * @param {unknown} state
   */
  restore(state) {
    const { plays, means } = /** @type {Record<string, unknown>} */ (Object(state));
    if (!Array.isArray(plays) || !Array.isArray(means)) return false;
    const fits =
      plays.length === THRESHOLDS &&
      means.length === THRESHOLDS &&
      plays.every((count) => Number.isSafeInteger(count) && count >= 0) &&
      means.every(Number.isFinite);
    if (!fits) return false;
    this.bandit.plays = [...plays];
    this.bandit.means = [...means];
    return true;
  }
}

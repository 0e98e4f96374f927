// One text: its decision, the attempts until it is answered, and what the page shows of it.

import { decide } from "../core/decide.js";
import { DimeeError } from "../core/errors.js";
import { newId } from "../core/ids.js";
import { checkOptions } from "../core/options.js";
import { charsOf } from "../core/text-checks.js";
import { Runner } from "./runner.js";
import { SignInNeeded } from "./tier-response.js";

/** @import { Decision, Mode, Tier, TierAnswer } from "../core/domain.js" */
/** @import { Policy } from "../core/policies.js" */
/** @import { Config } from "./config.js" */
/** @import { Model } from "./model.js" */
/** @import { AttemptReport, Recording } from "./runner.js" */

/**
 * @typedef {object} Options Values that are left out are the gateway's.
 * @property {string} [policy]
 * @property {number} [deadlineMs]
 * @property {Mode} [mode]
 * @property {number} [maxCostLambda]
 */
/**
 * @typedef {object} Outcome A request that has ended.
 * @property {string} requestId
 * @property {string} text
 * @property {string | null} pair
 * @property {number} startedAt Milliseconds since 1970.
 * @property {Decision} decision
 * @property {number} decisionMs
 * @property {number} tokens
 * @property {number} alpha
 * @property {(TierAnswer & {tier: Tier}) | null} answer Null if no tier answered.
 * @property {number} totalMs
 * @property {boolean} truncated
 * @property {"offline" | "unavailable" | null} degradedBecause
 * @property {Tier[]} skipped
 * @property {boolean} costCapped
 * @property {AttemptReport[]} attempts
 * @property {{lambda: number, allCloudLambda: number, usd: number, energyMj: number}} cost
 */
/** @typedef {{policy: string, deadlineMs: number, mode: Mode, maxCostLambda: number | null}} ResolvedOptions */

/** A text that was not classified; `outcome` has the attempts, if a request was made. */
export class NotClassified extends Error {
  /** @param {DimeeError} cause @param {Outcome | null} outcome */
  constructor(cause, outcome) {
    super(cause.message, { cause });
    this.outcome = outcome;
  }
}

/** Without a ledger nothing is recorded. @type {Recording} */
export const NOWHERE = {
  record: async () => undefined,
  recordOrBuffer: async () => undefined,
  hashText: async () => "",
};

export class TextRequest {
  /** True if a tier was not asked or refused for want of a valid token. */
  signInNeeded = false;

  /**
   * @param {Model} model
   * @param {Policy} policy
   * @param {Recording} recording
   * @param {string} text
   * @param {string | null} pair
   * @param {ResolvedOptions} options
   * @param {number} since Time of the call, in milliseconds of the page's clock.
   */
  constructor(model, policy, recording, text, pair, options, since) {
    this._model = model;
    this._policy = policy;
    this._recording = recording;
    this._text = text;
    this._pair = pair;
    this._options = options;
    this._since = since;
  }

  /** Decide and make attempts until one answers; throws `NotClassified`. @returns {Promise<Outcome>} */
  async answer() {
    const runner = await this.#route();
    const startedAt = Date.now();
    try {
      const answer = await runner.run();
      const outcome = this.#outcome(runner, answer, startedAt);
      this.#learn(runner, answer, outcome);
      return outcome;
    } catch (error) {
      const made = runner.reports.length > 0;
      throw new NotClassified(knownError(error), made ? this.#outcome(runner, null, startedAt) : null);
    } finally {
      this.signInNeeded = runner.state.errors.some((error) => error instanceof SignInNeeded);
      this._model.keepState(this._policy);
    }
  }

  async #route() {
    const { encoder, embeddings, tierStats } = this._model;
    const { deadlineMs, maxCostLambda, mode } = this._options;
    const [text, pair, policy] = [this._text, this._pair, this._policy];
    const decided = decide({ encoder, embeddings, tierStats, policy, text, pair, deadlineMs, mode });
    return new Runner(this._model, this._recording, {
      ...decided,
      requestId: newId(),
      text,
      pair,
      policy,
      mode,
      maxCostLambda,
      deadlineMs,
      since: this._since,
      tokens: decided.encoded.tokens,
      textChars: charsOf(text) + charsOf(pair ?? ""),
      textHash: await this._recording.hashText(text, pair),
    });
  }

  /** @param {Runner} runner @param {TierAnswer} answer @param {Outcome} outcome */
  #learn({ request }, answer, outcome) {
    const { mode, maxCostLambda } = this._options;
    // only from requests that went where the policy sent them
    if (mode !== "auto" || maxCostLambda !== null || outcome.degradedBecause !== null) return;
    const { exitLayer, confidence, labelIndex } = answer;
    const tier = /** @type {Tier} */ (outcome.answer?.tier);
    this._policy.learn(request.decision, { tier, exitLayer, confidence, costLambda: outcome.cost.lambda, label: labelIndex });
  }

  /** @param {Runner} runner @param {TierAnswer | null} answer @param {number} startedAt @returns {Outcome} */
  #outcome({ alpha, reports, request, spentMs, state }, answer, startedAt) {
    const { requestId, text, pair, decision, decisionMs, encoded, tokens } = request;
    return {
      requestId,
      text,
      pair,
      startedAt,
      decision,
      decisionMs,
      alpha,
      tokens,
      answer: answer === null ? null : { ...answer, tier: reports[reports.length - 1].entry.tier },
      totalMs: spentMs,
      truncated: answer?.truncated ?? encoded.truncated,
      degradedBecause: state.degradedBecause,
      skipped: [...state.skipped.keys()],
      costCapped: state.costCapped,
      attempts: reports,
      cost: {
        lambda: sum(reports, "cost_lambda"),
        allCloudLambda: this._model.costModel.allCloud,
        usd: sum(reports, "cost_usd"),
        energyMj: sum(reports, "energy_mj"),
      },
    };
  }
}

/**
 * Return the options with the gateway's in place of those that are left out.
 * @param {Options} options
 * @param {Config} config
 * @returns {ResolvedOptions}
 */
export function resolveOptions(options, config) {
  const resolved = {
    policy: options.policy ?? config.policy,
    deadlineMs: options.deadlineMs ?? config.deadline_ms,
    mode: options.mode ?? config.mode,
    maxCostLambda: options.maxCostLambda ?? config.max_cost_lambda ?? null,
  };
  checkOptions(resolved);
  return resolved;
}

/** Return the error, or one that says where the details are. @param {unknown} error @returns {DimeeError} */
export function knownError(error) {
  if (error instanceof DimeeError) return error;
  console.error(error);
  return new DimeeError("an error in this app; its details are on the browser's console");
}

/** @param {AttemptReport[]} reports @param {"cost_lambda" | "cost_usd" | "energy_mj"} field */
function sum(reports, field) {
  return reports.reduce((total, { entry }) => total + (entry[field] ?? 0), 0);
}

// Answers texts as the app does, and measures it; tests/web/compare.py compares the answers with
// Python's.

import { prepare } from "../../mobile_client/web/static/js/core/decide.js";
import { makePolicy } from "../../mobile_client/web/static/js/core/policies.js";

/** @import { Model } from "./model.js" */

/**
 * Return, for each text, its tokens, the decision of each policy, the answer of the mobile's layers for
 * each threshold, and the milliseconds of a decision (tokens, features, first policy) and of an answer.
 * @param {{texts: string[], policies: string[], alphas: number[]}} task
 * @param {Model} model
 */
export async function answersOf({ texts, policies, alphas }, model) {
  const [first, ...others] = policies.map((name) => makePolicy(name, model.facts));
  const answers = [];
  for (const text of texts) {
    const started = performance.now();
    const { encoded, features } = prepare(model.encoder, model.embeddings, text);
    const decision = first.route(features);
    const decided = performance.now();
    const decisions = [decision, ...others.map((policy) => policy.route(features))];
    const exits = [];
    for (const alpha of alphas) {
      const hidden = model.embeddings.firstHidden(encoded);
      const { labelIndex, exitLayer } = await model.layers.classify(hidden, encoded.tokens, alpha);
      exits.push({ label: labelIndex, exit_layer: exitLayer });
    }
    // the work of an answer that no exit ends early
    const begun = performance.now();
    const hidden = model.embeddings.firstHidden(encoded);
    const all = await model.layers.classify(hidden, encoded.tokens, null);
    const ended = performance.now();
    answers.push({
      ids: encoded.ids,
      tiers: decisions.map(({ tier }) => tier),
      exits,
      confidences: all.exits.map(({ confidence }) => confidence),
      decision_ms: decided - started,
      answer_ms: ended - begun,
    });
  }
  return { answers };
}

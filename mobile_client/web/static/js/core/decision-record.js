// The inputs of a routing decision, as the ledger records them for `dimee explain` and `dimee whatif`
// (mobile_client/dispatch/decision_record.py).

/** @import { Decision, Mode } from "./domain.js" */

/**
 * Return the inputs of the decision as JSON; null if there are none.
 * @param {Decision} decision
 * @param {Mode} mode
 * @param {number | null} maxCostLambda
 * @returns {string | null}
 */
export function decisionRecord(decision, mode, maxCostLambda) {
  const facts = {
    distances: decision.distances,
    expected_values: decision.expectedValues,
    expectation: decision.expectation,
    alpha: decision.alpha,
    delay_ms: decision.delayMs,
    latency_price_lambda: decision.latencyPriceLambda,
    mode: mode === "auto" ? null : mode,
    max_cost_lambda: maxCostLambda,
  };
  const known = Object.entries(facts).filter(([, value]) => value !== null);
  return known.length === 0 ? null : JSON.stringify(Object.fromEntries(known), rounded);
}

/** Round every number to six significant digits. @param {string} _name @param {unknown} value */
function rounded(_name, value) {
  return typeof value === "number" ? Number(value.toPrecision(6)) : value;
}

// The gateway's settings for this app, with the last ones for when it cannot be reached.

/** @import { CostPrices, Mode } from "../core/domain.js" */
/** @import { PriceBookFacts } from "../core/price-book.js" */

const KEY = "config";
const TIMEOUT_MS = 5_000;

/**
 * @typedef {object} Config Body of `config.json`; addresses are relative to the page or absolute.
 * @property {string} bundle
 * @property {string} bundle_id
 * @property {boolean} auth_required
 * @property {boolean} bundle_auth True if the bundle needs the token as well.
 * @property {{edge: string, cloud: string}} tiers
 * @property {string | null} ledger Null if nothing is recorded.
 * @property {number} [ledger_batch]
 * @property {string} policy
 * @property {number} deadline_ms
 * @property {("mobile" | "edge" | "cloud")[]} fail_over
 * @property {Mode} mode
 * @property {number} retries
 * @property {number | null} [max_cost_lambda]
 * @property {number} latency_price_lambda
 * @property {CostPrices} cost_model
 * @property {PriceBookFacts} price_book
 * @property {string} [version]
 * @property {{text: string, pair?: string | null}[]} [samples] Texts to try.
 */

/**
 * Return the settings that were used last, or null.
 * @param {import("./database.js").Database} database
 * @returns {Promise<Config | null>}
 */
export async function lastConfig(database) {
  const kept = await database.get(KEY).catch(() => undefined);
  return isConfig(kept) ? kept : null;
}

/**
 * Read the settings from the gateway and keep them; throws if it cannot be reached or sends others.
 * @param {import("./database.js").Database} database
 * @returns {Promise<Config>}
 */
export async function readConfig(database) {
  const response = await fetch("config.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  const config = await response.json();
  if (!response.ok || !isConfig(config)) {
    throw new Error("config.json is not this app's; serve it as the gateway does, or write it by hand");
  }
  await database.set(KEY, config).catch(() => undefined);
  return config;
}

/** @param {any} value @returns {value is Config} */
function isConfig(value) {
  return (
    typeof value?.bundle === "string" &&
    typeof value.tiers?.edge === "string" &&
    typeof value.tiers.cloud === "string" &&
    (value.ledger === null || typeof value.ledger === "string") &&
    typeof value.policy === "string" &&
    value.deadline_ms > 0 &&
    Array.isArray(value.fail_over) &&
    typeof value.cost_model?.cloud_fee === "number" &&
    typeof value.price_book?.version === "string"
  );
}

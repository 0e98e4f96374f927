// Money and energy of an attempt, from its measured milliseconds and bytes, as in
// shared/pricing/price_book.py.

/** @import { Tier } from "./domain.js" */

/**
 * Prices per hour, gigabyte, milliwatt and byte, and the version that entries name.
 * @typedef {object} PriceBookFacts
 * @property {string} version
 * @property {number} edge_usd_per_hour
 * @property {number} cloud_usd_per_hour
 * @property {number} network_usd_per_gb
 * @property {number} mobile_compute_mw
 * @property {number} mobile_radio_nj_per_byte
 */

/**
 * Rounded list prices, which the gateway's own replace.
 * @type {Readonly<PriceBookFacts>}
 */
export const DEFAULT_PRICE_BOOK = {
  version: "2026-11-defaults",
  edge_usd_per_hour: 0.05,
  cloud_usd_per_hour: 0.1,
  network_usd_per_gb: 2.0,
  mobile_compute_mw: 2500.0,
  mobile_radio_nj_per_byte: 500.0,
};

/**
 * Return the US dollars of an attempt: rented compute time and metered bytes.
 * @param {PriceBookFacts} book
 * @param {Tier} tier
 * @param {number} computeMs
 * @param {number} movedBytes
 */
export function usd(book, tier, computeMs, movedBytes) {
  const hourly = { mobile: 0, edge: book.edge_usd_per_hour, cloud: book.cloud_usd_per_hour }[tier];
  return (hourly * computeMs) / 3.6e6 + (book.network_usd_per_gb * movedBytes) / 1e9;
}

/**
 * Return the mobile's energy in mJ, an estimate: its computing, or its radio for other tiers.
 * @param {PriceBookFacts} book
 * @param {Tier} tier
 * @param {number} computeMs
 * @param {number} movedBytes
 */
export function mobileEnergyMj(book, tier, computeMs, movedBytes) {
  if (tier === "mobile") return (book.mobile_compute_mw * computeMs) / 1e3;
  return (book.mobile_radio_nj_per_byte * movedBytes) / 1e6;
}

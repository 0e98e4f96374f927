// Numbers as text, each with its unit. An unknown number is a dash.

const NONE = "–";
const SPACE = "\u00a0";

/** @typedef {number | null | undefined} Figure */

/** @type {(value: Figure) => value is number} */
const known = (value) => typeof value === "number" && Number.isFinite(value);

/**
 * Return a number with a fixed number of decimals.
 * @param {Figure} value
 * @param {number} decimals
 */
export function number(value, decimals = 0) {
  if (!known(value)) return NONE;
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** Return milliseconds. @param {Figure} value */
export function ms(value) {
  return known(value) ? `${number(value, value < 1000 ? 1 : 0)}${SPACE}ms` : NONE;
}

/** Return a cost in λ. @param {Figure} value */
export function lambda(value) {
  return known(value) ? `${number(value, 2)}${SPACE}λ` : NONE;
}

/** Return US dollars, or millionths of one (µUSD): a request costs far less than a cent. @param {Figure} value */
export function usd(value) {
  if (!known(value)) return NONE;
  return Math.abs(value) < 0.01 ? `${number(1e6 * value, 2)}${SPACE}µUSD` : `${number(value, 2)}${SPACE}USD`;
}

/** Return an energy in millijoules. @param {Figure} value */
export function millijoules(value) {
  return known(value) ? `${number(value, value < 10 ? 2 : 1)}${SPACE}mJ` : NONE;
}

/** Return a share as a percentage. @param {Figure} value */
export function percent(value) {
  return known(value) ? `${number(100 * value, 1)}${SPACE}%` : NONE;
}

/** Return a number of bytes. @param {Figure} value */
export function bytes(value) {
  return known(value) ? `${number(value)}${SPACE}B` : NONE;
}

/** Return a number of bytes in megabytes. @param {Figure} value */
export function megabytes(value) {
  return known(value) ? `${number(value / 1e6, 1)}${SPACE}MB` : NONE;
}

/** Return the time of day of milliseconds since 1970. @param {number} at */
export function timeOfDay(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

/** Return the words of a code such as `fail_over`. @param {string | null | undefined} code */
export function words(code) {
  return code ? code.replaceAll("_", " ") : NONE;
}

/** Return a count with its noun. @param {number} count @param {string} one @param {string} several */
export function counted(count, one, several = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : several}`;
}

/** Return a name with a capital letter. @param {string} name */
export function title(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

// Numbers as text, each with its unit. An unknown number is a dash.

const NONE = "–";
const SPACE = "\u00a0";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Return a number with a fixed number of decimals. */
export function number(value, decimals = 0) {
  if (!known(value)) return NONE;
  return new Intl.NumberFormat("en", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  }).format(value);
}

/** Return milliseconds. */
export function ms(value) {
  return known(value) ? `${number(value, value < 1000 ? 1 : 0)}${SPACE}ms` : NONE;
}

/** Return a cost in λ. */
export function lambda(value) {
  return known(value) ? `${number(value, 2)}${SPACE}λ` : NONE;
}

/** Return US dollars, or millionths of one (µUSD): a request costs far less than a cent. */
export function usd(value) {
  if (!known(value)) return NONE;
  return Math.abs(value) < 0.01
    ? `${number(1e6 * value, 2)}${SPACE}µUSD`
    : `${number(value, 2)}${SPACE}USD`;
}

/** Return a share as a percentage. */
export function percent(value) {
  return known(value) ? `${number(100 * value, 1)}${SPACE}%` : NONE;
}

/** Return a difference of probabilities in percentage points. */
export function points(value, sign = "+") {
  return known(value) ? `${value > 0 ? sign : ""}${number(100 * value, 2)}${SPACE}points` : NONE;
}

/** Return a number of bytes. */
export function bytes(value) {
  return known(value) ? `${number(value)}${SPACE}B` : NONE;
}

/** Return seconds as s, min or h. */
export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 120) return `${number(seconds)}${SPACE}s`;
  return seconds < 7200
    ? `${number(seconds / 60)}${SPACE}min`
    : `${number(seconds / 3600, 1)}${SPACE}h`;
}

/** Return the local time of day of a Unix time in seconds, or of an ISO time. */
export function timeOfDay(at) {
  const date = known(at) ? new Date(1000 * at) : new Date(at);
  return Number.isNaN(date.valueOf()) ? NONE : date.toLocaleTimeString("en-GB");
}

/** Return the words of a code such as `fail_over`. */
export function words(code) {
  return code === null || code === undefined || code === "" ? NONE : String(code).replaceAll("_", " ");
}

/** Return a count with its noun. */
export function counted(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Return a name with a capital letter. */
export function title(name) {
  return name ? name[0].toUpperCase() + name.slice(1) : NONE;
}

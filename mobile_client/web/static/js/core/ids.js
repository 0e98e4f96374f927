// Identifiers of requests and attempts: UUIDs of version 7, as shared/ids.py makes them.

const TIME_DIGITS = 12;
const DATED = /^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/;

/**
 * Return a new identifier, 32 hexadecimal digits, with the time of the request `of` or `nowMs`.
 *
 * All attempts of a request have its time, so that the ledger keeps them in one day.
 * @param {{of?: string, nowMs?: number, random?: (size: number) => Uint8Array}} [options]
 * @returns {string}
 */
export function newId({ of, nowMs = Date.now(), random = randomBytes } = {}) {
  const digits =
    of !== undefined && DATED.test(of)
      ? of.slice(0, TIME_DIGITS)
      : Math.floor(nowMs).toString(16).padStart(TIME_DIGITS, "0").slice(-TIME_DIGITS);
  const bytes = random(10);
  bytes[0] = (bytes[0] & 0x0f) | 0x70; // version 7
  bytes[2] = (bytes[2] & 0x3f) | 0x80; // variant of RFC 9562
  return digits + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {number} size @returns {Uint8Array} */
function randomBytes(size) {
  return crypto.getRandomValues(new Uint8Array(size));
}

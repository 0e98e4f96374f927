// The errors that a client meets, with the HTTP status and code of each, as in shared/errors.py.

const MAX_MESSAGE_CHARS = 2_000;
const MAX_FIELD_CHARS = 100;
const MAX_ID_CHARS = 64;
const MAX_NUMBER = 1e15;

/**
 * Facts of an error: the wrong input's name, its bound, the time after which a retry is useful, and
 * the request that ended with it.
 * @typedef {{field?: string | null, limit?: number | null, retryAfterS?: number | null,
 *   requestId?: string | null}} ErrorFacts
 */

/** Base of all errors; the message is one sentence that says what is wrong and what to do. */
export class DimeeError extends Error {
  static status = 500;
  static code = "internal";

  /**
   * @param {string} message
   * @param {ErrorFacts} [facts]
   */
  constructor(message, { field = null, limit = null, retryAfterS = null, requestId = null } = {}) {
    super(message);
    this.name = new.target.name;
    this.field = field;
    this.limit = limit;
    this.retryAfterS = retryAfterS;
    this.requestId = requestId;
  }

  /** Status over HTTP. @returns {number} */
  get status() {
    return /** @type {typeof DimeeError} */ (this.constructor).status;
  }

  /** Code over HTTP and in ledger entries. @returns {string} */
  get code() {
    return /** @type {typeof DimeeError} */ (this.constructor).code;
  }
}

/** A text or a setting is wrong; the message names the field and the limit. */
export class InvalidInput extends DimeeError {
  static status = 422;
  static code = "invalid_input";
}

/** More text than a limit allows. */
export class TooLarge extends InvalidInput {
  static status = 413;
  static code = "too_large";
}

/** The headers of an HTTP request are larger, or more, than a limit allows. */
export class HeadTooLarge extends TooLarge {
  static status = 431;
  static code = "head_too_large";
}

/** The request is not valid HTTP. */
export class BadRequest extends InvalidInput {
  static status = 400;
  static code = "bad_request";
}

/** The head or the body of an HTTP request did not arrive in time. */
export class RequestTimeout extends InvalidInput {
  static status = 408;
  static code = "request_timeout";
}

/** The caller and the tier have different bundles, whose layers do not fit together. */
export class BundleMismatch extends InvalidInput {
  static status = 409;
  static code = "bundle_mismatch";
}

/** There is no such thing. */
export class NotFound extends DimeeError {
  static status = 404;
  static code = "not_found";
}

/** The request has no valid token. */
export class Unauthorised extends DimeeError {
  static status = 401;
  static code = "unauthorised";
}

/** The caller's token lacks a scope. */
export class Forbidden extends DimeeError {
  static status = 403;
  static code = "forbidden";
}

/** A bundle is missing, corrupt or cannot be used. */
export class BundleError extends DimeeError {
  static status = 503;
  static code = "bundle_invalid";
}

/** The ledger cannot be reached or read. */
export class LedgerUnavailable extends DimeeError {
  static status = 503;
  static code = "ledger_unavailable";
}

/** An attempt at a tier returned no answer. */
export class TierError extends DimeeError {
  static code = "tier_failed";
}

/** The tier's queue is full; try again after `retryAfterS`. */
export class Overloaded extends TierError {
  static status = 429;
  static code = "overloaded";
}

/** The caller exceeds its rate limit; try again after `retryAfterS`. */
export class RateLimited extends Overloaded {
  static code = "rate_limited";
}

/** The tier was sent an attempt with this identifier before, and has an entry of it. */
export class AttemptRepeated extends TierError {
  static status = 409;
  static code = "attempt_repeated";
}

/** The tier rejects the credentials of the client that calls it. */
export class NotAdmitted extends TierError {
  static status = 503;
  static code = "not_admitted";
}

/** The tier has not loaded its bundle yet. */
export class NotReady extends TierError {
  static status = 503;
  static code = "not_ready";
}

/** There is no connection to the tier, or it broke before an answer. */
export class TierUnreachable extends TierError {
  static status = 503;
  static code = "tier_unreachable";
}

/** The deadline passed before an answer. */
export class DeadlineExceeded extends TierError {
  static status = 504;
  static code = "deadline_exceeded";
}

/** An error inside the tier; details are in its log only. */
export class TierFailed extends TierError {
  static status = 500;
  static code = "tier_failed";
}

/** @type {Map<string, typeof DimeeError>} */
const BY_CODE = new Map(
  [
    InvalidInput,
    TooLarge,
    HeadTooLarge,
    BadRequest,
    RequestTimeout,
    BundleMismatch,
    NotFound,
    Unauthorised,
    Forbidden,
    BundleError,
    LedgerUnavailable,
    AttemptRepeated,
    Overloaded,
    RateLimited,
    NotAdmitted,
    NotReady,
    TierUnreachable,
    DeadlineExceeded,
    TierFailed,
  ].map((kind) => [kind.code, kind]),
);

/**
 * Return whether a body with this status has the form of an error of this project.
 * @param {unknown} body
 * @param {number} status
 */
export function isErrorDocument(body, status) {
  const error = errorOf(body);
  if (error === null || typeof error.message !== "string" || Object.keys(Object(body)).length !== 1) {
    return false;
  }
  if (error.code === "internal") return status === 500;
  const kind = typeof error.code === "string" ? BY_CODE.get(error.code) : undefined;
  return kind !== undefined && kind.status === status;
}

/**
 * Return the error that a server sent; `TierFailed` for an unknown one.
 *
 * The server may be any server: the message is cut, and a field, limit or time that is not one is
 * left out.
 * @param {unknown} body
 * @param {number} status
 * @returns {DimeeError}
 */
export function fromPayload(body, status) {
  const error = errorOf(body);
  if (error === null) return new TierFailed(`the server returned status ${status} without a known error`);
  const kind = (typeof error.code === "string" ? BY_CODE.get(error.code) : undefined) ?? TierFailed;
  return new kind(line(error.message, MAX_MESSAGE_CHARS) || `the server returned status ${status}`, {
    field: line(error.field, MAX_FIELD_CHARS),
    limit: number(error.limit, -MAX_NUMBER),
    retryAfterS: number(error.retry_after_s, 0),
    requestId: line(error.request_id, MAX_ID_CHARS),
  });
}

/** @param {unknown} body @returns {Record<string, unknown> | null} */
function errorOf(body) {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return null;
  const error = /** @type {Record<string, unknown>} */ (body).error;
  if (typeof error !== "object" || error === null || Array.isArray(error)) return null;
  return /** @type {Record<string, unknown>} */ (error);
}

/** Return at most `most` characters of a text, with "?" for control characters; null for others.
 * @param {unknown} value
 * @param {number} most
 */
function line(value, most) {
  if (typeof value !== "string") return null;
  return Array.from(value).slice(0, most).join("").replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, "?");
}

/** Return a finite number between `least` and `MAX_NUMBER`; null for anything else.
 * @param {unknown} value
 * @param {number} least
 */
function number(value, least) {
  return typeof value === "number" && value >= least && value <= MAX_NUMBER ? value : null;
}

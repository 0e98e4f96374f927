// Circuit breaker for one tier, as in mobile_client/resilience/circuit_breaker.py: after repeated
// failures the tier gets no requests for a while.

/** Number of failures in a row that open the breaker. */
export const FAILURES = 3;
/** Seconds that the breaker stays open at first, and at most; each failed trial doubles the time. */
export const OPEN_S = 5;
export const MAX_OPEN_S = 60;
/** A tier that was heard of less than this many seconds ago is not suspected. */
const SUSPECT_AFTER_S = 2;

/**
 * One attempt; `closings` counts how often the breaker had closed when it began.
 * @typedef {{closings: number}} AttemptToken
 */
/**
 * Latest knowledge of a tier. A `failing` tier answers that it is ready, but fails requests.
 * @typedef {"ready" | "not ready" | "unreachable" | "failing" | "unknown"} Readiness
 */

/** Closed, open, or half-open while one trial is in flight. */
export class CircuitBreaker {
  /** @type {number | null} */
  #openUntil = null;
  #openS = OPEN_S;
  /** @type {AttemptToken | null} */
  #trial = null;
  #unreachableUntil = -Infinity;
  /** True if the last failure is one that /readyz would have shown. */
  #down = false;
  /** True if a probe has closed the breaker after other failures, until a success. */
  #closedByProbe = false;
  #closings = 0;

  /** @param {() => number} clock returns seconds */
  constructor(clock) {
    this.clock = clock;
    this.failures = 0;
    /** True if the tier was unreachable when its state was last known, at the last failure. */
    this.lastUnreachable = false;
    /** @type {boolean | null} True if the last exchange or probe had a ready tier. */
    this.reached = null;
    /** Time of the last exchange or probe that counted. */
    this.heardAt = -Infinity;
    /** True after a timeout that was too short to count, until an answer or a probe. */
    this.suspected = false;
  }

  /** The present state. @returns {"closed" | "open" | "half-open"} */
  get state() {
    if (this.#openUntil === null) return "closed";
    return this.#trial !== null || this.clock() >= this.#openUntil ? "half-open" : "open";
  }

  /** Seconds until the breaker is half-open; 0 if it is closed. */
  get leftS() {
    return this.#openUntil === null ? 0 : Math.max(0, this.#openUntil - this.clock());
  }

  /** Return true if an attempt may begin: closed, or half-open without another trial. */
  allowsAttempt() {
    if (this.#openUntil === null) return true;
    return this.#trial === null && this.clock() >= this.#openUntil;
  }

  /**
   * True if a policy should plan with the tier.
   *
   * False while no attempt is allowed, and for `OPEN_S` after the tier was unreachable.
   */
  get available() {
    return this.allowsAttempt() && this.clock() >= this.#unreachableUntil;
  }

  /** True if an answer of /readyz would change what is known about the tier. */
  get needsProbe() {
    if (this.suspected || this.#down || this.reached === false) return true;
    return this.#openUntil !== null && !this.#closedByProbe;
  }

  /** Latest knowledge of the tier. @returns {Readiness} */
  get readiness() {
    if (this.reached === null) return "unknown";
    if (!this.reached) return this.lastUnreachable ? "unreachable" : "not ready";
    return this.#openUntil === null ? "ready" : "failing";
  }

  /** Return the token of a new attempt, which is the trial if the breaker is half-open. */
  beginAttempt() {
    /** @type {AttemptToken} */
    const token = { closings: this.#closings };
    if (this.allowsAttempt() && this.#openUntil !== null) this.#trial = token;
    return token;
  }

  /** Close the breaker, because the tier answered or refused as a working tier does. */
  recordSuccess() {
    this.#heard(true);
    this.#closedByProbe = false;
    this.#close();
  }

  /** Record that the tier says it is ready, and close the breaker if that is news. */
  recordReady() {
    this.#heard(true);
    if (this.#down) {
      this.#close();
    } else if (this.#openUntil !== null && !this.#closedByProbe) {
      // once only: the breaker of a tier that is ready but fails would otherwise hardly ever rest
      this.#closedByProbe = true;
      this.#close();
    }
  }

  /**
   * Count a failure of the tier, unless its attempt began before the breaker last closed.
   *
   * `unreachable`: no connection could be made. `notReady`: the tier said that it is not ready.
   * Another failure, such as a connection that broke, says neither: what was known before still holds.
   * @param {AttemptToken | null} token
   * @param {{unreachable?: boolean, notReady?: boolean}} [how]
   */
  recordFailure(token, { unreachable = false, notReady = false } = {}) {
    if (token !== null && token.closings < this.#closings) return;
    this.#down = unreachable || notReady;
    const stillUnreachable = this.lastUnreachable && this.reached === false && !notReady;
    this.#heard(this.#down ? false : this.reached);
    this.failures += 1;
    this.lastUnreachable = unreachable || stillUnreachable;
    if (unreachable) this.#unreachableUntil = this.clock() + OPEN_S;
    if (this.#trial !== null && token === this.#trial) {
      this.#trial = null;
      this.#openS = Math.min(MAX_OPEN_S, 2 * this.#openS);
      this.#openUntil = this.clock() + this.#openS;
    } else if (this.failures >= FAILURES && this.#openUntil === null) {
      this.#openUntil = this.clock() + this.#openS;
    }
  }

  /**
   * Record that a probe failed, and let no request try the tier while probes go on.
   * @param {boolean} unreachable
   */
  recordNotReady(unreachable) {
    this.recordFailure(null, { unreachable, notReady: !unreachable });
    if (this.#openUntil !== null) this.#openUntil = Math.max(this.#openUntil, this.clock() + OPEN_S);
  }

  /** Ask for a probe, because an attempt ended unanswered in a way that does not count. */
  suspect() {
    if (this.clock() - this.heardAt >= SUSPECT_AFTER_S) this.suspected = true;
  }

  /**
   * Ignore the outcome of an attempt that was cancelled or had too little time.
   * @param {AttemptToken} token
   */
  discard(token) {
    if (token === this.#trial) this.#trial = null;
  }

  /** @param {boolean | null} reached */
  #heard(reached) {
    this.reached = reached;
    this.heardAt = this.clock();
    if (reached) this.suspected = false;
  }

  #close() {
    if (this.#openUntil !== null) this.#closings += 1;
    this.failures = 0;
    this.#openUntil = null;
    this.#trial = null;
    this.#openS = OPEN_S;
    this.#down = false;
    this.#unreachableUntil = -Infinity;
  }
}

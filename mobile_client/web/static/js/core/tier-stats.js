// Measured delay and availability of each tier, for routing decisions, as in
// mobile_client/resilience/tier_stats.py and replica_stats.py. A browser knows one address of a tier,
// so there are no replicas to choose from.

import { CircuitBreaker } from "./circuit-breaker.js";
import { Conditions } from "./conditions.js";
import { DeadlineExceeded, NotReady, Overloaded, TierFailed, TierUnreachable } from "./errors.js";

/** @import { AttemptToken } from "./circuit-breaker.js" */
/** @import { CostModel } from "./cost-model.js" */
/** @import { Tier } from "./domain.js" */
/** @import { Exchange } from "./exchange.js" */

/** Weight of the newest delay in the mean, as TCP's for round trips (RFC 6298). */
const SMOOTHING = 0.125;
/** A delay that has not been measured for this long is discarded. */
const DELAY_EXPIRES_S = 60;
/** A timeout after less time than this does not count as a failure of the tier. */
const FAIR_TIMEOUT_MS = 2_000;
/** A timeout counts only after at least this multiple of the tier's mean delay. */
const FAIR_MULTIPLE = 4;
/** A timeout that is noticed later than this was missed by this page, which did not run. */
export const STALL_MS = 100;

/** @typedef {"edge" | "cloud"} Server */
/** @type {readonly Server[]} */
export const SERVERS = ["edge", "cloud"];

/** Smoothed delay in milliseconds; null while none was measured for `DELAY_EXPIRES_S`. */
class MeanDelay {
  /** @type {number | null} */
  #ms = null;
  #measuredAt = 0;

  /** @param {() => number} clock */
  constructor(clock) {
    this.clock = clock;
  }

  /** The mean. */
  get ms() {
    if (this.#ms !== null && this.clock() - this.#measuredAt >= DELAY_EXPIRES_S) this.#ms = null;
    return this.#ms;
  }

  /** Enter a measurement. @param {number} delayMs */
  add(delayMs) {
    const mean = this.ms;
    this.#ms = mean === null ? delayMs : mean + SMOOTHING * (delayMs - mean);
    this.#measuredAt = this.clock();
  }
}

/** Delays and failures of one server. */
class ServerStats {
  /** @param {() => number} clock */
  constructor(clock) {
    this.breaker = new CircuitBreaker(clock);
    this.delay = new MeanDelay(clock);
  }

  /** Time after which a missing answer is a failure of the tier. */
  get fairTimeoutMs() {
    return Math.max(FAIR_TIMEOUT_MS, FAIR_MULTIPLE * (this.delay.ms ?? 0));
  }

  /**
   * @param {Exchange} exchange
   * @param {AttemptToken} token
   * @param {number} timeoutMs
   */
  recordExchange(exchange, token, timeoutMs) {
    const stalled = exchange.roundTripMs > timeoutMs + STALL_MS;
    if (exchange.answer !== null && !stalled) this.delay.add(exchange.roundTripMs);
    this.#updateBreaker(exchange, token, !stalled && timeoutMs >= this.fairTimeoutMs);
  }

  /**
   * @param {Exchange} exchange
   * @param {AttemptToken} token
   * @param {boolean} fair true if the tier had a fair time to answer
   */
  #updateBreaker({ error, delivery }, token, fair) {
    const late = error instanceof DeadlineExceeded;
    if (late && !fair) {
      // a tier that reports the deadline itself works
      if (delivery !== "arrived") this.breaker.suspect();
      this.breaker.discard(token);
      return;
    }
    const unreachable = delivery === "not_sent";
    const notReady = error instanceof NotReady;
    if (unreachable || late || notReady || error instanceof TierUnreachable || error instanceof TierFailed) {
      this.breaker.recordFailure(token, { unreachable, notReady });
      // a browser does not say whether a connection was made; a probe tells whether the tier is reached
      if (error instanceof TierUnreachable && !unreachable) this.breaker.suspected = true;
    } else {
      this.breaker.recordSuccess();
    }
  }
}

/** Keeps `conditions` up to date: prices, delays and failures. */
export class TierStats {
  /**
   * @param {CostModel} costModel
   * @param {number} latencyPriceLambda price of waiting one millisecond, in λ
   * @param {() => number} clock returns seconds
   */
  constructor(costModel, latencyPriceLambda, clock) {
    this.conditions = new Conditions(costModel);
    this.conditions.latencyPriceLambda = latencyPriceLambda;
    this.mobileDelay = new MeanDelay(clock);
    /** @type {Record<Server, ServerStats>} */
    this.servers = { edge: new ServerStats(clock), cloud: new ServerStats(clock) };
  }

  /**
   * Update the conditions for a request that has `leftMs` until its deadline.
   * @param {number} leftMs
   */
  refresh(leftMs) {
    this.conditions.leftMs = leftMs;
    this.conditions.up = {};
    this.#setDelay("mobile", this.mobileDelay.ms);
    for (const tier of SERVERS) {
      this.#setDelay(tier, this.servers[tier].delay.ms);
      if (!this.servers[tier].breaker.available) this.conditions.up[tier] = false;
    }
  }

  /** Return whether a policy should plan with a server. @param {Server} tier */
  available(tier) {
    return this.servers[tier].breaker.available;
  }

  /** Return whether every server is available, as of the last `refresh`. */
  get allUp() {
    return Object.keys(this.conditions.up).length === 0;
  }

  /**
   * Return what `work` returns while every server counts as available, to find the tier that a policy
   * would prefer.
   * @template T
   * @param {() => T} work
   * @returns {T}
   */
  assumeAllAvailable(work) {
    const { up } = this.conditions;
    this.conditions.up = {};
    try {
      return work();
    } finally {
      this.conditions.up = up;
    }
  }

  /**
   * Enter the time from request to answer in the mean delay of the mobile or of a server.
   * @param {Tier} tier
   * @param {number} delayMs
   */
  recordDelay(tier, delayMs) {
    const delay = tier === "mobile" ? this.mobileDelay : this.servers[tier].delay;
    delay.add(delayMs);
    this.#setDelay(tier, delay.ms);
  }

  /** Return the token of a new exchange with a server. @param {Server} tier */
  begin(tier) {
    return this.servers[tier].breaker.beginAttempt();
  }

  /**
   * Record the delay or the failure of an exchange.
   * @param {Server} tier
   * @param {Exchange} exchange
   * @param {AttemptToken} token of `begin`
   * @param {number} timeoutMs time that the exchange was given
   */
  recordExchange(tier, exchange, token, timeoutMs) {
    this.servers[tier].recordExchange(exchange, token, timeoutMs);
    this.#setDelay(tier, this.servers[tier].delay.ms);
    this.end(tier, token);
  }

  /**
   * End an exchange; without a recorded outcome, such as after a cancellation, it is ignored.
   * @param {Server} tier
   * @param {AttemptToken} token
   */
  end(tier, token) {
    this.servers[tier].breaker.discard(token);
  }

  /**
   * @param {Tier} tier
   * @param {number | null} delayMs
   */
  #setDelay(tier, delayMs) {
    if (delayMs === null) delete this.conditions.delayMs[tier];
    else this.conditions.delayMs[tier] = delayMs;
  }
}

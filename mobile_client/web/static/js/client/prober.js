// Asks tiers that have failed whether they are ready again, in the background.

import { DeadlineExceeded, NotReady, TierUnreachable } from "../core/errors.js";
import { SERVERS, STALL_MS } from "../core/tier-stats.js";

/** @import { TierStats } from "../core/tier-stats.js" */
/** @import { TierClient } from "./tier-client.js" */
/** @typedef {"edge" | "cloud"} Server */

const INTERVAL_MS = 500;
const MAX_INTERVAL_MS = 8_000;
/** Probes stop when there was no request for this long; the next request starts them again. */
const IDLE_MS = 60_000;
/** What is known of a tier that is not ready is renewed after this time, while the page is looked at. */
const FRESH_MS = 10_000;

/** Probes a tier while that would change what is known about it. A tier that works is not asked. */
export class Prober {
  /** @type {Set<Server>} */
  #running = new Set();
  #wantedAt = -Infinity;
  /** @type {Record<Server, number>} */
  #probedAt = { edge: -Infinity, cloud: -Infinity };
  #stopped = false;

  /**
   * @param {TierStats} tierStats
   * @param {Record<Server, TierClient>} clients
   * @param {() => void} onChange Called after each probe.
   * @param {() => number} now Milliseconds.
   */
  constructor(tierStats, clients, onChange, now = () => performance.now()) {
    this._tierStats = tierStats;
    this._clients = clients;
    this._onChange = onChange;
    this._now = now;
  }

  /** Start the probes that are needed. Call it with every request, and when the network is back. */
  wake() {
    this.#wantedAt = this._now();
    for (const tier of SERVERS) {
      if (!this.#running.has(tier) && this.#isNeeded(tier)) this.#probeWhileNeeded(tier);
    }
  }

  /** Ask both tiers now, such as for the first view of the page. */
  async askAll() {
    await Promise.all(SERVERS.map((tier) => this.#probe(tier)));
  }

  /** Ask the tiers that are not known to be ready, and that were not heard of for a while. */
  renew() {
    for (const tier of SERVERS) {
      const { heardAt, readiness } = this._tierStats.servers[tier].breaker;
      const knownAt = Math.max(this.#probedAt[tier], 1e3 * heardAt);
      if (readiness !== "ready" && this._now() - knownAt >= FRESH_MS) this.#probe(tier);
    }
  }

  /** End all probes. */
  stop() {
    this.#stopped = true;
  }

  /** @param {Server} tier */
  #isNeeded(tier) {
    const idle = this._now() - this.#wantedAt >= IDLE_MS;
    return !this.#stopped && !idle && this._tierStats.servers[tier].breaker.needsProbe;
  }

  /** @param {Server} tier */
  async #probeWhileNeeded(tier) {
    this.#running.add(tier);
    try {
      // a failure has just been observed, so that the first probe waits as well
      for (let waitMs = INTERVAL_MS; ; waitMs = Math.min(MAX_INTERVAL_MS, 1.5 * waitMs)) {
        await new Promise((resolve) => setTimeout(resolve, waitMs));
        if (!this.#isNeeded(tier)) return;
        await this.#probe(tier);
      }
    } finally {
      this.#running.delete(tier);
    }
  }

  /** @param {Server} tier */
  async #probe(tier) {
    const { breaker, fairTimeoutMs } = this._tierStats.servers[tier];
    const since = this._now();
    this.#probedAt[tier] = since;
    const error = await this._clients[tier].probe(fairTimeoutMs);
    if (this.#stopped) return;
    const stalled = this._now() - since > fairTimeoutMs + STALL_MS;
    const late = error instanceof DeadlineExceeded;
    if (error === null) breaker.recordReady();
    // this page did not run, such as in the background: the answer may have come, so it asks again
    else if (stalled) breaker.suspected = true;
    // a tier that rests may answer requests even so: the breaker's own time decides
    else if (error instanceof NotReady || error instanceof TierUnreachable || (late && breaker.state === "closed")) {
      breaker.recordNotReady(!(error instanceof NotReady));
    }
    this._onChange();
  }
}

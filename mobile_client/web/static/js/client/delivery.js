// Background delivery of the outbox to the ledger, at least once for each entry.

import { InvalidInput, TooLarge, fromPayload } from "../core/errors.js";
import { ifClosed, ifNoneDelivers } from "./page-locks.js";

/** Time in which entries are collected for a batch. */
const INTERVAL_MS = 100;
const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;
/** Without a valid token a delivery is tried this rarely; a sign-in tries at once. */
const SIGNED_OUT_BACKOFF_MS = 60_000;
const TIMEOUT_MS = 10_000;
/** Interval at which the attempts of pages that were closed are looked for. */
const ADOPTION_INTERVAL_MS = 30_000;
const DEFAULT_BATCH = 50;
/** Largest body that a browser sends on after the page was closed, with some room. */
const MAX_KEEPALIVE_BYTES = 60_000;
const REQUEST_TIMEOUT = 408;
/** Time after which entries that wait are a problem to show. */
export const WARNING_MS = 60_000;

/**
 * @typedef {object} DeliveryStatus
 * @property {string | null} problem Why the last delivery failed.
 * @property {number} failingMs Time since the first of the deliveries that fail now.
 * @property {number | null} deliveredAt Time of the last delivery, in milliseconds since 1970.
 * @property {boolean} signedOut True if the ledger refuses this device's token.
 */
/** @typedef {import("./outbox.js").Row} Row */
/** @typedef {"delivered" | "nothing" | "failed" | "busy"} Outcome */

/** Posts pending entries to `{url}/v1/entries` and repeats a delivery until the ledger confirms it. */
export class Delivery {
  #stopped = false;
  #woken = false;
  /** @type {(() => void) | null} */
  #interrupt = null;
  /** @type {number | null} */
  #failingSince = null;
  /** @type {string | null} */
  #problem = null;
  /** @type {number | null} */
  #deliveredAt = null;
  #signedOut = false;
  #adoptAt = 0;
  /** Most entries of the next delivery: fewer after one that was too slow. */
  #most;
  /** @type {Promise<void> | null} */
  #running = null;
  /** @type {Set<() => void>} */
  #observers = new Set();

  /**
   * @param {import("./outbox.js").Outbox} outbox
   * @param {object} options
   * @param {string} options.url Address of the ledger.
   * @param {() => Record<string, string>} options.headers Headers with the device's token.
   * @param {number} [options.batch] Most entries of one delivery.
   * @param {() => number} [options.now] Milliseconds, of a clock that never goes back.
   * @param {() => number} [options.jitter] Random number in [0, 1).
   */
  constructor(outbox, { url, headers, batch = DEFAULT_BATCH, now = () => performance.now(), jitter = Math.random }) {
    this._outbox = outbox;
    this.url = url;
    this._url = `${url.replace(/\/$/, "")}/v1/entries`;
    this._headers = headers;
    this._batch = this.#most = batch;
    this._now = now;
    this._jitter = jitter;
  }

  /** Begin; entries and open attempts of closed pages come first. */
  start() {
    this._outbox.onChange(this.wake);
    addEventListener("online", this.#atOnce);
    addEventListener("pagehide", this.#atOnce);
    document.addEventListener("visibilitychange", this.#atOnce);
    this.#woken = true;
    this.#running = this.#run();
  }

  /** End; undelivered entries stay on the device. */
  async stop() {
    this.#stopped = true;
    removeEventListener("online", this.#atOnce);
    removeEventListener("pagehide", this.#atOnce);
    document.removeEventListener("visibilitychange", this.#atOnce);
    this.#interrupt?.();
    await this.#running;
  }

  /** Deliver soon, because an entry was recorded. */
  wake = () => {
    this.#woken = true;
    if (this.#problem === null) this.#interrupt?.();
  };

  /**
   * Call `observer` after each delivery, each failure, and when nothing is left to deliver.
   * @param {() => void} observer
   */
  onChange(observer) {
    this.#observers.add(observer);
  }

  /** @returns {DeliveryStatus} */
  status() {
    return {
      problem: this.#problem,
      failingMs: this.#failingSince === null ? 0 : this._now() - this.#failingSince,
      deliveredAt: this.#deliveredAt,
      signedOut: this.#signedOut,
    };
  }

  /** Try again without waiting, such as after a sign-in. */
  retry() {
    this.#signedOut = false;
    this.#atOnce();
  }

  #atOnce = () => {
    this.#woken = true;
    this.#interrupt?.();
  };

  async #run() {
    let backoffMs = 0;
    while (!this.#stopped) {
      if (!this.#woken) await this.#sleep(ADOPTION_INTERVAL_MS);
      if (backoffMs > 0 || this.#woken) await this.#sleep(backoffMs || INTERVAL_MS, backoffMs > 0);
      if (this.#stopped) return;
      this.#woken = false;
      const outcome = await this.#round();
      if (outcome === "delivered") this.#woken = true; // there may be more
      if (outcome === "failed" || outcome === "busy") {
        const mostMs = this.#signedOut ? SIGNED_OUT_BACKOFF_MS : MAX_BACKOFF_MS;
        const doubledMs = Math.min(mostMs, Math.max(FIRST_BACKOFF_MS, 2 * backoffMs));
        backoffMs = doubledMs * (0.5 + 0.5 * this._jitter());
        this.#woken = true;
      } else {
        backoffMs = 0;
      }
    }
  }

  /** @returns {Promise<Outcome>} */
  async #round() {
    try {
      if (this._now() >= this.#adoptAt) {
        this.#adoptAt = this._now() + ADOPTION_INTERVAL_MS;
        await adoptClosedPages(this._outbox);
      }
      return (await ifNoneDelivers(() => this.#deliver())) ?? "busy";
    } catch {
      this.#failed("the outbox cannot be read");
      return "failed";
    }
  }

  /** Send one batch. @returns {Promise<Outcome>} */
  async #deliver() {
    const rows = await this._outbox.pending(this.#most);
    if (rows.length === 0) {
      this.#succeeded(false);
      return "nothing";
    }
    return (await this.#send(rows)) ? "delivered" : "failed";
  }

  /** @param {Row[]} rows @returns {Promise<boolean>} */
  async #send(rows) {
    const body = new TextEncoder().encode(`{"entries":[${rows.map((row) => row.body).join(",")}]}`);
    const credentials = this._headers();
    let response, answer;
    try {
      response = await fetch(this._url, {
        method: "POST",
        headers: { "content-type": "application/json", ...credentials },
        body,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        keepalive: body.byteLength < MAX_KEEPALIVE_BYTES, // goes on if the page is closed meanwhile
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      answer = await response.json().catch(() => null);
    } catch (error) {
      const late = error instanceof DOMException && error.name === "TimeoutError";
      if (late) this.#most = Math.ceil(rows.length / 2);
      this.#failed(late ? "the ledger does not answer in time" : "the ledger cannot be reached");
      return false;
    }
    if (response.ok) {
      if (answer?.stored + answer?.duplicates !== rows.length) {
        this.#failed("the ledger does not confirm the entries, as a ledger does; check its address");
        return false;
      }
      this.#most = Math.min(this._batch, 2 * this.#most);
      if (!(await this._outbox.markDelivered(rows))) {
        this.#failed("this device has no space to note what was delivered; free space on it");
        return false;
      }
      this.#succeeded(true);
      return true;
    }
    const refused = fromPayload(answer, response.status);
    // other refusals concern the message, such as one that arrived too slowly: it is sent again
    const rejected = [InvalidInput, TooLarge].some((kind) => refused.constructor === kind && kind.status === response.status);
    if (response.status === REQUEST_TIMEOUT) this.#most = Math.ceil(rows.length / 2);
    // a proxy may refuse a large batch, but says nothing about an entry
    if (!rejected && !(response.status === 413 && rows.length > 1)) {
      // the refusal of an earlier token says nothing about the present one
      const present = credentials.authorization === this._headers().authorization;
      this.#failed(statusProblem(response.status), present && [401, 403].includes(response.status));
      return false;
    }
    if (rows.length === 1) {
      await this._outbox.quarantine(rows[0]);
      this.#succeeded(true);
      return true;
    }
    const half = Math.floor(rows.length / 2);
    return (await this.#send(rows.slice(0, half))) && (await this.#send(rows.slice(half)));
  }

  /** @param {string} problem @param {boolean} signedOut */
  #failed(problem, signedOut = false) {
    this.#problem = problem;
    this.#signedOut = signedOut;
    this.#failingSince ??= this._now();
    this.#changed();
  }

  /** @param {boolean} delivered */
  #succeeded(delivered) {
    this.#problem = this.#failingSince = null;
    this.#signedOut = false;
    if (delivered) this.#deliveredAt = Date.now();
    this.#changed(); // also if there was nothing to send: another tab may have delivered it
  }

  #changed() {
    for (const observer of this.#observers) observer();
  }

  /**
   * @param {number} ms
   * @param {boolean} throughout Only `#atOnce` ends it, and not each recorded entry.
   * @returns {Promise<void>}
   */
  #sleep(ms, throughout = false) {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const wakeUp = () => {
        clearTimeout(timer);
        this.#interrupt = null;
        resolve();
      };
      const timer = setTimeout(wakeUp, ms);
      this.#interrupt = throughout || ms > INTERVAL_MS ? wakeUp : null;
    });
  }
}

/**
 * End the open attempts of pages that were closed.
 * @param {import("./outbox.js").Outbox} outbox
 */
export async function adoptClosedPages(outbox) {
  for (const page of await outbox.pagesWithOpenAttempts()) await ifClosed(page, () => outbox.abandon(page));
}

/** @param {number} status */
function statusProblem(status) {
  if (status === 401 || status === 403) return "the ledger rejects this device's token; sign in again";
  if (status === REQUEST_TIMEOUT) return "the entries reach the ledger too slowly";
  if (status === 429) return "the ledger limits this device's rate";
  if (status >= 500) return "the ledger cannot store entries now";
  return `the ledger does not accept entries (status ${status}); check its address`;
}

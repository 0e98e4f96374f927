// Calls of the edge and the cloud, with delivery, bytes and round-trip time of each.
//
// Bytes count the body and the headers that a page sees: a browser does not tell the others.

import {
  DeadlineExceeded,
  Forbidden,
  NotReady,
  Overloaded,
  TierUnreachable,
  Unauthorised,
  fromPayload,
  isErrorDocument,
} from "../core/errors.js";
import { MAX_ANSWER_BYTES, saysReady } from "./answer-rules.js";
import { invalidAnswer, readResponse } from "./tier-response.js";

const REPLICA = /^[A-Za-z0-9_.-]{1,64}$/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** What the gateway's relay tells of a tier in its place. */
const SAID_BY_RELAY = [TierUnreachable, DeadlineExceeded];
/** Refusals by the gateway itself, which say nothing of the tier. */
const REFUSALS = [Unauthorised, Forbidden, Overloaded];

/** @import { Delivery } from "../core/domain.js" */
/** @import { DimeeError } from "../core/errors.js" */
/** @import { Exchange } from "../core/exchange.js" */
/** @import { AnswerRules } from "./answer-rules.js" */

/** Sends attempts to one tier. Failures of the tier or the network are the `error` of an exchange. */
export class TierClient {
  /**
   * @param {string} url Address of the tier, or of the gateway's relay to it.
   * @param {AnswerRules} rules
   * @param {() => Record<string, string>} headers Headers with the device's token.
   * @param {() => number} now Milliseconds.
   */
  constructor(url, rules, headers, now = () => performance.now()) {
    this.tier = rules.tier;
    this._url = url.replace(/\/$/, "");
    this._rules = rules;
    this._headers = headers;
    this._now = now;
  }

  /**
   * Send one attempt and wait at most `timeoutMs` for the complete answer.
   * @param {Record<string, unknown>} request Body of `/v1/infer`.
   * @param {number} timeoutMs
   * @returns {Promise<Exchange>}
   */
  async infer(request, timeoutMs) {
    if (this.#isOffline()) {
      const offline = new TierUnreachable(`the ${this.tier} was not asked: this device is offline`);
      return unanswered("not_sent", 0, 0, 0, offline);
    }
    const body = JSON.stringify(request);
    const headers = { "content-type": "application/json", ...this._headers() };
    const sentBytes = size("POST /v1/infer HTTP/1.1", Object.entries(headers)) + byteLength(body);
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs)));
    const started = this._now();
    let receivedBytes = 0;
    try {
      const response = await fetch(`${this._url}/v1/infer`, {
        method: "POST",
        headers,
        body,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: timeout,
      });
      receivedBytes = size("HTTP/1.1 200 OK", [...response.headers]);
      const text = await readText(response);
      const roundTripMs = this._now() - started;
      const { headers: got, status } = response;
      if (text === null) {
        const error = invalidAnswer(this.tier, `with more than ${MAX_ANSWER_BYTES.toLocaleString("en")} bytes`);
        return unanswered("unknown", sentBytes, MAX_ANSWER_BYTES, roundTripMs, error);
      }
      const delivery = got.get("dimee-delivery");
      return {
        ...readResponse(this._rules, status, text, String(request.attempt_id), roundTripMs, delivery),
        sentBytes,
        receivedBytes: receivedBytes + byteLength(text),
        roundTripMs,
        replica: replicaOf(got.get("dimee-replica")),
      };
    } catch {
      const problem = timeout.aborted
        ? new DeadlineExceeded(`the ${this.tier} did not answer within ${Math.round(timeoutMs)} ms`)
        : new TierUnreachable(`the ${this.tier} could not be reached, or the connection broke`);
      // a browser does not say whether the request was sent
      return unanswered("unknown", sentBytes, receivedBytes, this._now() - started, problem);
    }
  }

  /**
   * Ask `/readyz`; return null if the tier is ready, else the error: that it is not ready, not reached or
   * late, or a refusal that does not tell.
   * @param {number} timeoutMs
   * @returns {Promise<DimeeError | null>}
   */
  async probe(timeoutMs) {
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(timeoutMs)));
    try {
      const response = await fetch(`${this._url}/readyz`, {
        headers: this._headers(),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: timeout,
      });
      const body = await response.json().catch(() => null);
      if (response.ok && saysReady(this._rules, body)) return null;
      const error = isErrorDocument(body, response.status) ? fromPayload(body, response.status) : null;
      const told = [...SAID_BY_RELAY, ...REFUSALS].some((kind) => error instanceof kind);
      return told ? error : new NotReady(`the ${this.tier} is not ready`);
    } catch {
      return timeout.aborted
        ? new DeadlineExceeded(`the ${this.tier} does not say whether it is ready`)
        : new TierUnreachable(`the ${this.tier} is not reached`);
    }
  }

  /** Return true if nothing can leave this device. */
  #isOffline() {
    // without a network, loopback still works
    return !navigator.onLine && !LOOPBACK.test(new URL(this._url, location.href).hostname);
  }
}

/**
 * @param {Delivery} delivery
 * @param {number} sentBytes
 * @param {number} receivedBytes
 * @param {number} roundTripMs
 * @param {DimeeError} error
 * @returns {Exchange}
 */
function unanswered(delivery, sentBytes, receivedBytes, roundTripMs, error) {
  return { delivery, sentBytes, receivedBytes, roundTripMs, answer: null, error, replica: null };
}

/**
 * Return the text of a response, or null if it is larger than an answer may be.
 * @param {Response} response
 * @returns {Promise<string | null>}
 */
async function readText(response) {
  if (response.body === null) return "";
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.byteLength;
    if (bytes > MAX_ANSWER_BYTES) {
      await reader.cancel();
      return null;
    }
    text += decoder.decode(value, { stream: true });
  }
}

/** @param {string} startLine @param {[string, string][]} headers */
function size(startLine, headers) {
  const lines = headers.map(([name, value]) => name.length + value.length + 4);
  return startLine.length + 2 + lines.reduce((sum, length) => sum + length, 0) + 2;
}

/** @param {string} text */
function byteLength(text) {
  return new TextEncoder().encode(text).byteLength;
}

/** @param {string | null} header */
function replicaOf(header) {
  return header !== null && REPLICA.test(header) ? header : null;
}

// The mobile client in a browser: loads the model, answers texts, and delivers what was recorded.

import { BundleError, NotReady, Unauthorised } from "../core/errors.js";
import { checkInput } from "../core/text-checks.js";
import { SERVERS } from "../core/tier-stats.js";
import { BundleStore } from "./bundle-store.js";
import { lastConfig, readConfig } from "./config.js";
import { Credentials, problemOf } from "./credentials.js";
import { Database } from "./database.js";
import { Delivery } from "./delivery.js";
import { startWorker } from "./local-model.js";
import { Model } from "./model.js";
import { Outbox } from "./outbox.js";
import { holdPageLock } from "./page-locks.js";
import { Prober } from "./prober.js";
import { NOWHERE, NotClassified, TextRequest, knownError, resolveOptions } from "./request.js";

/** @import { Config } from "./config.js" */
/** @import { Options, Outcome } from "./request.js" */

/** @typedef {"starting" | "sign-in" | "downloading" | "preparing" | "ready" | "failed"} Phase */
/**
 * @typedef {object} Status
 * @property {Phase} phase
 * @property {import("./bundle-store.js").Progress} progress Of a download.
 * @property {string | null} problem Why the model is not loaded.
 * @property {boolean} kept True if the model is there for offline use.
 * @property {string | null} update What happens with a newer model, or null.
 */
/**
 * @typedef {object} OutboxReport
 * @property {"on" | "refused" | "off"} recording
 * @property {number} waiting
 * @property {number} rejected
 * @property {number} dropped
 * @property {string | null} problem
 * @property {import("./delivery.js").DeliveryStatus | null} delivery
 */

export class MobileClient {
  /** @type {Status} */
  status = { phase: "starting", progress: { loadedBytes: 0, totalBytes: 0 }, problem: null, kept: false, update: null };
  /** @type {Config | null} */
  config = null;
  /** Number of texts that are being classified. */
  inFlight = 0;
  /** @type {Model | null} */
  #model = null;
  /** @type {Prober | null} */
  #prober = null;
  /** @type {Delivery | null} */
  #delivery = null;
  /** @type {Promise<void> | null} */
  #opening = null;
  /** @type {Promise<void> | null} */
  #starting = null;
  #signInNeeded = false;
  #signIns = 0;
  #persisting = false;
  #observing = new Set();
  /** @type {Promise<unknown>} End of the last request of a policy that learns. */
  #turn = Promise.resolve();

  /** @param {{database?: Database, page?: string}} options */
  constructor({ database = new Database(), page = crypto.randomUUID() } = {}) {
    this._database = database;
    this._page = page;
    this._credentials = new Credentials(database);
    this._credentials.onChange(() => this.#tokenChanged());
    this.outbox = new Outbox(database, page);
    this.outbox.onChange(() => this.#changed());
  }

  /** Manifest of the bundle in use, or null. */
  get manifest() {
    return this.#model?.manifest ?? null;
  }

  /** Threads that run the layers. */
  get threads() {
    return this.#model?.layers.threads ?? 1;
  }

  /** True if a token is used. */
  get signedIn() {
    return this._credentials.signedIn;
  }

  /** True if calls are refused without a token, or with the one that is used. */
  get needsSignIn() {
    if (this.status.phase === "sign-in" || this.#signInNeeded) return true;
    if (!this.config?.auth_required) return false;
    return !this.signedIn || (this.#delivery?.status().signedOut ?? false);
  }

  /**
   * Call `observer` after each change of what this object tells.
   * @param {() => void} observer
   */
  onChange(observer) {
    this.#observing.add(observer);
    observer();
  }

  /** Load the model: the one on this device if it is sound, else the gateway's. */
  start() {
    this.#starting ??= this.#start().finally(() => {
      this.#starting = null;
    });
    return this.#starting;
  }

  /**
   * Classify a text; throws `NotClassified`.
   * @param {string} text
   * @param {string | null} [pair]
   * @param {Options} [options]
   * @returns {Promise<Outcome>}
   */
  async classify(text, pair = null, options = {}) {
    const since = performance.now();
    const model = this.#model;
    this.inFlight += 1;
    try {
      if (model === null) throw new BundleError("the model is not loaded yet; wait until it is, or try again");
      const resolved = resolveOptions(options, model.config);
      checkInput(text, pair, model.manifest);
      const policy = await model.policy(resolved.policy);
      this.#prober?.wake();
      this.#persist();
      const recording = model.config.ledger === null ? NOWHERE : this.outbox;
      const request = new TextRequest(model, policy, recording, text, pair, resolved, since);
      const answer = () => this.#answer(model, request);
      if (!policy.learns) return await answer();
      // a policy that learns routes each text after it has learned from the one before
      const turn = this.#turn.then(answer, answer);
      this.#turn = turn.catch(() => undefined);
      return await turn;
    } catch (error) {
      if (error instanceof NotClassified) throw error;
      throw new NotClassified(knownError(error), null);
    } finally {
      this.inFlight -= 1;
      this.#changed();
    }
  }

  /** Return what is known of edge and cloud. */
  tiers() {
    const model = this.#model;
    if (model === null) return [];
    const layers = { edge: model.manifest.edge_layers, cloud: model.manifest.layers };
    return SERVERS.map((tier) => {
      const { readiness, state } = model.tierStats.servers[tier].breaker;
      return { tier, layers: layers[tier], readiness, breaker: state };
    });
  }

  /** Ask tiers that are not known to be ready again. Call it while the page is looked at. */
  renewTiers() {
    if (navigator.onLine && !this.needsSignIn) this.#prober?.renew();
  }

  /** Return the state of the outbox. @returns {Promise<OutboxReport>} */
  async outboxReport() {
    const { problem, ...counts } = await this.outbox.counts();
    const { dropped } = this.outbox;
    const delivery = this.#delivery?.status() ?? null;
    if (this.config?.ledger === null) return { recording: "off", ...counts, dropped, problem: null, delivery };
    return { recording: problem === null ? "on" : "refused", ...counts, dropped, problem, delivery };
  }

  /** Deliver waiting entries without delay. */
  deliverNow() {
    this.#delivery?.retry();
  }

  /**
   * Use a token; return null, or why it is not accepted.
   * @param {string} token
   * @param {boolean} keep Keep it on this device.
   * @returns {Promise<string | null>}
   */
  async signIn(token, keep) {
    const problem = await problemOf(token, `${this.config?.tiers.edge ?? "relay/edge"}/readyz`);
    if (problem !== null) return problem;
    if (!(await this._credentials.signIn(token, keep))) {
      return "This browser cannot keep the token; sign in without keeping it, or allow this site to store data.";
    }
    await this.#tokenChanged();
    return null;
  }

  /**
   * Forget the token, in all tabs.
   * @returns {Promise<boolean>} False if the browser did not delete the token that was kept.
   */
  async signOut() {
    const deleted = await this._credentials.signOut();
    this.#changed();
    return deleted;
  }

  /** End everything, so that another client may use the database. */
  async close() {
    this.#prober?.stop();
    this.#model?.close();
    await this.#delivery?.stop();
    this._credentials.close();
    await this._database.close();
  }

  /** Use a new token, of this tab or of another one, or do without. */
  async #tokenChanged() {
    if (!this.signedIn) return this.#changed();
    this.#signInNeeded = false;
    this.#signIns += 1;
    if (this.status.phase === "ready") {
      this.#delivery?.retry();
      this.#update(readConfig(this._database).catch(() => null));
      await this.#prober?.askAll();
    } else {
      await this.start();
      // a start that was under way may have missed the token
      if (this.status.phase === "sign-in") await this.start();
    }
    this.#changed();
  }

  async #start() {
    this.#set({ phase: "starting", problem: null });
    if (this.#model === null) startWorker();
    try {
      this.#opening ??= this.#open();
      await this.#opening;
      const fresh = readConfig(this._database).catch(() => null);
      const last = await lastConfig(this._database);
      const bundle = last === null ? null : await this.#store(last).kept();
      const unusable = bundle === null || last === null ? null : await this.#useKept(bundle, last);
      if (this.status.phase === "ready") {
        this.#update(fresh);
        return;
      }
      const config = await fresh;
      if (config === null) {
        throw unusable ?? new BundleError("The gateway cannot be reached; connect to its network and try again.");
      }
      this.config = config;
      this.#deliver(config);
      await this.#download(config);
    } catch (error) {
      const refused = error instanceof Unauthorised;
      this.#set({ phase: refused ? "sign-in" : "failed", problem: knownError(error).message });
    }
  }

  async #open() {
    await holdPageLock(this._page).catch(() => {
      throw new NotReady("This browser lets this site store nothing, and no text is answered without its ledger entries; allow it, and reload the page.");
    });
    await this._credentials.load();
    addEventListener("online", () => {
      if (this.status.phase === "ready") this.#update(readConfig(this._database).catch(() => null));
      else this.start();
    });
  }

  /** Ask the browser, once, not to delete undelivered entries when space is short. */
  #persist() {
    if (this.#persisting) return;
    this.#persisting = true;
    navigator.storage?.persist?.().catch(() => undefined);
  }

  /** @param {Config} config */
  async #download(config) {
    if (config.bundle_auth && !this.signedIn) throw new Unauthorised("the model needs a token; sign in");
    const store = this.#store(config);
    const bundle = await store.downloadLatest(await store.latestManifest(), (progress) =>
      this.#set({ phase: "downloading", progress }),
    );
    this.#set({ phase: "preparing" });
    await this.#use(bundle, config, store);
  }

  /**
   * Use the bundle of this device; return the error if that fails, such as for one of an older app.
   * @param {import("./bundle-store.js").Bundle} bundle
   * @param {Config} config
   */
  async #useKept(bundle, config) {
    try {
      await this.#use(bundle, config);
      return null;
    } catch (error) {
      return error;
    }
  }

  /**
   * Take over a newer configuration and a newer bundle, while the present ones are used.
   * @param {Promise<Config | null>} fresh
   */
  async #update(fresh) {
    const config = await fresh;
    const model = this.#model;
    if (config === null || model === null) return;
    try {
      const store = this.#store(config);
      const locked = config.bundle_auth && !this.signedIn;
      if (locked && config.bundle_id !== model.manifest.bundle_id) {
        throw new Unauthorised("sign in to get it");
      }
      const manifest = locked ? model.manifest : await store.latestManifest();
      const same = JSON.stringify(manifest) === JSON.stringify(model.manifest);
      if (same && JSON.stringify(config) === JSON.stringify(model.config)) return;
      if (!same) this.#set({ update: "A newer model is being downloaded; this one is used until then." });
      await this.#use(await store.downloadLatest(manifest, () => undefined), config, store);
      this.#set({ update: null });
    } catch (error) {
      this.config = config;
      this.#set({ update: `The newer model is not here yet: ${knownError(error).message}` });
    }
  }

  /**
   * @param {import("./bundle-store.js").Bundle} bundle
   * @param {Config} config
   * @param {BundleStore | null} store To keep the bundle in; null if it is kept already.
   */
  async #use(bundle, config, store = null) {
    const model = new Model(bundle, config, this._database, this._credentials.headers);
    await model.load();
    const kept = bundle.kept && (store === null || (await store.adopt(bundle.manifest)));
    const before = this.#model;
    this.#prober?.stop();
    this.#model = model;
    this.config = config;
    this.#prober = new Prober(model.tierStats, model.clients, () => this.#changed());
    before?.closeWhenUnused();
    this.#deliver(config);
    this.#set({ phase: "ready", kept, problem: null });
    this.#prober.askAll();
  }

  /** Deliver to the configured ledger. @param {Config} config */
  #deliver({ ledger, ledger_batch: batch }) {
    const url = ledger === null ? null : new URL(ledger, location.href).href;
    if (this.#delivery?.url === url) return;
    this.#delivery?.stop();
    this.#delivery = null;
    if (url === null) return;
    this.#delivery = new Delivery(this.outbox, { url, batch, headers: this._credentials.headers });
    this.#delivery.onChange(() => this.#changed());
    this.#delivery.start();
  }

  /** @param {Model} model @param {TextRequest} request */
  async #answer(model, request) {
    const release = model.take();
    const signIns = this.#signIns;
    try {
      return await request.answer();
    } finally {
      release();
      // the refusal of an earlier token says nothing about the present one
      if (signIns === this.#signIns) this.#signInNeeded ||= request.signInNeeded;
      this.#prober?.wake();
    }
  }

  /** @param {Config} config */
  #store(config) {
    return new BundleStore(config.bundle, this._credentials.headers);
  }

  /** @param {Partial<Status>} changes */
  #set(changes) {
    this.status = { ...this.status, ...changes };
    this.#changed();
  }

  #changed() {
    for (const observer of this.#observing) observer();
  }
}

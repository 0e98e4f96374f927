// The device's token: in memory, or in the database if the user asks. All tabs of the app learn of a
// sign-out, and of a token that was kept.

const KEY = "token";
const CHANNEL = "dimee-sign-in";
/** Longest wait for the answer to a sign-in. */
const SIGN_IN_MS = 15_000;
/** Characters that a header can hold; no token has others. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** Holds the token that goes with each call. */
export class Credentials {
  /** @type {string | null} */
  #token = null;
  /** Counts the changes of the token: what was read before the last one is out of date. */
  #changes = 0;
  #channel = new BroadcastChannel(CHANNEL);
  /** @type {() => void} */
  #observer = () => undefined;

  /** @param {import("./database.js").Database} database */
  constructor(database) {
    this._database = database;
    this.#channel.onmessage = ({ data }) => this.#told(data);
    addEventListener("pageshow", this.#shown);
  }

  /** True if a token is used. */
  get signedIn() {
    return this.#token !== null;
  }

  /** Return the headers of a call. @returns {Record<string, string>} */
  headers = () => (this.#token === null ? {} : { authorization: `Bearer ${this.#token}` });

  /**
   * Call `observer` after each change that another tab or the return to this page has made.
   * @param {() => void} observer
   */
  onChange(observer) {
    this.#observer = observer;
  }

  /** Use the token that was kept, if there is one. */
  async load() {
    const changes = this.#changes;
    const kept = await this._database.get(KEY).catch(() => undefined);
    if (typeof kept === "string" && changes === this.#changes) this.#use(kept);
  }

  /**
   * Use a token; keep it on this device, for all tabs, if the user asks, else only in this page's memory.
   * @param {string} token
   * @param {boolean} keep
   * @returns {Promise<boolean>} False if it cannot be kept; it is not used then.
   */
  async signIn(token, keep) {
    try {
      await this._database.set(KEY, keep ? token : undefined);
    } catch {
      if (keep) return false;
    }
    this.#use(token);
    if (keep) this.#channel.postMessage("kept");
    return true;
  }

  /**
   * Forget the token, in all tabs.
   * @returns {Promise<boolean>} False if the browser did not delete the token that was kept.
   */
  async signOut() {
    this.#use(null);
    this.#channel.postMessage("signed out");
    try {
      await this._database.set(KEY, undefined);
      return true;
    } catch {
      return false;
    } finally {
      // again, for a tab that was opened meanwhile and has read the token before it was deleted
      this.#channel.postMessage("signed out");
    }
  }

  /** Learn no longer of other tabs. */
  close() {
    this.#channel.close();
    removeEventListener("pageshow", this.#shown);
  }

  /** @param {string | null} token */
  #use(token) {
    this.#changes += 1;
    this.#token = token;
  }

  /** @param {unknown} message The token is never in it. */
  async #told(message) {
    if (message === "signed out") this.#use(null);
    else if (message === "kept") await this.load();
    this.#observer();
  }

  /** A page that comes back from the browser's back/forward cache may have missed a sign-out. */
  #shown = async (/** @type {Event} */ event) => {
    if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return;
    this.#use(null);
    await this.load();
    this.#observer();
  };
}

/**
 * Return whether a header can hold the token.
 * @param {string} token
 */
export function isSendable(token) {
  return SENDABLE.test(token);
}

/**
 * Return why a token is not accepted, or null.
 * @param {string} token
 * @param {string} url Address of a call that needs it.
 * @returns {Promise<string | null>}
 */
export async function problemOf(token, url) {
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(SIGN_IN_MS),
    });
    if (response.status === 401) return "This token is not accepted; check it, and sign in again.";
    if (response.status === 403) return "This token lacks the scope classify; ask the operator for one that has it.";
    return null;
  } catch {
    return "The gateway cannot be reached; connect to the network and try again.";
  }
}

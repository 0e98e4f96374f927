// The device's token: in memory, or in the database if the user asks.

const KEY = "token";
/** Characters that a header can hold; no token has others. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** Holds the token that goes with each call. */
export class Credentials {
  /** @type {string | null} */
  #token = null;

  /** @param {import("./database.js").Database} database */
  constructor(database) {
    this._database = database;
  }

  /** True if a token is used. */
  get signedIn() {
    return this.#token !== null;
  }

  /** Return the headers of a call. @returns {Record<string, string>} */
  headers = () => (this.#token === null ? {} : { authorization: `Bearer ${this.#token}` });

  /** Use the token that was kept, if there is one. */
  async load() {
    const kept = await this._database.get(KEY).catch(() => undefined);
    if (typeof kept === "string") this.#token = kept;
  }

  /**
   * Use a token; keep it on this device if the user asks, else only until the page is closed.
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
    this.#token = token;
    return true;
  }

  /** Forget the token. */
  async signOut() {
    this.#token = null;
    await this._database.set(KEY, undefined);
  }
}

/**
 * Return whether a header can hold the token.
 * @param {string} token
 */
export function isSendable(token) {
  return SENDABLE.test(token);
}

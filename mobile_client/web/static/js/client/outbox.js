// The durable outbox: keeps this device's entries in IndexedDB until the ledger has stored them.
//
// All pages of the origin share it. An entry survives the end of its page and of the browser; a
// power cut may lose the last ones.

import { NotReady } from "../core/errors.js";
import { endsOfOpenAttempts } from "../core/ledger-entry.js";
import { done } from "./database.js";

/** Most rows; about a kilobyte each. */
export const MAX_ROWS = 20_000;
/** Most ends of attempts that are kept in memory while the database cannot be written. */
export const MAX_BUFFERED = 1_000;
const SALT_BYTES = 32;
const IN_MEMORY = -1;

/**
 * @typedef {object} Row An undelivered entry.
 * @property {string} attempt_id
 * @property {string} side
 * @property {number} version
 * @property {string} body JSON of the entry
 */
/**
 * @typedef {object} StoredRow
 * @property {string} attempt_id
 * @property {string} side
 * @property {number} version
 * @property {string} body
 * @property {boolean} terminal
 * @property {number} [waiting] Time at which it was recorded; absent once this version is delivered.
 * @property {string} [page] Page whose attempt is open; absent once it has ended.
 * @property {number} [rejected] 1 if the ledger refused it for good.
 */
/** @import { LedgerEntry } from "../core/ledger-entry.js" */

export class Outbox {
  /** @type {Map<string, Row>} */
  #buffered = new Map();
  /** @type {Promise<CryptoKey> | null} */
  #salt = null;
  /** @type {Set<() => void>} */
  #observers = new Set();
  /** Number of rows as last counted, with those that this page has added since. @type {number | null} */
  #size = null;
  /** Sentence that says why the last entry could not be recorded, or null. @type {string | null} */
  problem = null;
  /** Ends of attempts that were lost because nothing could be written. */
  dropped = 0;

  /**
   * @param {import("./database.js").Database} database
   * @param {string} page Identifier of this page, which ends its own attempts.
   * @param {number} maxRows
   */
  constructor(database, page, maxRows = MAX_ROWS) {
    this._database = database;
    this._page = page;
    this._maxRows = maxRows;
  }

  /**
   * Call `observer` after each change that this page makes.
   * @param {() => void} observer
   */
  onChange(observer) {
    this.#observers.add(observer);
  }

  /**
   * Write new entries or the ends of open ones in one transaction.
   *
   * A terminal state is never changed. Throws `NotReady` if they cannot be written, because no
   * request may start and no answer be given without its entries.
   * @param {...LedgerEntry} entries
   * @returns {Promise<void>}
   */
  async record(...entries) {
    try {
      await this._database.run(["outbox"], "readwrite", async (rows) => {
        const opened = entries.filter((entry) => entry.state === "open").length;
        this.#size ??= await done(rows.count());
        // what has begun may always end
        if (opened > 0 && this.#size >= this._maxRows) throw new FullError(this._maxRows);
        await Promise.all(entries.map((entry) => this.#upsert(rows, entry)));
        this.#size += opened;
      });
    } catch (error) {
      throw this.#refusal(error);
    }
    this.problem = null;
    this.#changed();
  }

  /**
   * Record the ends of attempts without throwing; what cannot be written is delivered from memory.
   * @param {...LedgerEntry} entries
   * @returns {Promise<void>}
   */
  async recordOrBuffer(...entries) {
    for (const entry of entries) {
      try {
        await this.record(entry);
      } catch {
        const row = { attempt_id: entry.attempt_id, side: entry.side, version: IN_MEMORY, body: bodyOf(entry) };
        const key = `${row.attempt_id} ${row.side}`;
        if (this.#buffered.size >= MAX_BUFFERED) this.dropped += 1;
        else if (!this.#buffered.has(key)) this.#buffered.set(key, row);
      }
    }
  }

  /**
   * Return at most `limit` undelivered rows, oldest first.
   * @param {number} limit
   * @returns {Promise<Row[]>}
   */
  async pending(limit) {
    await this.#writeBuffered();
    const buffered = [...this.#buffered.values()].slice(0, limit);
    const left = limit - buffered.length;
    if (left <= 0) return buffered;
    /** @type {StoredRow[]} */
    const stored = await this._database.run(["outbox"], "readonly", async (rows) => {
      this.#size = await done(rows.count());
      return done(rows.index("waiting").getAll(null, left));
    });
    return [...buffered, ...stored.map(({ attempt_id, side, version, body }) => ({ attempt_id, side, version, body }))];
  }

  /**
   * Delete delivered rows; keep those that are open or have changed since they were sent.
   * @param {Row[]} delivered
   * @returns {Promise<boolean>} False if there is no space to note that open rows were delivered.
   */
  async markDelivered(delivered) {
    const stored = this.#forget(delivered);
    let marked = true;
    if (stored.length > 0) {
      await this.#delete(stored, true).catch(async () => {
        // what is deleted makes space; open rows are sent again
        await this.#delete(stored, false);
        marked = false;
      });
    }
    this.#changed();
    return marked;
  }

  /**
   * Delete delivered rows; `mark` those that are open as delivered.
   * @param {Row[]} delivered
   * @param {boolean} mark
   */
  async #delete(delivered, mark) {
    await this._database.run(["outbox"], "readwrite", (rows) =>
      Promise.all(
        delivered.map(async (sent) => {
          /** @type {StoredRow | undefined} */
          const row = await done(rows.get([sent.attempt_id, sent.side]));
          if (row === undefined || row.version !== sent.version) return;
          if (row.terminal) {
            rows.delete([sent.attempt_id, sent.side]);
          } else if (mark) {
            delete row.waiting;
            await done(rows.put(row));
          }
        }),
      ),
    );
  }

  /**
   * Exclude a row that the ledger rejects from further deliveries; the row stays on the device.
   * @param {Row} rejected
   * @returns {Promise<void>}
   */
  async quarantine(rejected) {
    if (this.#forget([rejected]).length === 0) {
      this.dropped += 1;
    } else {
      await this._database.run(["outbox"], "readwrite", async (rows) => {
        /** @type {StoredRow | undefined} */
        const row = await done(rows.get([rejected.attempt_id, rejected.side]));
        if (row !== undefined) rows.put(rejectedRow(row));
      });
    }
    this.#changed();
  }

  /**
   * Return the numbers of entries that wait and of those that the ledger refused; `problem` says why an
   * entry could not be recorded, or why the entries cannot be read.
   * @returns {Promise<{waiting: number, rejected: number, problem: string | null}>}
   */
  async counts() {
    try {
      const [waiting, rejected] = await this._database.run(["outbox"], "readonly", (rows) =>
        Promise.all([done(rows.index("waiting").count()), done(rows.index("rejected").count())]),
      );
      return { waiting: waiting + this.#buffered.size, rejected, problem: this.problem };
    } catch (error) {
      return { waiting: this.#buffered.size, rejected: 0, problem: this.problem ?? problemOf(error) };
    }
  }

  /**
   * Return the pages that have open attempts.
   * @returns {Promise<string[]>}
   */
  async pagesWithOpenAttempts() {
    return this._database.run(["outbox"], "readonly", async (rows) => {
      /** @type {string[]} */
      const pages = [];
      const request = rows.index("page").openKeyCursor(null, "nextunique");
      for (let cursor = await done(request); cursor !== null; cursor = await done(request)) {
        pages.push(String(cursor.key));
        cursor.continue();
      }
      return pages;
    });
  }

  /**
   * End the open attempts of a page that was closed, as abandoned. A row that is not readable is
   * excluded from deliveries, as one that the ledger rejects.
   * @param {string} page
   * @returns {Promise<number>} Number of entries that were ended.
   */
  async abandon(page) {
    const ended = await this._database.run(["outbox"], "readwrite", async (rows) => {
      /** @type {StoredRow[]} */
      const stored = await done(rows.index("page").getAll(page));
      /** @type {LedgerEntry[]} */
      const open = [];
      for (const row of stored) {
        const entry = parsed(row.body);
        delete row.page;
        if (entry === null) rows.put(rejectedRow(row));
        else open.push(entry);
      }
      const ends = endsOfOpenAttempts(open);
      await Promise.all(ends.map((end) => this.#upsert(rows, end)));
      return ends.length;
    });
    if (ended > 0) this.#changed();
    return ended;
  }

  /**
   * Return a salted hash of a text (HMAC-SHA256, 128 bits in hex): equal only for equal texts.
   * @param {string} text
   * @param {string | null} pair
   * @returns {Promise<string>}
   */
  async hashText(text, pair) {
    this.#salt ??= this.#loadSalt().catch((error) => {
      this.#salt = null;
      throw this.#refusal(error);
    });
    const message = new TextEncoder().encode(pair === null ? text : `${text}\x1f${pair}`);
    const digest = await crypto.subtle.sign("HMAC", await this.#salt, message);
    return hex(new Uint8Array(digest).subarray(0, 16));
  }

  async #loadSalt() {
    /** @type {Uint8Array<ArrayBuffer>} */
    const salt = await this._database.getOrCreate("salt", () => crypto.getRandomValues(new Uint8Array(SALT_BYTES)));
    return crypto.subtle.importKey("raw", salt, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  }

  /** @param {IDBObjectStore} rows @param {LedgerEntry} entry */
  async #upsert(rows, entry) {
    /** @type {StoredRow | undefined} */
    const known = await done(rows.get([entry.attempt_id, entry.side]));
    if (known?.terminal) return;
    const terminal = entry.state !== "open";
    /** @type {StoredRow} */
    const row = {
      attempt_id: entry.attempt_id,
      side: entry.side,
      version: (known?.version ?? 0) + 1,
      body: bodyOf(entry),
      terminal,
      waiting: Date.now(),
    };
    if (!terminal) row.page = this._page;
    await done(rows.put(row));
  }

  /** Remove rows from memory; return those that are in the database. @param {Row[]} rows */
  #forget(rows) {
    for (const row of rows) {
      if (row.version === IN_MEMORY) this.#buffered.delete(`${row.attempt_id} ${row.side}`);
    }
    return rows.filter((row) => row.version !== IN_MEMORY);
  }

  async #writeBuffered() {
    for (const [key, row] of [...this.#buffered]) {
      try {
        await this._database.run(["outbox"], "readwrite", (rows) => this.#upsert(rows, JSON.parse(row.body)));
      } catch {
        return; // they are delivered from memory
      }
      this.#buffered.delete(key);
    }
  }

  /** Return the error of a request whose entries cannot be recorded. @param {unknown} error */
  #refusal(error) {
    this.problem = problemOf(error);
    this.#changed();
    return new NotReady(`no request is answered without its ledger entries, and ${this.problem}`);
  }

  #changed() {
    for (const observer of this.#observers) observer();
  }
}

class FullError extends Error {
  /** @param {number} maxRows */
  constructor(maxRows) {
    super(
      `the outbox holds its limit of ${maxRows.toLocaleString("en")} entries, because the ledger ` +
        "does not take them; connect to the network until they are delivered",
    );
  }
}

/** Return a row as one that the ledger refused for good. @param {StoredRow} row @returns {StoredRow} */
function rejectedRow({ waiting: _waiting, ...row }) {
  return { ...row, rejected: 1 };
}

/** @param {string} body @returns {LedgerEntry | null} */
function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null;
  }
}

/** @param {LedgerEntry} entry */
function bodyOf(entry) {
  return JSON.stringify(entry);
}

/** @param {unknown} error */
function problemOf(error) {
  if (error instanceof FullError) return error.message;
  const name = error instanceof Error || error instanceof DOMException ? error.name : "error";
  if (name === "QuotaExceededError") {
    return "the browser gives this app no more space; free space on the device";
  }
  return `the browser's database cannot be used (${name}); allow this site to store data, and open it again`;
}

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

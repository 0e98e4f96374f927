// The app's IndexedDB: the outbox's rows, and single values such as the salt.

const NAME = "dimee";
const VERSION = 1;

/** @typedef {"outbox" | "values"} StoreName */

/** Connection to the database of this origin; opened when it is first used, and again if it closes. */
export class Database {
  /** @type {Promise<IDBDatabase> | null} */
  #opened = null;

  /** @param {string} name Name of the database; another one keeps tests apart. */
  constructor(name = NAME) {
    this.name = name;
  }

  /**
   * Run `work` in one transaction and return its value once the transaction has been written.
   * `work` gets the stores in the order of `names`, and may only wait for their requests.
   * @template T
   * @param {StoreName[]} names
   * @param {"readonly" | "readwrite"} mode
   * @param {(...stores: IDBObjectStore[]) => Promise<T> | T} work
   * @returns {Promise<T>}
   */
  async run(names, mode, work) {
    const database = await this.#open();
    const transaction = database.transaction(names, mode);
    const written = finished(transaction);
    try {
      const value = await work(...names.map((name) => transaction.objectStore(name)));
      await written;
      return value;
    } catch (error) {
      written.catch(() => undefined);
      abort(transaction);
      // the transaction knows better why a request failed, such as for lack of space
      throw transaction.error ?? error;
    }
  }

  /**
   * Return a single value, or undefined.
   * @param {string} key
   * @returns {Promise<any>}
   */
  get(key) {
    return this.run(["values"], "readonly", (values) => done(values.get(key)));
  }

  /**
   * Keep a single value; undefined deletes it.
   * @param {string} key
   * @param {unknown} value
   * @returns {Promise<void>}
   */
  async set(key, value) {
    await this.run(["values"], "readwrite", (values) => {
      if (value === undefined) values.delete(key);
      else values.put(value, key);
    });
  }

  /**
   * Return a value that is created once and then stays, also if two pages ask at the same time.
   * @template T
   * @param {string} key
   * @param {() => T} make
   * @returns {Promise<T>}
   */
  getOrCreate(key, make) {
    return this.run(["values"], "readwrite", async (values) => {
      const found = await done(values.get(key));
      if (found !== undefined) return found;
      const made = make();
      await done(values.put(made, key));
      return made;
    });
  }

  /** Close the connection. */
  async close() {
    const opened = this.#opened;
    this.#opened = null;
    if (opened !== null) (await opened.catch(() => null))?.close();
  }

  #open() {
    this.#opened ??= this.#connect().catch((error) => {
      this.#opened = null;
      throw error;
    });
    return this.#opened;
  }

  /** @returns {Promise<IDBDatabase>} */
  #connect() {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(this.name, VERSION);
      request.onupgradeneeded = () => {
        const rows = request.result.createObjectStore("outbox", { keyPath: ["attempt_id", "side"] });
        // only rows with the property are in the index
        rows.createIndex("waiting", "waiting");
        rows.createIndex("page", "page");
        rows.createIndex("rejected", "rejected");
        request.result.createObjectStore("values");
      };
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const database = request.result;
        database.onclose = () => {
          this.#opened = null;
        };
        // another page has a newer version of the app, or deletes the data
        database.onversionchange = () => {
          this.#opened = null;
          database.close();
        };
        resolve(database);
      };
    });
  }
}

/**
 * Return the result of a request of the database.
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
export function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new DOMException("aborted", "AbortError"));
  });
}

/** @param {IDBTransaction} transaction */
function abort(transaction) {
  try {
    transaction.abort();
  } catch {
    // it has ended already
  }
}

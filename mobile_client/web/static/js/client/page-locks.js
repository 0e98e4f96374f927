// Locks that tell which pages of the app live, and that let one page at a time deliver.

const PAGE = "dimee-page ";
const DELIVERY = "dimee-delivery";

/**
 * Hold the lock of this page until it is closed. The browser releases it, however the page ends.
 * Rejects if the browser gives this site no locks, as where it may store nothing.
 * @param {string} page
 * @returns {Promise<() => void>} Releases the lock earlier.
 */
export function holdPageLock(page) {
  return new Promise((resolve, reject) => {
    const held = () => new Promise((/** @type {(value: void) => void} */ release) => resolve(release));
    navigator.locks.request(PAGE + page, held).catch(reject);
  });
}

/**
 * Do `work` if the page has been closed, so that no two pages do it at once; else do nothing.
 * @param {string} page
 * @param {() => Promise<unknown>} work
 */
export function ifClosed(page, work) {
  return navigator.locks.request(PAGE + page, { ifAvailable: true }, (lock) => (lock === null ? null : work()));
}

/**
 * Do `work` if no other page delivers; return null otherwise.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T | null>}
 */
export async function ifNoneDelivers(work) {
  return navigator.locks.request(DELIVERY, { ifAvailable: true }, async (lock) => (lock === null ? null : work()));
}

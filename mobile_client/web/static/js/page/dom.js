// Elements. All text is set as text, never as HTML.

/** @typedef {Node | string | null | undefined} Child */

/**
 * Return the element with this id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no element ${id}`);
  return element;
}

/** @param {string} id */
export const input = (id) => /** @type {HTMLInputElement} */ (byId(id));
/** @param {string} id */
export const select = (id) => /** @type {HTMLSelectElement} */ (byId(id));
/** @param {string} id */
export const dialog = (id) => /** @type {HTMLDialogElement} */ (byId(id));
/** @param {string} id */
export const button = (id) => /** @type {HTMLButtonElement} */ (byId(id));

/**
 * Return a new element; children that are null or undefined are left out.
 * @param {string} name
 * @param {Record<string, string | number | boolean | null | undefined>} attributes
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(key, value === true ? "" : String(value));
  }
  replace(element, ...children);
  return element;
}

/**
 * Replace what an element contains.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function replace(element, ...children) {
  const shown = children.flat().filter((child) => child !== null && child !== undefined);
  element.replaceChildren(.../** @type {(Node | string)[]} */ (shown));
}

/**
 * Return the options of a select for pairs of value and text.
 * @param {[string, string][]} pairs
 */
export function options(pairs) {
  return pairs.map(([value, text]) => el("option", { value }, text));
}

/**
 * Return the terms and values of a list.
 * @param {[string | Node, Child | Child[]][]} rows
 */
export function terms(rows) {
  return rows.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, ...[value].flat())]);
}

// Elements. All text is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Return a new element; `children` are elements or strings, null and undefined are left out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Return a new SVG element. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Replace what an element contains. */
export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return the options of a select for pairs of value and text. */
export function options(pairs, chosen) {
  return pairs.map(([value, text]) => {
    const option = el("option", { value }, text);
    option.selected = value === chosen;
    return option;
  });
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return replace(element, ...children);
}

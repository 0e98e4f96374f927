// Bars. Their widths are set on the element's style object, which the content policy allows.

import { el } from "./dom.js";

/**
 * Return a bar for a share; `mark` draws a line, such as the threshold α. The value stands as text
 * beside it.
 * @param {number} value
 * @param {string} fill Class of its colour.
 * @param {number | null} mark
 */
export function bar(value, fill, mark) {
  const filled = el("div", { class: `bar-fill ${fill}` });
  filled.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
  const track = el("div", { class: "bar", "aria-hidden": "true" }, filled);
  if (mark !== null) {
    const tick = el("div", { class: "bar-mark" });
    tick.style.insetInlineStart = `calc(${100 * mark}% - 1px)`;
    track.append(tick);
  }
  return track;
}

/**
 * Return one bar that is divided by parts: pairs of a fill and a value.
 * @param {[string, number | null | undefined][]} parts
 */
export function divided(parts) {
  const total = parts.reduce((sum, [, value]) => sum + (value ?? 0), 0);
  const track = el("div", { class: "shares", "aria-hidden": "true" });
  for (const [fill, value] of parts) {
    if (!value || !(total > 0)) continue;
    const part = el("span", { class: `fill-${fill}` });
    part.style.width = `${(100 * value) / total}%`;
    track.append(part);
  }
  return track;
}

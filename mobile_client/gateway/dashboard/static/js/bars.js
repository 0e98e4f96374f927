// Bars. Their widths are set on the element's style object, which the content policy allows.

import { el } from "./dom.js";

/**
 * Return a bar for `value` on the scale `low` to `high`; it starts at 0 if the scale contains 0.
 * `mark` draws a line, such as the threshold α. The value stands as text beside it.
 */
export function bar(value, { low = 0, high = 1, fill = "plain", mark = null } = {}) {
  const track = el("div", { class: "bar", "aria-hidden": "true" });
  if (Number.isFinite(value)) {
    const [from, to] = [position(Math.min(0, value), low, high), position(Math.max(0, value), low, high)];
    const filled = el("div", { class: `bar-fill fill-${fill}` });
    filled.style.insetInlineStart = `${from}%`;
    filled.style.width = `${Math.max(0, to - from)}%`;
    track.append(filled);
  }
  for (const line of [low < 0 ? 0 : null, mark]) {
    if (line === null || line === undefined) continue;
    const tick = el("div", { class: "bar-mark" });
    tick.style.insetInlineStart = `calc(${position(line, low, high)}% - 1px)`;
    track.append(tick);
  }
  return track;
}

/** Return one bar that is divided by `parts`: pairs of fill and value. */
export function divided(parts, total) {
  const track = el("div", { class: "shares", "aria-hidden": "true" });
  for (const [fill, value] of parts) {
    if (!(value > 0) || !(total > 0)) continue;
    const part = el("span", { class: `fill-${fill}` });
    part.style.width = `${(100 * value) / total}%`;
    track.append(part);
  }
  return track;
}

function position(value, low, high) {
  if (high <= low) return 0;
  return 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
}

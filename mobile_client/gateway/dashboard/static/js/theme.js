// The button of the theme, and the theme's colours for drawings.

import * as theme from "../shared/theme.js";
import { emit } from "./bus.js";

/** Set up the button; each change is the event `theme`. */
export function start() {
  theme.start(() => emit("theme"));
}

/** Return the value of a colour of theme.css, for drawings that CSS does not reach. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

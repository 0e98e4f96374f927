// Light or dark: the system's, or the one that was chosen here before.

import { byId } from "./dom.js";

const KEY = "dimee-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** Set up the button that changes the theme. */
export function start() {
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // storage is blocked: the theme holds until the page is closed
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
}

function show() {
  byId("theme").setAttribute("aria-pressed", String(isDark()));
}

// Light or dark: the system's, or the one that was chosen here before.

const KEY = "dimee-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/**
 * Set up the button that changes the theme.
 * @param {() => void} onChange Called at first and after each change.
 */
export function start(onChange = () => undefined) {
  const button = document.getElementById("theme");
  const show = () => {
    button?.setAttribute("aria-pressed", String(isDark()));
    onChange();
  };
  button?.addEventListener("click", () => {
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

// Applies the remembered theme before the first paint; the only script that is not a module.
{
  const theme = (() => {
    try {
      return localStorage.getItem("dimee-theme");
    } catch {
      return null; // storage is blocked: the system's theme applies
    }
  })();
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

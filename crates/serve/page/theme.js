// Light, dark, or as the system says. Not a module, so that it runs before the first paint.
(() => {
  const KEY = "tritforge.theme";
  const NAMES = { auto: "system", light: "light", dark: "dark" };

  function stored() {
    try {
      const theme = localStorage.getItem(KEY);
      return theme in NAMES ? theme : "auto";
    } catch {
      return "auto";
    }
  }

  function apply(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = { auto: "◐", light: "☀", dark: "☾" }[theme];
      button.setAttribute("aria-label", `Color theme: ${NAMES[theme]}`);
      button.title = `Color theme: ${NAMES[theme]}`;
    }
  }

  let theme = stored();
  apply(theme);
  document.addEventListener("DOMContentLoaded", () => {
    apply(theme);
    document.getElementById("theme")?.addEventListener("click", () => {
      const order = Object.keys(NAMES);
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // Only this page has it then.
      }
      apply(theme);
    });
  });
})();

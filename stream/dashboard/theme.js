// Runs before the page is painted: sets the theme chosen last time, else that of the system.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("apexstream.theme");
  } catch {
    // storage is disabled: the theme of the system
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (chosen) document.documentElement.dataset.chosen = ""; // the theme of the system is then ignored
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
